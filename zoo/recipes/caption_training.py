"""Train a caption decoder on the pooled features of a frozen backbone."""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from feedback_adapter.networks.decoder import END, START, UNKNOWN, CaptionDecoder

PAD = -1


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the decoder is trained.

    Args:
        width: Of the image's vector and of the embeddings.
        hidden: Of the LSTM.
        dropout: Of features, embeddings and the LSTM's output.
        epochs: Passes over all captions; the one with the least loss on dev is kept.
        batch: Captions in a step.
        lr: AdamW's learning rate, cosine to 0.
        weight_decay: AdamW's.
        noise: Standard deviation of what is added to features, in their own.
        seed: Of everything random.
    """

    width: int = 256
    hidden: int = 512
    dropout: float = 0.5
    epochs: int = 14
    batch: int = 256
    lr: float = 2e-3
    weight_decay: float = 0.01
    noise: float = 0.1
    seed: int = 1


def tokenise(caption: str) -> list[str]:
    """A caption's words, lower-case, without punctuation."""
    return re.findall(r"[a-z0-9]+(?:'[a-z]+)?", caption.lower())


def vocabulary_of(captions: Sequence[Sequence[str]], least: int = 5) -> tuple[str, ...]:
    """`<start>`, `<end>`, `<unknown>`, then every word that occurs `least` times."""
    counts = Counter(w for of_image in captions for c in of_image for w in tokenise(c))
    words = sorted((w for w, n in counts.items() if n >= least), key=lambda w: (-counts[w], w))
    return ("<start>", "<end>", "<unknown>", *words)


def encode(
    captions: Sequence[Sequence[str]], vocabulary: Sequence[str], longest: int = 24
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
    features: Tensor,
    captions: tuple[Tensor, Tensor],
    dev_features: Tensor,
    dev_captions: tuple[Tensor, Tensor],
    vocabulary: int,
    settings: Settings,
    report: Callable[[dict[str, Any]], None] = lambda _: None,
) -> tuple[dict[str, Tensor], float, int]:
    """Train a decoder.

    Args:
        features: (views, N, features) of the training images; each step takes a random
            view (crop and mirror image) of each, which keeps the decoder from learning
            photos by heart.
        captions: Their tokens and image numbers, as `encode` gives them.
        dev_features: Of the dev images.
        dev_captions: Likewise.
        vocabulary: Number of tokens.
        settings: How to train.
        report: Called after each pass.

    Returns:
        The best weights on dev, their loss there (nats a token) and the pass.
    """
    torch.manual_seed(settings.seed)
    device = features.device
    decoder = CaptionDecoder(
        features.shape[2], vocabulary, settings.width, settings.hidden, settings.dropout
    ).to(device)
    torch.nn.init.normal_(decoder.embedding.weight, std=settings.width**-0.5)
    optimizer = torch.optim.AdamW(
        decoder.parameters(), settings.lr, weight_decay=settings.weight_decay
    )
    tokens, images = (t.to(device) for t in captions)
    spread = features[0].std(0) * settings.noise
    steps_each = max(1, len(tokens) // settings.batch)
    total, step = steps_each * settings.epochs, 0
    best: tuple[dict[str, Tensor], float, int] = ({}, math.inf, 0)
    for epoch in range(1, settings.epochs + 1):
        decoder.train()
        order = torch.randperm(len(tokens), device=device)
        for rows in order[: steps_each * settings.batch].split(settings.batch):
            for group in optimizer.param_groups:
                warm = min(1.0, (step + 1) / 100)
                group["lr"] = settings.lr * warm * 0.5 * (1 + math.cos(math.pi * step / total))
            view = torch.randint(len(features), (len(rows),), device=device)
            shown = features[view, images[rows]]
            shown = shown + spread * torch.randn_like(shown)
            loss = loss_of(decoder, shown, tokens[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(decoder.parameters(), 5.0)
            optimizer.step()
            step += 1
        score = dev_loss(decoder, dev_features, dev_captions)
        report({"epoch": epoch, "loss": round(float(loss.detach()), 4), "dev": round(score, 4)})
        if score < best[1]:
            weights = {k: v.detach().cpu().clone() for k, v in decoder.state_dict().items()}
            best = (copy.deepcopy(weights), score, epoch)
    return best


def dev_loss(decoder: CaptionDecoder, features: Tensor, captions: tuple[Tensor, Tensor]) -> float:
    """Mean -log p of a token of the captions, in evaluation mode."""
    decoder.eval()
    tokens, images = (t.to(features.device) for t in captions)
    total = 0.0
    with torch.no_grad():
        for rows in torch.arange(len(tokens), device=features.device).split(1024):
            count = int((tokens[rows][:, 1:] != PAD).sum())
            total += float(loss_of(decoder, features[images[rows]], tokens[rows])) * count
    return total / int((tokens[:, 1:] != PAD).sum())
