"""Write captions with a decoder: greedy or beam search, a whole batch at once."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from feedback_adapter.networks.decoder import END, START, UNKNOWN, CaptionDecoder, Memory


@torch.no_grad()
def beam_search(
    decoder: CaptionDecoder, images: Tensor, *, beam: int = 1, longest: int = 20
) -> tuple[list[list[int]], Tensor]:
    """The likeliest captions that a beam finds, by log-probability a token.

    Args:
        decoder: In evaluation mode.
        images: (batch, width), as `decoder.start` makes them.
        beam: How many beginnings are kept of each image; 1 is greedy search.
        longest: Most words in a caption.

    Returns:
        Each image's words, by number, without `<start>` and `<end>`; and (batch,) their
        log-probabilities, in nats.
    """
    batch, device = len(images), images.device
    shown = images.repeat_interleave(beam, 0)
    tokens = torch.full((batch * beam, 1), START, device=device)
    scores = torch.full((batch, beam), -torch.inf, device=device)
    scores[:, 0] = 0.0  # all beams begin alike: only one of them counts
    ended = torch.zeros(batch, beam, dtype=torch.bool, device=device)
    lengths = torch.ones(batch, beam, device=device)
    memory: Memory | None = None
    first = torch.arange(batch, device=device).unsqueeze(1) * beam
    for _ in range(longest + 1):
        logits, memory = decoder.step(shown, tokens[:, -1:], memory)
        log_p = logits[:, -1].log_softmax(1)
        log_p[:, [START, UNKNOWN]] = -torch.inf  # never written
        log_p = log_p.reshape(batch, beam, -1)
        stay = torch.full_like(log_p, -torch.inf)
        stay[..., END] = 0.0
        log_p = torch.where(ended.unsqueeze(2), stay, log_p)
        total = scores.unsqueeze(2) + log_p
        length = lengths + (~ended).float()
        ranked = (total / length.unsqueeze(2)).flatten(1).topk(beam, 1).indices
        parent, word = ranked // log_p.shape[2], ranked % log_p.shape[2]
        scores = total.flatten(1).gather(1, ranked)
        lengths = length.gather(1, parent)
        ended = ended.gather(1, parent) | (word == END)
        rows = (first + parent).flatten()
        tokens = torch.cat([tokens[rows], word.reshape(-1, 1)], 1)
        memory = cast("Memory", tuple(part[:, rows] for part in memory))
        if bool(ended.all()):
            break
    best = (scores / lengths).argmax(1, keepdim=True)
    chosen = tokens.reshape(batch, beam, -1)[torch.arange(batch, device=device), best[:, 0]]
    captions = [
        words[: words.index(END)] if END in words else words for words in chosen[:, 1:].tolist()
    ]
    return captions, scores.gather(1, best)[:, 0]
