"""Which part fails? The search is given more and more of the truth: `python benchmarks/oracle.py`.

On scenes of development families, the mask IoU of the plane when the search knows nothing, the
plane's place and size, its template too, and then its true activations at a site, so that only
the parts below are left. Without the scene's evidence, the last rows are what the decoders can
reach at best. `truth scores higher` is the share of scenes in which the hypothesis at the true
place has a higher score than what the search found: where it has, the search missed it, and where
it hasn't, the model prefers something else. Writes results/oracle.json.
"""

import json
import time
from dataclasses import replace

import torch
from command import parser
from drawn import SEEDS, Drawn, bank, draw, photos
from intervals import versions, with_interval
from methods import iou
from torch import Tensor

import feedback_adapter as fa
from fa_backward import GenerativeModel
from fa_backward.frames import Frame
from fa_backward.pieces import one_piece
from fa_backward.search import Hypotheses, search_frames

from scenes import CANONICAL  # isort: skip  (drawn adds recipes/training to the path)

KINDS = ("nothing", "plain", "clutter", "photo", "two")
SPREAD = (0.94, 1.0, 1.06)  # zooms around the true one, as in the second search


class Oracle:
    """Questions to a model about scenes whose truth is known."""

    def __init__(self, model: GenerativeModel):
        self.model, self.parts = model, model.activations
        self.prior = model.log_prior(["plane"])

    def true_frame(self, drawn: Drawn, i: int, zoom: float = 1.0) -> Frame:
        """The frame in which a scene's first plane has the canonical size, in the middle."""
        side, y, x = drawn.pose[i, 0].tolist()
        return Frame(1.0, 0.0, 0.0).around(y, x, zoom * CANONICAL / side, 0.0, 0.0)

    def at_place(self, drawn: Drawn, i: int) -> Hypotheses:
        """The best templates at the true place, about as large as the plane is."""
        frames = [self.true_frame(drawn, i, zoom) for zoom in SPREAD]
        return self._look(drawn.images[i], frames)

    def with_template(self, drawn: Drawn, i: int) -> Hypotheses:
        """The template that explains the plane alone best, in the true frame of the scene."""
        frames = [self.true_frame(drawn, i)]
        best = self._look(drawn.alone[i, 0], frames).template[0]
        templates = self.parts.templates
        kept = templates.log_prior.clone()
        templates.log_prior[:, torch.arange(kept.shape[1]) != best] = -torch.inf
        try:
            return self._look(drawn.images[i], frames)
        finally:
            templates.log_prior.copy_(kept)

    def from_site(self, drawn: Drawn, i: int, level: int, evidence: bool) -> Tensor:
        """The mask if the plane's true activations at a site were known."""
        frame = self.true_frame(drawn, i)
        look = lambda image: self.parts.normalise(self.model.network(frame.look(image[None])))  # noqa: E731
        found, above = look(drawn.images[i]), look(drawn.alone[i, 0])[level]
        last = len(self.parts.names) - 1
        for below in range(level + 1, last + 1):
            logit, mean = self.parts.predict(below, above)
            scene, background = found[below], None
            if below == last:
                background = self.parts.scene_background(scene, logit)
            if background is None:
                background = self.parts.log_background(below, scene)
            odds = self.parts.odds(below, logit, mean, scene[:, None], background[:, None])
            if not evidence:  # the component that fits the truth best
                true = look(drawn.alone[i, 0])[below]
                alpha = frame.look(drawn.whole[i, 0][None, None].float())
                odds = -self.parts.mismatch(below, logit, mean, true, alpha)
            k = int(odds.argmax())
            seen = (scene, background) if evidence else (None, None)
            settled = self.parts.settle(below, logit[:, k], mean[:, k], *seen)
            above = settled.value
        return frame.back(settled.on * settled.seen)[0, 0]

    def piece(self, mask: Tensor, drawn: Drawn, i: int) -> Tensor:
        """The part of a mask around the true place."""
        return mask * one_piece(mask, drawn.pose[i, 0, 1:])

    def _look(self, image: Tensor, frames: list[Frame]) -> Hypotheses:
        options = replace(self.model.options, top_reach=0, beam=self.model.options.fine_beam)
        return search_frames(
            self.parts, self.model.network, image, self.prior, options, None, frames
        )


def ask(oracle: Oracle, drawn: Drawn, i: int) -> dict[str, float]:
    """All questions about one scene."""
    true = drawn.seen[i, 0]
    good = lambda mask: iou(oracle.piece(mask, drawn, i) > 0.5, true)  # noqa: E731
    (found,) = oracle.model.backward(drawn.images[i : i + 1], ["plane"])
    at = oracle.at_place(drawn, i)
    values = {
        "nothing": max(iou(found.mask > 0.5, t) for t in drawn.seen[i]),
        "the best of all hypotheses": max(good(mask) for mask in found.alternatives.mask),
        "true place": good(at.mask[0]),
        "true place and template": good(oracle.with_template(drawn, i).mask[0]),
        "truth scores higher": float(float(at.score[0]) > found.score),
    }
    for level, name in enumerate(oracle.parts.names[:-1]):
        values[f"true activations of {name}"] = good(oracle.from_site(drawn, i, level, True))
        values[f"true activations of {name}, no evidence below"] = iou(
            oracle.from_site(drawn, i, level, False) > 0.5, drawn.whole[i, 0]
        )
    return values


def main() -> None:
    """Ask about scenes of each kind, and write the means."""
    command = parser(__doc__, "objects", "coco", out="results/oracle.json")
    command.add_argument("--n", type=int, default=24, help="scenes of each kind")
    command.add_argument("--seconds", type=float, default=1e9)
    options = command.parse_args()
    until = time.monotonic() + options.seconds
    oracle = Oracle(fa.load(options.checkpoint).model.generative())
    objects, photographs = bank(options.objects, "dev"), photos(options.coco, "dev")
    scenes = {k: draw(k, 100, objects, photographs, SEEDS["dev"]) for k in KINDS}
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    with torch.no_grad():
        for i in range(options.n):
            if time.monotonic() > until:
                break
            for kind, drawn in scenes.items():
                found[kind].append(ask(oracle, drawn, i))
    rows = []
    for kind, values in found.items():
        for given in values[0]:
            row = {"scenes": kind, "given": given}
            rows.append(row | with_interval([one[given] for one in values]))
    table = versions() | {"split": "dev", "rows": rows}
    options.out.write_text(json.dumps(table, indent=1) + "\n")
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
