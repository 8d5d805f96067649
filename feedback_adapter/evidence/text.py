"""Free text near an image as evidence: a noisy observation of its labels.

Source of the use: Wang, Wang, Gandhi, Ordonez, "Feedback-prop", CVPR 2018, section 4.3. The
observation model is ours: a label that holds is mentioned with probability `hit`, one that
doesn't with probability `false`, and the loss is the exact -log p(text | image).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor

from feedback_adapter.errors import DataError, EvidenceError, did_you_mean
from feedback_adapter.evidence.base import Evidence, Unbound
from feedback_adapter.evidence.given import everywhere, output_of, per_image, repeated, short, unit
from feedback_adapter.evidence.lemmas import lemma
from feedback_adapter.options import above, check, within
from feedback_adapter.outputs import Output, Outputs

_TOKEN = re.compile(r"[a-z0-9]+(?:['-][a-z]+)*|[.,;:!?]")
_NEGATIONS = frozenset("no not without never none nobody nothing neither nor n't".split())
_SCOPE = 3
"""A negation applies to so many words after it, unless the clause ends before."""


@dataclasses.dataclass(frozen=True)
class Reliability:
    """How reliably a mention in a text shows that a label holds.

    Args:
        hit: The probability that a label is mentioned if it holds, in (0, 1): one number for all
            labels, or `{label: number}`.
        false: The probability that a label is mentioned although it doesn't hold, in (0, 1), as
            one number or as `{label: number}`. It should be smaller than `hit`.

    Labels that a mapping doesn't name have the default values.

    Raises:
        OptionsError: A number out of range, or `hit` not above `false`.
    """

    hit: float | Mapping[str, float] = 0.4
    false: float | Mapping[str, float] = 0.02

    def __post_init__(self) -> None:
        between = within(0, 1, ends="()")
        for name in ("hit", "false"):
            value = getattr(self, name)
            for item in value.values() if isinstance(value, Mapping) else [value]:
                check(SimpleNamespace(**{name: item}), {name: between})
        if not isinstance(self.hit, Mapping) and not isinstance(self.false, Mapping):
            check(self, {"hit": above(self.false)})

    @classmethod
    def fit(
        cls, texts: Sequence[str], truth: Tensor, labels: Sequence[str], *, strength: float = 20.0
    ) -> Reliability:
        """Count, on images with text and truth, how often each label is mentioned.

        Args:
            texts: One per image.
            truth: (images, labels) bool: whether each label holds.
            labels: Their names.
            strength: How many images the mean over all labels counts for beside a label's own
                images, above 0. It keeps the rates of rare labels close to the mean.

        Raises:
            DataError: Texts, truth and labels don't fit each other.
        """
        holds = torch.as_tensor(truth, dtype=torch.float64, device="cpu")
        if isinstance(texts, str) or tuple(holds.shape) != (len(texts), len(labels)):
            raise DataError(
                f"truth is {tuple(holds.shape)}: it must be (texts, labels), with one text per "
                "image in a list and one name per label."
            )
        said = mentions(texts, labels).to(torch.float64)
        rates: list[dict[str, float]] = []
        for given in (holds, 1 - holds):
            mean = (said * given).sum() / given.sum().clamp(min=1)
            rate = ((said * given).sum(0) + strength * mean) / (given.sum(0) + strength)
            rate = rate.clamp(1e-4, 1 - 1e-4)
            rates.append(dict(zip(labels, rate.tolist(), strict=True)))
        return cls(*rates)

    def of(self, labels: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return `hit` and `false` for each of the labels, (labels,) each.

        Raises:
            EvidenceError: A mapping has names, but not of any of these labels.
        """
        pairs: list[Tensor] = []
        for value, default in ((self.hit, 0.4), (self.false, 0.02)):
            if isinstance(value, Mapping):
                if value and not any(label in value for label in labels):
                    raise EvidenceError(
                        f"The reliability is of other labels: {short(list(value)[:3])}. "
                        f"{did_you_mean(next(iter(value)), labels)}"
                    )
                pairs.append(
                    torch.tensor([value.get(label, default) for label in labels], device="cpu")
                )
            else:
                pairs.append(torch.full((len(labels),), float(value), device="cpu"))
        return pairs[0], pairs[1]


