"""A small plain net for CIFAR-10, to be frozen: some minutes on one CPU thread."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fa_cnnf.data import Images, to_input
from fa_cnnf.nets import SmallResNet


def batches(
    data: Images, seed: int, size: int, epochs: int = 1, *, augment: bool = True
) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled batches in [-1, 1] with their classes; crops (4 pixels of padding) and flips."""
    generator = torch.Generator().manual_seed(seed)
    height, width = data.images.shape[2:]
    padded = F.pad(data.images, (4, 4, 4, 4)) if augment else data.images
    for _ in range(epochs):
        for rows in torch.randperm(len(data), generator=generator).split(size):
            if not augment:
                yield to_input(padded[rows]), data.labels[rows]
                continue
            down, right = torch.randint(0, 9, (2,), generator=generator).tolist()
            images = to_input(padded[rows, :, down : down + height, right : right + width])
            flip = torch.rand(len(rows), 1, 1, 1, generator=generator) < 0.5
            yield torch.where(flip, images.flip(-1), images), data.labels[rows]


def train(data: Images, epochs: int, seed: int, size: int = 128) -> nn.Module:
    """Train on clean images: SGD with one cycle, bfloat16 activations. Returns it frozen."""
    torch.manual_seed(seed)
    net = SmallResNet().to(memory_format=torch.channels_last)
    count = -(-len(data) // size) * epochs
    optimizer = torch.optim.SGD(
        net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, count + 1, pct_start=0.2)
    begun = time.perf_counter()
    for step, (images, labels) in enumerate(batches(data, seed, size, epochs)):
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(images.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            seconds = round(time.perf_counter() - begun)
            print(f"net {step}/{count}", round(float(loss.detach()), 3), seconds, "s", flush=True)
    return net.eval().requires_grad_(False).to(memory_format=torch.contiguous_format)
