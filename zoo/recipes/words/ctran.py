"""C-Tran, the strongest published method for partial labels, trained end to end on our data.

Source: Lanchantin, Wang, Ordonez, Qi: "General Multi-label Image Classification with Transformers",
CVPR 2021. Labels are tokens, each with an embedding of its state (unknown, absent or present)
added; they and the network's map of the image go through a transformer, and each label's token
says whether it holds. Which labels are known is drawn anew in every step of training.

    python zoo/recipes ctran coco80-lite0 --data DATA --out ctran.npz

The file holds logits for every known set of the benchmark `partial_labels.py` (`--stored`).
"""

from __future__ import annotations

import copy
import math
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn

from fa_evaluate.data import read
from fa_evaluate.protocols.partial_labels import PartialLabels
from feedback_adapter.checkpoint import find, read_config
from pixels import Pixels, augment, load, normalise
from words import lite0

WIDTH, LAYERS, HEADS, DROPOUT, CHANNELS, TOKENS = 256, 3, 4, 0.1, 1280, 49
SIZE, BATCH, EPOCHS, LR_BODY, LR = 224, 64, 16, 5e-4, 4e-4
PROTOCOL = PartialLabels((25, 50, 75, 100), draws=1, splits=3, flip=(10,))


class CTran(nn.Module):
    """A network and the transformer on its map.

    Args:
        labels: How many.
        weights: Of the network, see `lite0.create`.
    """

    def __init__(self, labels: int, weights: dict[str, Tensor] | None) -> None:
        super().__init__()
        self.net = lite0.create(labels, weights, 0.0, 0.1)
        self.image = nn.Sequential(nn.Linear(CHANNELS, WIDTH), nn.LayerNorm(WIDTH))
        self.place = nn.Parameter(torch.randn(TOKENS, WIDTH) * 0.02)
        self.label = nn.Parameter(torch.randn(labels, WIDTH) * 0.3)
        self.state = nn.Embedding(3, WIDTH)
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, DROPOUT, "gelu", batch_first=True, norm_first=True
        )
        norm = nn.LayerNorm(WIDTH)
        self.encoder = nn.TransformerEncoder(layer, LAYERS, norm, enable_nested_tensor=False)
        self.out = nn.Parameter(torch.randn(labels, WIDTH) * 0.1 / math.sqrt(WIDTH))
        self.bias = nn.Parameter(torch.full((labels,), -3.0))

    def forward(self, images: Tensor, said: Tensor, known: Tensor) -> Tensor:
        """Logits (batch, labels).

        Args:
            images: (batch, 3, 224, 224), normalised.
            said: (batch, labels), 1 or 0; only what is known is looked at.
            known: (batch, labels) bool.
        """
        net = self.net
        image = net.bn2(net.conv_head(net.blocks(net.bn1(net.conv_stem(images)))))
        labels = self.label + self.state(torch.where(known, 1 + said.long(), 0))
        tokens = [labels, self.image(image.flatten(2).transpose(1, 2)) + self.place]
        found = self.encoder(torch.cat(tokens, 1))[:, : labels.shape[1]]
        return (found * self.out).sum(-1).float() + self.bias


def fit(model: CTran, train: Pixels, epochs: int = EPOCHS, seed: int = 1) -> CTran:
    """The average of the weights after training."""
    torch.manual_seed(seed)
    device = train.images.device
    average = copy.deepcopy(model)
    model.bias.data.copy_(train.targets.mean(0).clamp(1e-3, 1 - 1e-3).logit())
    body = [
        p for n, p in model.named_parameters() if n.startswith("net.") and "classifier" not in n
    ]
    rest = [p for n, p in model.named_parameters() if not n.startswith("net.")]
    optimizer = torch.optim.AdamW([
        {"params": body, "base": LR_BODY, "weight_decay": 0.02},
        {"params": rest, "base": LR, "weight_decay": 0.05},
    ])  # fmt: skip
    pairs = [
        [t for t in m.state_dict().values() if t.is_floating_point()] for m in (average, model)
    ]
    generator = torch.Generator().manual_seed(seed)
    each = max(1, len(train) // BATCH)
    for step in range(epochs * each):
        if step % each == 0:
            order = torch.randperm(len(train), generator=generator).to(device)
        rows = order[step % each * BATCH :][:BATCH]
        warm = min(1.0, (step + 1) / each)
        for group in optimizer.param_groups:
            cosine = 0.5 * (1 + math.cos(math.pi * step / (epochs * each)))
            group["lr"] = group["base"] * warm * cosine
        images = augment(train.images[rows], crop=0.4, colour=0.3, generator=generator)
        targets = train.targets[rows]
        share = 0.75 * torch.rand(len(rows), 1, device=device)
        known = torch.rand_like(targets) < share
        model.train()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = model(images, targets, known)
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        optimizer.zero_grad()
        losses[~known].mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        decay = min(0.99, (1 + step) / (10 + step))
        torch._foreach_lerp_(*pairs, weight=1 - decay)  # pyright: ignore[reportPrivateImportUsage]
    return average.eval()


@torch.no_grad()
def answers(model: CTran, pixels: Pixels) -> dict[str, np.ndarray]:
    """Logits of the scored labels for every draw of the protocol, by the draw's name."""
    truth = pixels.targets.cpu().numpy() > 0.5
    found: dict[str, np.ndarray] = {}
    for draw in PROTOCOL.draws_of(truth.shape[1]):
        said = torch.from_numpy(PROTOCOL.said(truth, draw)).to(pixels.images.device)
        known = torch.from_numpy(draw.known).to(said.device)
        parts = [
            model(normalise(pixels.images[rows]), said[rows], known.expand(len(rows), -1)).cpu()
            for rows in torch.arange(len(said)).split(BATCH)
        ]
        found[f"{draw}, split {draw.split}"] = torch.cat(parts).half().numpy()[:, draw.scored]
    return found


def main(
    checkpoint: Annotated[str, typer.Argument(help="Whose labels and data to use.")],
    data: Annotated[Path, typer.Option(help="Folder of the data.")],
    out: Annotated[Path, typer.Option(help="File (.npz) to write.")],
    split: Annotated[str, typer.Option(help="dev or test.")] = "test",
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = EPOCHS,
) -> None:
    """Train C-Tran and write its logits."""
    config = read_config(find(checkpoint))
    labels = config["outputs"]["output"]["labels"]
    images = read(data, labels, config["data"]["source"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train, own = (
        load(images.subset(name), SIZE, threads=8).to(device) for name in ("train", split)
    )
    started = time.time()
    model = fit(CTran(len(labels), lite0.imagenet_weights()).to(device), train, epochs)
    print(f"{time.time() - started:.0f} s, {sum(p.numel() for p in model.parameters()):,} weights")
    np.savez_compressed(out, **answers(model, own))


if __name__ == "__main__":
    typer.run(main)
