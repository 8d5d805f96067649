"""Train a caption decoder on the pooled features of a frozen backbone."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from feedback_adapter.evidence.captions import tokenise
from feedback_adapter.networks.decoder import END, START, UNKNOWN, CaptionDecoder

__all__ = ["PAD", "Fit", "Settings", "dev_loss", "encode", "fit", "loss_of", "vocabulary_of"]

PAD = -1


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the decoder is trained.

    Args:
        width: Of the image's vector and of the embeddings.
        hidden: Of the LSTM.
        dropout: Of features, embeddings and the LSTM's output.
        epochs: Passes over all captions; the one that judges best on dev is kept.
        batch: Captions in a step.
        lr: AdamW's learning rate, cosine to 0.
        weight_decay: AdamW's.
        noise: Standard deviation of what is added to features, in their own.
        refined: Share of the steps' features that feedback from known words has moved.
        seed: Of everything random.
    """

    width: int = 192
    hidden: int = 320
    dropout: float = 0.4
    epochs: int = 12
    batch: int = 128
    lr: float = 3e-3
    weight_decay: float = 0.01
    noise: float = 0.15
    refined: float = 0.5
    seed: int = 1


@dataclasses.dataclass(frozen=True)
class Fit:
    """What training gives.

    Args:
        weights: The decoder's state dict on the CPU, of the pass that judged best.
        epoch: That pass.
        history: What `judge` said after each pass, with "epoch", "loss" and "seconds".
        seconds: Time in all.
    """

    weights: dict[str, Tensor]
    epoch: int
    history: list[dict[str, Any]]
    seconds: float


def vocabulary_of(captions: Sequence[Sequence[str]], least: int = 5) -> tuple[str, ...]:
    """`<start>`, `<end>`, `<unknown>`, then every word that occurs `least` times."""
    counts = Counter(w for of_image in captions for c in of_image for w in tokenise(c))
    words = sorted((w for w, n in counts.items() if n >= least), key=lambda w: (-counts[w], w))
    return ("<start>", "<end>", "<unknown>", *words)


def encode(
    captions: Sequence[Sequence[str]], vocabulary: Sequence[str], longest: int = 18
) -> tuple[Tensor, Tensor]:
    """Tokens (captions, longest + 2) with START, END and PAD, and each caption's image."""
    index = {word: i for i, word in enumerate(vocabulary)}
    rows, images = [], []
    for image, of_image in enumerate(captions):
        for caption in of_image:
            tokens = [index.get(word, UNKNOWN) for word in tokenise(caption)][:longest]
            row = [START, *tokens, END]
            rows.append(row + [PAD] * (longest + 2 - len(row)))
            images.append(image)
    return torch.tensor(rows), torch.tensor(images)


def loss_of(decoder: CaptionDecoder, features: Tensor, tokens: Tensor) -> Tensor:
    """Mean -log p of a token, in nats."""
    length = int((tokens != PAD).sum(1).max())
    tokens = tokens[:, :length]
    logits = decoder(decoder.start(features), tokens[:, :-1].clamp(min=0))
    return F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten(), ignore_index=PAD)


def fit(
    plain: Tensor,
    refined: Tensor | None,
    captions: tuple[Tensor, Tensor],
    vocabulary: int,
    settings: Settings,
    judge: Callable[[CaptionDecoder], dict[str, float]],
    report: Callable[[dict[str, Any]], None] = lambda _: None,
) -> Fit:
    """Train a decoder.

    Args:
        plain: (views, N, features) of the training images; each caption takes a random
            view (crop and mirror image) in each pass, which keeps the decoder from
            learning photos by heart.
        refined: The same after feedback from known words, or `None`. A decoder that has
            seen none can't read what feedback writes.
        captions: Tokens and image numbers, as `encode` gives them.
        vocabulary: Number of tokens.
        settings: How to train.
        judge: What is measured on dev after each pass; the greatest "score" is kept.
        report: Called after each pass.
    """
    torch.manual_seed(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    decoder = CaptionDecoder(
        plain.shape[2], vocabulary, settings.width, settings.hidden, settings.dropout
    )
    torch.nn.init.normal_(decoder.embedding.weight, std=settings.width**-0.5)
    optimizer = torch.optim.AdamW(
        decoder.parameters(), settings.lr, weight_decay=settings.weight_decay
    )
    tokens, images = captions
    spread = plain[0].std(0) * settings.noise
    total = settings.epochs * max(1, len(tokens) // settings.batch)
    step, begun, best, kept = 0, time.perf_counter(), -math.inf, Fit({}, 0, [], 0.0)
    history: list[dict[str, Any]] = []
    for epoch in range(1, settings.epochs + 1):
        decoder.train()
        losses: list[float] = []
        for rows in _batches(tokens, settings.batch, generator):
            for group in optimizer.param_groups:
                warm = min(1.0, (step + 1) / min(100, 1 + total // 10))
                group["lr"] = settings.lr * warm * 0.5 * (1 + math.cos(math.pi * step / total))
            shown = _features(plain, refined, images[rows], settings.refined, generator)
            shown = shown + spread * torch.randn(shown.shape, generator=generator)
            loss = loss_of(decoder, shown, tokens[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(decoder.parameters(), 5.0)
            optimizer.step()
            losses.append(float(loss.detach()))
            step += 1
        found = judge(decoder.eval())
        seconds = time.perf_counter() - begun
        entry = {"epoch": epoch, "loss": sum(losses) / len(losses), **found, "seconds": seconds}
        history.append({k: round(v, 4) for k, v in entry.items()})
        report(history[-1])
        if found["score"] > best:
            best = found["score"]
            weights = {k: v.detach().clone() for k, v in decoder.state_dict().items()}
            kept = dataclasses.replace(kept, weights=weights, epoch=epoch)
    return dataclasses.replace(kept, history=history, seconds=time.perf_counter() - begun)


@torch.no_grad()
def dev_loss(decoder: CaptionDecoder, features: Tensor, captions: tuple[Tensor, Tensor]) -> float:
    """Mean -log p of a token of the captions, in nats, of a decoder in evaluation mode."""
    tokens, images = captions
    total = 0.0
    for rows in torch.arange(len(tokens)).split(1024):
        count = int((tokens[rows][:, 1:] != PAD).sum())
        total += float(loss_of(decoder, features[images[rows]], tokens[rows])) * count
    return total / int((tokens[:, 1:] != PAD).sum())


def _batches(tokens: Tensor, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Random captions, those of a batch about equally long: little is padding."""
    order = torch.randperm(len(tokens), generator=generator)
    length = (tokens != PAD).sum(1)
    groups = [part[length[part].argsort(stable=True)] for part in order.split(20 * batch)]
    batches = [rows for group in groups for rows in group.split(batch)]
    full = [rows for rows in batches if len(rows) == batch] or batches
    for place in torch.randperm(len(full), generator=generator).tolist():
        yield full[place]


def _features(
    plain: Tensor, refined: Tensor | None, images: Tensor, share: float, generator: torch.Generator
) -> Tensor:
    view = torch.randint(len(plain), (len(images),), generator=generator)
    shown = plain[view, images]
    if refined is not None:
        view = torch.randint(len(refined), (len(images),), generator=generator)
        moved = torch.rand(len(images), generator=generator) < share
        shown = torch.where(moved.unsqueeze(1), refined[view, images], shown)
    return shown