class Text(Unbound):
    """Text that was found near an image: a caption, an article, tags.

    Words are compared with the labels after lower-casing and lemmatising ("dogs" mentions
    "dog"), labels of several words as a phrase. What a negation reaches ("no dogs",
    "without a hat") is left out. A text that mentions no label changes nothing.

    Args:
        text: The text of every image of the batch, or one per image, `None` (in arrays and
            columns of tables NaN, too) where there is none.
        reliability: How far to trust it; `Reliability.fit` learns it from examples.
        absent: Weight, in [0, 1], of what follows from a label that isn't mentioned; 0
            ignores it.
        confidence: Weight of the whole, in [0, 1].
        output: Which output the words are labels of; by default the only multilabel output, else
            the only multiclass one.

    Raises:
        EvidenceError: No text, or a weight out of range; when bound: a wrong number of images, or
            no output that fits.
    """

    said = "text"

    def __init__(
        self,
        text: str | Sequence[str | None],
        *,
        reliability: Reliability | None = None,
        absent: float = 1.0,
        confidence: float = 1.0,
        output: str | None = None,
    ) -> None:
        if reliability is not None and not isinstance(reliability, Reliability):
            raise EvidenceError(
                f"reliability is {short(reliability)}: pass a Reliability(hit=0.4, false=0.02)."
            )
        self.text = per_image(text, "The text", "a string", lambda value: isinstance(value, str))
        self.reliability, self.output = reliability or Reliability(), output
        self.absent, self.confidence = unit(absent, "absent"), unit(confidence, "confidence")

    def bind(self, specs: Mapping[str, Output], batch: int) -> Evidence:
        """Find the labels in the texts. See `Evidence.bind`."""
        texts = repeated(self.text, batch, "Texts")
        fits = [name for name, spec in specs.items() if spec.kind in ("multilabel", "multiclass")]
        if self.output is None:
            fits = [name for name in fits if specs[name].kind == "multilabel"] or fits
        name = output_of(specs, self.output, fits, "Text", "multilabel or multiclass")
        labels = specs[name].labels
        said = mentions([text or "" for text in texts], labels)
        weight = torch.where(said, 1.0, self.absent) * self.confidence
        hit, false = self.reliability.of(labels)
        return _Mentions(name, said, weight * said.any(1, keepdim=True), hit, false)

    def __repr__(self) -> str:
        return f"Text({self.text!r})"


class _Mentions(Evidence):
    """Which labels are mentioned, (batch, labels) bool, with the weight of each."""

    silence = "converged: no text mentions one of the labels, so nothing changes"

    def __init__(
        self, output: str, said: Tensor, weight: Tensor, hit: Tensor, false: Tensor
    ) -> None:
        self.output, self.said, self.weight = output, said, weight
        self.hit, self.false = hit, false

    def _ratios(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """-log p(observation | holds) and -log p(observation | doesn't), (batch, labels)."""
        said = self.said.to(like.device)
        hit, false = self.hit.to(like), self.false.to(like)
        if_true = torch.where(said, hit, 1 - hit).log()
        if_false = torch.where(said, false, 1 - false).log()
        return if_true, if_false

    def loss(self, outputs: Outputs) -> Tensor:
        logits = outputs[self.output]
        if_true, if_false = self._ratios(logits)
        weight = self.weight.to(logits)
        if outputs.specs[self.output].kind == "multiclass":  # one label holds, the others don't
            joint = logits + (if_true - if_false) * weight  # exactly 0 where nothing is said
            return logits.logsumexp(1) - joint.logsumexp(1) - (if_false * weight).sum(1)
        both = torch.logaddexp(F.logsigmoid(logits) + if_true, F.logsigmoid(-logits) + if_false)
        return -(both * weight).sum(1)

    def clamp(self, outputs: Outputs) -> Outputs:
        logits = outputs[self.output]
        if_true, if_false = self._ratios(logits)
        moved = logits + (if_true - if_false) * self.weight.to(logits)
        return outputs.replace(**{self.output: moved})

    def known(self, outputs: Outputs) -> dict[str, Tensor]:
        return everywhere(outputs, {self.output: self.said & (self.weight > 0)})

    def take(self, rows: Tensor) -> _Mentions:
        rows = rows.to(self.said.device)
        return _Mentions(self.output, self.said[rows], self.weight[rows], self.hit, self.false)


def mentions(texts: Sequence[str], labels: Sequence[str]) -> Tensor:
    """Find the labels that each text mentions, (texts, labels) bool.

    Args:
        texts: English texts, in upper or lower case.
        labels: Words or phrases. They are compared both as they are and in their base form.
    """
    index: dict[tuple[str, ...], list[int]] = {}
    for place, label in enumerate(labels):
        words = tuple(re.findall(r"[a-z0-9]+", label.lower()))
        for form in {words, tuple(lemma(word) for word in words)}:
            index.setdefault(form, []).append(place)
    longest = max((len(form) for form in index), default=1)
    said = torch.zeros(len(texts), len(labels), dtype=torch.bool, device="cpu")
    for row, text in enumerate(texts):
        words = _words(text)
        lemmas = [lemma(word) if word else "" for word in words]
        for start in range(len(words)):
            for length in range(1, min(longest, len(words) - start) + 1):
                for form in (words, lemmas):
                    for place in index.get(tuple(form[start : start + length]), ()):
                        said[row, place] = True
    return said


def parse_text(text: str) -> Text:
    """Make evidence of a text that is given on the command line."""
    return Text(text)


def _words(text: str) -> list[str]:
    """Lower-case words; empty strings where a negation reaches, or a clause ends."""
    text = text.lower().replace("\u2019", "'").replace("n't", " n't")
    words: list[str] = []
    left = 0
    for token in re.findall(r"n't|" + _TOKEN.pattern, text):
        if token in ".,;:!?":
            left = 0
            words.append("")
        elif token in _NEGATIONS:
            left = _SCOPE
            words.append("")
        else:
            for part in token.removesuffix("'s").split("-"):
                words.append("" if left > 0 else part)
                left = max(left - 1, 0)
    return words
