"""Decoder mode, measured: decoders on a frozen net, under noise, blur and JPEG.

    python recipes/cnnf_decoder.py cifar10 --data DATA/cifar10 --out OUT --json JSON
    python recipes/cnnf_decoder.py fashion --data FASHION --out OUT --json JSON

`cifar10` first trains a small net and freezes it; `fashion` takes the zoo's fashion-cnn. Weights
go to OUT, and a run that was cut off goes on from them. In training, decoders and gammas see
Gaussian noise; blur and JPEG are new to them.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import cnnf_small_net
import torch
import typer
from cnnf_corruptions import STRENGTHS, corrupt, noisy
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import fa_cnnf
import feedback_adapter as fa
from fa_cnnf.data import SOURCES, Images, read_splits, to_input
from fa_cnnf.nets import SmallResNet


@dataclasses.dataclass(frozen=True)
class Case:
    """What is measured.

    Args:
        net: What is frozen, in words.
        sites: Its stages.
        noise: Largest standard deviation in training, in [0, 1] units.
        augment: Whether training images are cropped and flipped.
        groups: Coarse classes for evidence.
    """

    net: str
    sites: tuple[str, ...]
    noise: float
    augment: bool
    groups: dict[str, list[str]]


CASES = {
    "cifar10": Case(
        "SmallResNet(32), trained on clean images",
        ("stem", "stage1", "stage2"),
        0.12,
        True,
        {
            "animal": ["bird", "cat", "deer", "dog", "frog", "horse"],
            "vehicle": ["airplane", "automobile", "ship", "truck"],
        },
    ),
    "fashion": Case(
        "fashion-cnn of the zoo",
        ("bottom", "segments.0", "segments.1"),
        0.25,
        False,
        {
            "shoes": ["sandal", "sneaker", "ankle-boot"],
            "tops": ["t-shirt", "pullover", "dress", "coat", "shirt"],
            "other": ["trouser", "bag"],
        },
    ),
}
STEPS = 2
BATCH = 64


class Learner:
    """Makes loops on one net; what is there already is read."""

    def __init__(self, net: nn.Module, case: Case, data: Images, seed: int, out: Path) -> None:
        self.net, self.case, self.data, self.seed, self.out = net, case, data, seed, out

    def fitted(self, images: int) -> dict[str, Tensor]:
        """Weights of decoders that saw so many images."""
        file = self._file("fitted")
        if not file.is_file():
            loop, left = self._fresh(1), list[list[float]]()
            clean = (x for x, _ in self._some(self.seed, images))
            fa_cnnf.fit_decoders(loop, clean, self._spoil(), lr=5e-3, report=left.append)
            print("variance left", torch.tensor(left[-20:]).mean(0).tolist(), flush=True)
            save_file(loop.decoders.state_dict(), file)
        return load_file(file)

    def loop(
        self, name: str, steps: int, images: int, weights: dict[str, Tensor] | None = None
    ) -> fa_cnnf.DecoderLoop:
        """A loop with these decoders, or random ones, whose gammas saw so many images."""
        file, loop = self._file(name), self._fresh(steps)
        if weights is not None:
            loop.decoders.load_state_dict(weights)
        if not file.is_file():
            losses: list[float] = []
            some = self._some(self.seed + 1, images)
            fa_cnnf.fit_gammas(loop, some, self._spoil(), lr=0.02, report=losses.append)
            print(name, f"loss {losses[0]:.3f} to {losses[-1]:.3f}", sizes(loop), flush=True)
            save_file(loop.gammas.state_dict(), file)
        loop.gammas.load_state_dict(load_file(file))
        return loop

    def _file(self, name: str) -> Path:
        return self.out / f"{name.replace(' ', '-')}-s{self.seed}.safetensors"

    def _fresh(self, steps: int) -> fa_cnnf.DecoderLoop:
        torch.manual_seed(self.seed)
        example = to_input(self.data.images[:1])
        return fa_cnnf.decoders(self.net, example, self.case.sites, steps=steps)

    def _spoil(self) -> Callable[[Tensor], Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        return lambda x: noisy(x, generator, self.case.noise)

    def _some(self, seed: int, images: int) -> Iterator[tuple[Tensor, Tensor]]:
        parts = cnnf_small_net.batches(self.data, seed, BATCH, augment=self.case.augment)
        return itertools.islice(parts, images // BATCH)


def sizes(loop: fa_cnnf.DecoderLoop) -> list[float]:
    """The mean gamma of each stage."""
    return [round(float(g.detach().mean()), 4) for g in loop.gammas]


def accuracies(
    loop: fa_cnnf.DecoderLoop, images: Tensor, labels: Tensor, steps: int
) -> list[float]:
    """Percent right at iterations 0 to `steps`."""
    hits = torch.zeros(steps + 1)
    with torch.no_grad():
        for x, y in zip(images.split(250), labels.split(250), strict=True):
            hits += (loop.unroll(x, steps).logits.argmax(-1) == y).sum(1)
    return [round(100 * float(h) / len(labels), 2) for h in hits]


def told(
    loop: fa_cnnf.DecoderLoop, images: Tensor, labels: Tensor, case: Case, classes: list[str]
) -> dict[str, float]:
    """Percent right with the softmax masked to the coarse class, which is known."""
    group = {name: key for key, names in case.groups.items() for name in names}
    adapter = fa.wrap(loop, labels=classes, kind="multiclass")
    hits: dict[str, int] = {}
    for x, y in zip(images.split(250), labels.split(250), strict=True):
        names = [group[classes[i]] for i in y.tolist()]
        allowed = torch.tensor([[c in case.groups[name] for c in classes] for name in names])
        evidence = fa.Coarse(names, hierarchy=case.groups)
        result = adapter.refine(x, evidence, strategy="cnnf", pivots="input", steps=loop.steps)
        with torch.no_grad():
            found = {"frozen": result.before, "decoders": loop(x), "decoders, told": result.after}
        for name, logits in found.items():
            right = logits.masked_fill(~allowed, -torch.inf).argmax(-1) == y
            hits[name] = hits.get(name, 0) + int(right.sum())
    return {name: round(100 * count / len(labels), 2) for name, count in hits.items()}


def main(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(CASES)}.")],
    data: Annotated[Path, typer.Option(help="Folder of the images.")],
    out: Annotated[Path, typer.Option(help="Folder for weights; the net's are read.")],
    results: Annotated[Path, typer.Option("--json", help="Where accuracies go.")],
    epochs: Annotated[int, typer.Option(min=1, help="Passes of the net's training.")] = 4,
    fit_images: Annotated[int, typer.Option(min=1, help="Images that decoders see.")] = 30000,
    gamma_images: Annotated[int, typer.Option(min=1, help="Images that gammas see.")] = 6000,
    images: Annotated[int, typer.Option(min=1, help="Test images, the first so many.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 1,
) -> None:
    """Put decoders on a frozen net and measure it under noise, blur and JPEG."""
    case = CASES[name]
    out.mkdir(parents=True, exist_ok=True)
    train, _, test = read_splits(name, data)
    file = out / f"net-s{seed}.safetensors"
    if name == "fashion":
        net = fa.load("fashion-cnn").model.requires_grad_(False)
    elif file.is_file():
        net = SmallResNet().eval().requires_grad_(False)
        net.load_state_dict(load_file(file))
    else:
        net = cnnf_small_net.train(train, epochs, seed)
        save_file(net.state_dict(), file)
    before = copy.deepcopy(net.state_dict())
    begun = time.perf_counter()
    learn = Learner(net, case, train, seed, out)
    weights = learn.fitted(fit_images)
    loops = {
        "decoders": learn.loop("decoders", STEPS, gamma_images, weights),
        "one iteration": learn.loop("one iteration", 1, gamma_images, weights),
        "random decoders": learn.loop("random decoders", STEPS, gamma_images),
    }
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    seconds = time.perf_counter() - begun
    x, y = to_input(test.images[:images]), test.labels[:images]
    rows: list[dict[str, Any]] = []
    strengths = STRENGTHS[name]
    for kind, strength in [("none", 0.0), *((k, s) for k in strengths for s in strengths[k])]:
        bad = x if kind == "none" else corrupt(x, kind, strength, seed)
        what = {"corruption": kind, "strength": strength, "images": images}
        for key, loop in loops.items():
            long = 5 * STEPS if key == "decoders" and kind == "none" else loop.steps
            found = accuracies(loop, bad, y, long)
            if key == "decoders":
                rows.append({"model": "frozen", "iteration": 0, "accuracy": found[0], **what})
            rows += [
                {"model": key, "iteration": t, "accuracy": found[t], **what}
                for t in sorted({loop.steps, long})
            ]
            print(kind, strength, key, found, flush=True)
        if (kind, strength) in (("none", 0.0), ("gaussian", strengths["gaussian"][-1])):
            known = told(loops["decoders"], bad, y, case, list(SOURCES[name].CLASSES))
            steps = {"frozen": 0, "decoders": STEPS, "decoders, told": STEPS}
            rows += [
                {"model": k, "iteration": steps[k], "accuracy": v, "masked": True, **what}
                for k, v in known.items()
            ]
            print(known, flush=True)
    jpeg = (data / "cifar10_jpeg.npz").is_file()
    note = {
        "net": case.net,
        "data": "CIFAR-10 as JPEG quality 75" if jpeg else name,
        "epochs": epochs if name == "cifar10" else None,
        "sites": case.sites,
        "T": STEPS,
        "noise": case.noise,
        "fit_images": fit_images,
        "gamma_images": gamma_images,
        "gammas": {key: sizes(loop) for key, loop in loops.items()},
        "seconds": round(seconds, 1),
        "machine": "CPU, one thread",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    run = {"case": name, "seed": seed, "note": note, "rows": rows}
    old = json.loads(results.read_text())["runs"] if results.is_file() else []
    runs = [r for r in old if (r["case"], r["seed"]) != (name, seed)]
    results.write_text(json.dumps({"runs": [*runs, run]}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
