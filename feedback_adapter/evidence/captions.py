"""A caption as evidence, and captions as what is unknown.

Source: Wang, Wang, Gandhi, Ordonez, "Feedback-prop", CVPR 2018, section 4.4: objects known,
caption unknown. The other way round is ours: -log p(caption | image) by teacher forcing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from feedback_adapter.errors import EvidenceError
from feedback_adapter.evidence.base import Evidence, Unbound
from feedback_adapter.evidence.given import everywhere, output_of, per_image, repeated, short, unit
from feedback_adapter.networks.decoder import END, START, UNKNOWN, CaptionDecoder
from feedback_adapter.networks.decoding import beam_search
from feedback_adapter.outputs import Output, Outputs

_PAD = -1


class Captions(Unbound):
    """The caption of an image is known, and the model is one that writes captions.

    Args:
        captions: The caption of every image, or one per image (`None`: not known; a list:
            several captions of that image, whose losses add up).
        confidence: Weight of the loss, in [0, 1].
        output: Which output is the caption's; needed only where there are several.

    The loss is -log p(caption | image) in nats, summed over the caption's words and its end.
    Words that the model's vocabulary lacks count as `<unknown>`. The clamp changes nothing:
    a caption fixes no variable of the other outputs.

    Raises:
        EvidenceError: When bound: a wrong number of images, an empty caption, or a model
            that writes none.
    """

    said = "captions"

    def __init__(
        self,
        captions: str | Sequence[str | Sequence[str] | None],
        *,
        confidence: float = 1.0,
        output: str | None = None,
    ) -> None:
        self.captions = per_image(captions, "The caption", "a string or several")
        self.confidence, self.output = unit(confidence, "confidence"), output

    def bind(self, specs: Mapping[str, Output], batch: int) -> Evidence:
        """Look the words up. See `Evidence.bind`."""
        each = repeated(self.captions, batch, "Captions")
        name = _writer(specs, self.output)
        index = {word: place for place, word in enumerate(specs[name].labels)}
        rows: list[list[int]] = []
        owners: list[int] = []
        for image, captions in enumerate(each):
            for caption in [captions] if isinstance(captions, str) else captions or ():
                words = tokenise(caption)
                if not words:
                    raise EvidenceError(
                        f"The caption of image {image} has no words: {short(caption)}."
                    )
                rows.append([START, *(index.get(word, UNKNOWN) for word in words), END])
                owners.append(image)
        longest = max(map(len, rows), default=2)
        tokens = [row + [_PAD] * (longest - len(row)) for row in rows]
        return _Tokens(
            name,
            torch.tensor(tokens, dtype=torch.long, device="cpu").reshape(len(rows), longest),
            torch.tensor(owners, dtype=torch.long, device="cpu"),
            batch,
            self.confidence,
        )

    def __repr__(self) -> str:
        return f"Captions({self.captions!r})"


class _Tokens(Evidence):
    """Captions as tokens (captions, length), and the image that each belongs to."""

    def __init__(
        self, output: str, tokens: Tensor, owners: Tensor, batch: int, confidence: float
    ) -> None:
        self.output, self.tokens, self.owners = output, tokens, owners
        self.batch, self.confidence = batch, confidence

    def loss(self, outputs: Outputs) -> Tensor:
        images = outputs[self.output]
        tokens, owners = self.tokens.to(images.device), self.owners.to(images.device)
        decoder = _decoder(outputs.specs, self.output)
        logits = decoder(images[owners], tokens[:, :-1].clamp(min=0))
        each = F.cross_entropy(
            logits.transpose(1, 2), tokens[:, 1:], ignore_index=_PAD, reduction="none"
        ).sum(1)
        total = torch.zeros(self.batch, dtype=each.dtype, device=each.device)
        return total.index_add(0, owners, each) * self.confidence

    def clamp(self, outputs: Outputs) -> Outputs:
        return outputs

    def known(self, outputs: Outputs) -> dict[str, Tensor]:
        return everywhere(outputs, {})

    def take(self, rows: Tensor) -> _Tokens:
        rows = rows.to(self.owners.device)
        found = (self.owners.unsqueeze(0) == rows.unsqueeze(1)).nonzero()
        return _Tokens(
            self.output, self.tokens[found[:, 1]], found[:, 0], len(rows), self.confidence
        )


def write_captions(
    outputs: Outputs, *, beam: int = 3, longest: int = 20, output: str | None = None
) -> list[str]:
    """Captions of images, from a model's outputs, e.g. `result.outputs_after`.

    Args:
        outputs: Of a model with a caption decoder.
        beam: How many beginnings are kept; 1 is greedy search.
        longest: Most words.
        output: Which output is the caption's; needed only where there are several.

    Raises:
        EvidenceError: The model writes no captions.
    """
    name = _writer(outputs.specs, output)
    decoder = _decoder(outputs.specs, name)
    words = outputs.specs[name].labels
    tokens, _ = beam_search(decoder, outputs[name], beam=beam, longest=longest)
    return [" ".join(words[token] for token in row) for row in tokens]


def tokenise(caption: str) -> list[str]:
    """Split a caption into its words, in lower case and without punctuation."""
    return re.findall(r"[a-z0-9]+(?:'[a-z]+)?", caption.lower().replace("\u2019", "'"))


def parse_caption(text: str) -> Captions:
    """Make evidence of a caption that is given on the command line."""
    return Captions(text)


def _writer(specs: Mapping[str, Output], output: str | None) -> str:
    fits = [name for name, spec in specs.items() if spec.kind == "tokens"]
    return output_of(specs, output, fits, "Captions", "a caption's (kind 'tokens')")


def _decoder(specs: Mapping[str, Output], name: str) -> CaptionDecoder:
    decoder = specs[name].decoder
    if not isinstance(decoder, CaptionDecoder):
        raise EvidenceError(
            f"Output {name!r} has no decoder that can write: Output(..., decoder=...) must be a "
            "feedback_adapter.networks.CaptionDecoder."
        )
    return decoder
