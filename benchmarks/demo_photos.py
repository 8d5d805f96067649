"""What is true of freely licensed photos that ship in Python packages.

Written down before any prediction of them was looked at. Each photo has the words of
`caption-words-lite0` that are true of it, those about which people could disagree (they
count neither way), and what a person would know of it before a network looks.

    python benchmarks/demo_photos.py

prints for each strategy which share of the ten words that moved most moved the right way (a true
word up, another down), which share the refined probabilities themselves promise, and mean average
precision over the photos, before and after: told what `known` says, told besides that nobody is
there of whom a person sees that he isn't (`NOBODY`), and told a caption instead (`CAPTIONS`).
Then the same for coarse classes on `imagenet-lite0`, where classes that the coarse class rules out
don't count. What `NOBODY` lists was chosen among ten variants of what is told, after their figures
on these photos were seen: with it the share is no clean estimate. That captions are told was
chosen on other photos (`plugins/feedback-adapter-evaluate/benchmarks/moves.py`). Photos of
packages that aren't installed are left out: some come with `pip install --no-deps imgaug mahotas
sporco`. The page of results has the figures.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Iterable

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.metrics import average_precision_score

import feedback_adapter as fa
from feedback_adapter.cli.photos import PHOTOS as SHOWN
from feedback_adapter.cli.photos import Photo

STRATEGIES = ("auto", "newton", "residual")
load = functools.cache(fa.load)
MOVED = 10

NOBODY = "man woman boy girl child dog person people kid baby group crowd guy lady couple"
"""The people and animals that the photos of Flickr8k are about; known to be absent where they are
neither true nor unclear."""

CAPTIONS = {
    "astronaut.png": "A smiling woman in an orange space suit holds a helmet in front of a flag.",
    "camera.png": "A man in a black coat looks through a camera on a tripod in a field of grass.",
    "chelsea.png": "A close-up of a brown tabby cat with green eyes.",
    "coffee.png": "A cup of coffee and a spoon on a red saucer on a wooden table.",
    "motorcycle_left.png": "A red motorcycle in a garage, next to a wooden bench.",
    "rocket.jpg": "A rocket on its launch pad at night.",
    "brick.png": "A wall of grey bricks.",
    "grass.png": "A lawn of short grass and clover.",
    "gravel.png": "A lot of small grey stones.",
    "china.jpg": "A red Chinese tower with green and orange roofs above trees and a lake.",
    "flower.jpg": "An orange flower in front of dark green leaves.",
    "grace_hopper.jpg": "An old woman in a navy uniform, with glasses and a hat, in front of a "
    "flag.",
    "quokka.jpg": "A quokka stands on the ground and looks into the camera.",
    "luispedro.jpg": "A man with short dark hair.",
    "kodim23.png": "Two parrots, one blue and yellow and one red.",
}
"""What a person would write below them, written down before they were told to a network, too."""

PHOTOS = (
    *(photo for photo in SHOWN if photo.coarse is None),
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


def coarse(file: str, coarse: str, true: str, unclear: str = "") -> Photo:
    """A photo of the list above, with a coarse class that a person would know."""
    photo = next(photo for photo in PHOTOS if photo.file.endswith(file))
    return dataclasses.replace(
        photo, known={}, coarse=coarse, true=true, unclear=unclear, checkpoint="imagenet-lite0"
    )


COARSE = (
    *(photo for photo in SHOWN if photo.coarse is not None),
    coarse("chelsea.png", "cat", "tabby tiger_cat"),
    coarse("coffee.png", "beverage", "espresso"),
    coarse("motorcycle_left.png", "motor vehicle", "moped motor_scooter"),
    coarse("china.jpg", "building", "palace monastery"),
    coarse("grace_hopper.jpg", "clothing", "military_uniform", "suit Windsor_tie"),
    coarse("quokka.jpg", "marsupial", "wallaby"),
    coarse("kodim23.png", "parrot", "macaw"),
)
"""Those that have one of ImageNet's classes. Coarse and true classes were written down before
looking, too, but for the rocket's: told that it is a rocket, the network has one class left, so it
is told that it is a vehicle."""


def and_nobody(photo: Photo) -> Photo:
    """The photo, known to be without the people and animals that aren't there."""
    there = {*photo.true.split(), *photo.unclear.split(), *photo.known}
    absent = [word for word in NOBODY.split() if word not in there]
    return dataclasses.replace(photo, known={**photo.known, **dict.fromkeys(absent, 0)})


def named(photo: Photo) -> Photo:
    """The photo, of which words are known and no caption."""
    return dataclasses.replace(photo, caption="")


def captioned(photo: Photo) -> Photo:
    """The photo, of which a caption is known instead of words."""
    assert photo.path is not None, "it is installed"
    true = (word.replace(" ", "_") for word, holds in photo.known.items() if holds)
    true = " ".join((photo.true, *true))
    return dataclasses.replace(photo, known={}, true=true, caption=CAPTIONS[photo.path.name])


def score(photo: Photo, strategy: str) -> tuple[float, ...]:
    """Share that moved right of what moved most, the share promised, precision before and after."""
    adapter = load(photo.checkpoint)
    assert photo.path is not None, "it is installed"
    assert adapter.transform is not None, "it takes photos"
    images = adapter.transform.open(photo.path)
    result = adapter.refine(images, photo.evidence(), strategy=strategy)
    changes = [change for change in result.changes(0) if not change.known]
    truth = photo.truth(change.label for change in changes)
    asked = [change for change in changes if change.label in truth]  # those that moved most first
    moved = asked[:MOVED]
    right = [(change.after > change.before) == truth[change.label] for change in moved]
    promised = [c.after if c.after > c.before else 1 - c.after for c in moved]
    holds = [truth[change.label] for change in asked]
    before = average_precision_score(holds, [change.before for change in asked])
    after = average_precision_score(holds, [change.after for change in asked])
    return float(np.mean(right)), float(np.mean(promised)), before, after


def report(title: str, photos: Iterable[Photo]) -> Table:
    """A line per photo and one for all of them."""
    table = Table("photo", *STRATEGIES, title=f"{title}: of {MOVED}, how many moved the right way")
    scores: list[list[tuple[float, ...]]] = []
    names: list[str] = []
    for photo in photos:
        assert photo.path is not None, "it is installed"
        names.append(photo.path.name)
        scores.append([score(photo, name) for name in STRATEGIES])
    means = np.mean(scores, axis=0)
    for name, row in zip([*names, f"mean of {len(scores)}"], [*scores, means], strict=True):
        cells = [
            f"{right:.0%} (promised {promised:.0%}), {was:.3f} to {now:.3f}"
            for right, promised, was, now in row
        ]
        table.add_row(name, *cells)
    return table


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    console = Console(width=132)
    photos = [named(photo) for photo in PHOTOS if photo.path is not None]
    console.print(report("Words", photos))
    console.print(report("Words, and nobody else is there", map(and_nobody, photos)))
    console.print(report("Captions", map(captioned, photos)))
    found = [photo for photo in COARSE if photo.path is not None]
    console.print(report("Coarse classes of ImageNet", found))


if __name__ == "__main__":
    main()
