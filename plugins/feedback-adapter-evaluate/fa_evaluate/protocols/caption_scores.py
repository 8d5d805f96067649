"""Scores of the captions that a model's outputs lead to, beside the unrefined model's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fa_evaluate.bootstrap import Bootstrap
from fa_evaluate.caption_metrics import Cider, bleu_counts, bleu_of
from fa_evaluate.metrics import Score, mean_of
from feedback_adapter.evidence.captions import tokenise, write_captions
from feedback_adapter.outputs import Outputs

__all__ = ["Written"]


class Written:
    """Writes captions and compares them with references.

    Args:
        references: (N) captions of each image.
        bootstrap: Resamples of the N images.
        beams: Widths of the search; 1 is greedy. Gains are of the first.
        suffix: What the metrics' names end in.
    """

    def __init__(
        self,
        references: Sequence[Sequence[str]],
        bootstrap: Bootstrap,
        beams: Sequence[int],
        suffix: str = "",
    ) -> None:
        self.references = [[tokenise(text) for text in own] for own in references]
        self.cider = Cider(self.references)
        self.bootstrap, self.beams, self.suffix = bootstrap, beams, suffix
        self.unrefined: dict[str, np.ndarray] = {}

    def compare_with(self, outputs: Outputs, caption: str) -> None:
        """Take these outputs as the unrefined model's: gains are over them."""
        self.unrefined = self._scores(outputs, caption)

    def __call__(self, outputs: Outputs, caption: str) -> dict[str, np.ndarray]:
        """Each metric, as `Bootstrap` gives it.

        Args:
            outputs: Of a model that writes captions.
            caption: Name of the output that does.
        """
        found = self._scores(outputs, caption)
        gains = {
            self._name(metric, self.beams[0], " gain"): found[name] - self.unrefined[name]
            for metric in ("CIDEr", "BLEU-4")
            if (name := self._name(metric, self.beams[0])) in self.unrefined
        }
        return {**found, **gains}

    def _scores(self, outputs: Outputs, caption: str) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for beam in self.beams:
            texts = write_captions(outputs, beam=beam, output=caption)
            written = [text.split() for text in texts]
            counts = bleu_counts(written, self.references)
            found[self._name("CIDEr", beam)] = self.bootstrap(mean_of(self.cider(written)))
            found[self._name("BLEU-4", beam)] = self.bootstrap(_bleu(counts))
        return found

    def _name(self, metric: str, beam: int, gain: str = "") -> str:
        how = ", greedy" if beam == 1 else f", {beam} beams"
        return f"{metric}{gain}{self.suffix}{how}"


def _bleu(counts: np.ndarray) -> Score:
    def score(weights: np.ndarray | None) -> float:
        return bleu_of(counts.sum(0) if weights is None else weights @ counts)

    return score
