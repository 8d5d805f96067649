"""By what should hypotheses be ranked? `python benchmarks/ranking.py --help`.

The best templates' six places are searched in scenes of development families, and each rule picks
one of the hypotheses found there; the picked mask's IoU with the plane (the better found one of
two) is averaged. `the truth` picks the best mask, which no rule can beat. Writes
results/ranking.json.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from command import parser
from drawn import SEEDS, bank, draw, photos
from intervals import versions, with_interval
from methods import iou
from torch import Tensor

import feedback_adapter as fa
from fa_backward.agreement import agreement
from fa_backward.search import Hypotheses

KINDS = ("nothing", "plain", "clutter", "photo", "two")
PLACES = 6
FADING = (1.0, 1.0, 0.5, 0.25, 0.25)  # the study's weights, from the top to the image
FEW = 300  # pixels: a smaller mask counts as this large


@dataclass(frozen=True)
class Asked:
    """Hypotheses about one image: `masks` of bool, and the class map's `logits` (h, w)."""

    found: Hypotheses
    masks: Tensor
    logits: Tensor

    @property
    def cells(self) -> Tensor:
        """The share of each cell that each mask covers."""
        return F.adaptive_avg_pool2d(self.masks[:, None].float(), self.logits.shape)[:, 0]


def _fading(asked: Asked) -> Tensor:
    return asked.found.log_odds @ torch.tensor(FADING, dtype=torch.float64)


def _likelihood(asked: Asked) -> Tensor:
    logits = asked.logits.expand_as(asked.cells)
    each = F.binary_cross_entropy_with_logits(logits, asked.cells, reduction="none")
    return -each.sum((1, 2))


def _mean_logit(asked: Asked) -> Tensor:
    return (asked.cells * asked.logits).sum((1, 2)) / asked.cells.sum((1, 2)).clamp(min=0.01)


RULES: dict[str, Callable[[Asked], Tensor]] = {
    "log-odds of all sites": lambda a: a.found.score,
    "log-odds of the top": lambda a: a.found.log_odds[:, 0],
    "log-odds of the image": lambda a: a.found.log_odds[:, -1],
    "log-odds, sites weighed 1, 1, .5, .25, .25": _fading,
    "log-odds by pixel": lambda a: a.found.score / a.masks.sum((1, 2)).clamp(min=FEW),
    "mean logit of the class map in the mask": _mean_logit,
    "likelihood of the mask under the class map": _likelihood,
    "agreement with the class map": lambda a: agreement(a.masks.float(), a.logits.sigmoid()),
}


@torch.no_grad()
def main() -> None:
    """Rank, and write the table."""
    command = parser(__doc__, "objects", "coco", out="results/ranking.json")
    command.add_argument("--n", type=int, default=24, help="scenes of each kind")
    options = command.parse_args()
    net = fa.load(options.checkpoint).model
    model = net.generative().with_options(fine=PLACES, guided=False)
    objects, photographs = bank(options.objects, "dev"), photos(options.coco, "dev")
    rows = []
    for kind in KINDS:
        drawn = draw(kind, 100, objects, photographs, SEEDS["dev"])
        values: dict[str, list[float]] = {}
        for image, seen in zip(drawn.images[: options.n], drawn.seen, strict=False):
            (instance,) = model.backward(image[None], ["plane"])
            found = instance.alternatives
            logits = torch.logit(net.coverage(image[None])[0, 0], 1e-6)
            asked = Asked(found, found.mask > 0.5, logits)
            good = [max(iou(mask, true) for true in seen) for mask in asked.masks]
            for name, rule in RULES.items():
                values.setdefault(name, []).append(good[int(rule(asked).argmax())])
            values.setdefault("the truth", []).append(max(good))
        for rule, each in values.items():
            rows.append({"scenes": kind, "rule": rule} | with_interval(each))
            print(rows[-1], flush=True)
    table = versions() | {"split": "dev", "rows": rows}
    options.out.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
