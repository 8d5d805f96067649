"""Tables of what CNN-F was measured to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from markdown_tables import table

RESULTS = Path(__file__).parents[2] / "plugins" / "feedback-adapter-cnnf" / "results"
READOUTS = (0, 1, 2, 5, 10, None)
"""Iterations that are read out; None is the mean over them, `avg`."""
_CONTROL = "feedforward control"
_TRAINED = {"-adversarial": "adversarially", "": "on clean images"}


def clean() -> str:
    """Clean accuracy on all test images of Fashion-MNIST."""
    rows = [row for row in _rows("robustness") if row["images"] == 10_000]
    heads = ["trained", "seed", _CONTROL, "feedback: iteration 0", *READOUTS[1:-1], "avg"]
    lines: list[list[Any]] = []
    for ending, trained in _TRAINED.items():
        for seed in sorted({row["seed"] for row in rows}):
            one = _find(rows, f"fashion-cnn{ending}", 0, "none", 0, seed)
            if one is None:
                continue
            net = f"fashion-cnnf{ending}"
            cells = [_find(rows, net, which, "none", 0, seed) for which in READOUTS]
            lines.append([trained, seed, *map(_one_digit, [one, *cells])])
    return table(heads, lines)


def attacked(training: str, seed: str) -> str:
    """Accuracy in the worst case of the attacks, by eps, and under noise: 300 images."""
    ending = {"adversarial": "-adversarial", "clean": ""}[training]
    rows = [row for row in _rows("robustness") if row["images"] == 300]
    eps, noise = (0.025, 0.05, 0.1, 0.2), (0.1, 0.2)
    heads = ["net", "read-out", "0", *(f"{e:g}".lstrip("0") for e in eps)]
    heads += [f"noise {n:g}".replace("0.", ".") for n in noise]
    lines: list[list[Any]] = []
    for net, which, names in _nets("fashion", ending):
        cells = [_one_digit(_find(rows, net, which, "none", 0, int(seed)))]
        for e in eps:
            worst = _one_digit(_find(rows, net, which, "worst", e, int(seed)))
            alone = _one_digit(_find(rows, net, which, "pgd40", e, int(seed)))
            differs = names[0] == _CONTROL and worst != alone
            cells.append(f"{worst} ({alone})" if differs else worst)
        cells += [_one_digit(_find(rows, net, which, "gaussian", n, int(seed))) for n in noise]
        lines.append([*names, *cells])
    return table(heads, lines)


def suite() -> str:
    """What is left after each attack of the suite, three seeds, eps .1, 50 images."""
    rows = [row for row in _rows("robustness") if row["images"] == 50]
    after = ("pgd40", "apgd40-ce", "apgd40-t", "pgd40-bpda")
    heads = ["seed", "net", "read-out", "clean", "PGD-40", "+ APGD-CE", "+ APGD-T", "+ BPDA"]
    lines: list[list[Any]] = []
    for seed in (1, 2, 3):
        for net, which, names in _nets("fashion", "-adversarial", (0, 1, None)):
            steps = [(0, "none"), *((0.1, f"after-{name}") for name in after), (0.1, "worst")]
            cells = [_find(rows, net, which, attack, eps, seed) for eps, attack in steps]
            lines.append([seed, *names, *(f"{cell:.0f}" if cell else "" for cell in cells)])
    return table([*heads, "+ the others = worst"], lines)


def cifar() -> str:
    """CIFAR-10: clean, and by eps on 200 images."""
    rows = _rows("robustness")
    every = [row for row in rows if row["images"] == 10_000]
    some = [row for row in rows if row["images"] == 200]
    eps = (2, 4, 8, 16)
    heads = ["net", "read-out", "clean, 10,000", "clean, 200", *(f"{e}/255" for e in eps)]
    lines: list[list[Any]] = []
    for net, which, names in _nets("cifar10-wrn", "-adversarial"):
        cells = [_find(every, net, which, "none", 0, 1), _find(some, net, which, "none", 0, 1)]
        cells += [_find(some, net, which, "worst", e / 255, 1) for e in eps]
        lines.append([*names, *map(_one_digit, cells)])
    return table(heads, lines)


def cifar_suite() -> str:
    """CIFAR-10: what is left after each attack of the suite, 8/255, 300 images."""
    rows = [row for row in _rows("robustness") if row["images"] == 300]
    heads = ["net", "read-out", "clean", "PGD-40", "+ APGD-CE", "+ APGD-T", "+ the others = worst"]
    attacks = ("after-pgd40", "after-apgd40-ce", "after-apgd40-t", "worst")
    lines: list[list[Any]] = []
    for net, which, names in _nets("cifar10-wrn", "-adversarial", (0, 2, None)):
        cells = [_find(rows, net, which, "none", 0, 1)]
        cells += [_find(rows, net, which, attack, 8 / 255, 1) for attack in attacks]
        lines.append([*names, *map(_one_digit, cells)])
    return table(heads, lines)


def losses() -> str:
    """PGD-40 with other losses, eps .1, 100 images."""
    rows = [row for row in _rows("robustness") if row["images"] == 100]
    heads = ["read-out", "clean", "full unroll", "first pass only", "feedback cut", "all iterates"]
    heads += ["transfer from the feedforward control", "worst"]
    ends = ("pgd40", "pgd40-first-pass", "pgd40-cut", "pgd40-all-iterates", "pgd40-transfer")
    lines: list[list[Any]] = []
    for net, which, names in _nets("fashion", "-adversarial", (0, 1)):
        cells = [_find(rows, net, which, "none", 0, 1)]
        cells += [_find(rows, net, which, attack, 0.1, 1) for attack in (*ends, "worst")]
        lines.append([names[1] or f"the {_CONTROL}", *map(_one_digit, cells)])
    return table(heads, lines)


def evidence() -> str:
    """Evidence at the top: masked or not, with feedback or without."""
    rows = [row for row in _rows("evidence") if row["iteration"] in (0, 1)]
    heads = ["net", "images", "known", "unrefined", "unrefined, masked", "feedback, masked"]
    columns = [
        ("unrefined", False), ("unrefined", True), ("feedback", True),
        ("feedback with evidence", False),
    ]  # fmt: skip
    found = {
        (r["checkpoint"], r["input"], r["evidence"], r["method"], r["masked"]): r["accuracy"]
        for r in rows
    }
    cases = dict.fromkeys(key[:3] for key in found)
    lines = [
        [*case, *(_one_digit(found[(*case, *column)]) for column in columns)] for case in cases
    ]
    return table([*heads, "feedback from evidence"], lines)


def decoder(case: str) -> str:
    """Decoder mode under corruptions."""
    (run,) = [run for run in _read("decoder")["runs"] if run["case"] == case]
    models = {"frozen": 0, "decoders": 2, "one iteration": 1, "random decoders": 2}
    found: dict[tuple[str, float, str], float] = {}
    for r in run["rows"]:
        if models.get(r["model"]) == r["iteration"]:  # the first; later ones are masked
            found.setdefault((r["corruption"], r["strength"], r["model"]), r["accuracy"])
    cases = dict.fromkeys(key[:2] for key in found)
    lines = [
        [_corrupted(*case), *(_one_digit(found[*case, model]) for model in models)]
        for case in cases
    ]
    return table(["corruption", *models], lines)


def _corrupted(name: str, strength: float) -> str:
    names = {"gaussian": "noise", "jpeg": "JPEG quality"}
    return name if name == "none" else f"{names.get(name, name)} {strength:g}"


def _nets(
    data: str, ending: str, which: Iterable[int | None] = READOUTS
) -> Iterable[tuple[str, int | None, tuple[str, str]]]:
    """The control, then the net with feedback by read-out, with the first two cells of a row."""
    yield f"{data}-cnn{ending}", 0, (_CONTROL, "")
    for iteration in which:
        name = "avg" if iteration is None else f"iteration {iteration}"
        yield f"{data}-cnnf{ending}", iteration, ("feedback", name)


def _find(
    rows: list[dict[str, Any]], net: str, which: int | None, attack: str, eps: float, seed: int
) -> float | None:
    """An accuracy in percent."""
    for row in rows:
        same = (row["checkpoint"], row["iteration"], row["attack"], row["seed"])
        if same == (net, which, attack, seed) and abs(row["eps"] - eps) < 1e-4:
            return row["accuracy"]
    return None


def _one_digit(accuracy: float | None) -> str:
    return "" if accuracy is None else f"{accuracy:.1f}"


def _read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


def _rows(name: str) -> list[dict[str, Any]]:
    return _read(name)["rows"]


TABLES: dict[str, Callable[..., str]] = {
    "cnnf-clean": clean,
    "cnnf-attacked": attacked,
    "cnnf-suite": suite,
    "cnnf-cifar": cifar,
    "cnnf-cifar-suite": cifar_suite,
    "cnnf-losses": losses,
    "cnnf-evidence": evidence,
    "cnnf-decoder": decoder,
}
