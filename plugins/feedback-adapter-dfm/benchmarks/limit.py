"""How well triangles can be found at all: the IoU of whoever knows how the images are made.

    python benchmarks/limit.py

For each test image, triangles are drawn from their posterior (sequential Monte Carlo: from the
prior to the posterior in tempered stages, each with resampling and Metropolis moves), and the mask
with the largest expected IoU is scored. The noise's strength is known to it, as is all that
`recipes/shapes.py` says; networks have to learn it from 16 examples.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

import torch
import torch.nn.functional as F
import typer
from command import HERE, Device, Only, Out
from rich.console import Console
from rows import Measured, write
from sampling import clicks
from shapes import JITTER, LARGEST, SMALLEST, corners, fill
from torch import Tensor
from triangle_task import Task, masks

METHOD = "limit"
STAGES, MOVES, LAST = 24, 8, 60
LEAST = torch.tensor([0.01, 0.01, 0.01, 0.1, 0.3, 0.3, 0.3])
"""Of the numbers' moves, before they are made smaller: more than what the particles differ by."""

CONDITIONS = {
    "48 px, sigma 0.5, one click": (0.5, True, 60),
    "48 px, sigma 1, one click": (1.0, True, 60),
    "48 px, sigma 2": (2.0, False, 400),
    "48 px, sigma 3": (3.0, False, 400),
}
"""Noise, whether one of two triangles is meant, which a click says, and how many test images."""


@dataclasses.dataclass(frozen=True)
class Triangles:
    """Triangles by their numbers, (batch, particles, 7) each, and what they cover.

    Args:
        numbers: Centre (2) and radius in sides, angle, and the corners' jitter (3) in standard
            deviations.
        cover: (batch, particles, side, side).
    """

    numbers: Tensor
    cover: Tensor

    @classmethod
    def of(cls, numbers: Tensor, side: int, fine: int = 1) -> Triangles:
        """Those of such numbers; `fine` as in `shapes.fill`."""
        centre, radius, angle, jitter = numbers.split((2, 1, 1, 3), -1)
        distance = (radius + JITTER * jitter) * side
        return cls(numbers, fill(corners(centre * side, angle, distance), side, fine))

    def log_prior(self) -> Tensor:
        """(batch, particles); -inf outside of what is ever drawn."""
        centre, radius, _, jitter = self.numbers.split((2, 1, 1, 3), -1)
        possible = ((centre >= 0) & (centre <= 1)).all(-1)
        possible &= ((radius >= SMALLEST) & (radius <= LARGEST)).squeeze(-1)
        possible &= self.cover.flatten(2).sum(2) >= 12
        return torch.where(possible, -jitter.square().sum(-1) / 2, -torch.inf)

    def take(self, rows: Tensor) -> Triangles:
        """Those of the particles (batch, particles)."""
        batch = torch.arange(len(rows), device=rows.device).unsqueeze(1)
        return Triangles(self.numbers[batch, rows], self.cover[batch, rows])

    def where(self, chosen: Tensor, other: Triangles) -> Triangles:
        """These where chosen (batch, particles), else the others."""
        numbers = torch.where(chosen[..., None], self.numbers, other.numbers)
        return Triangles(numbers, torch.where(chosen[..., None, None], self.cover, other.cover))


def prior(shape: tuple[int, int], generator: torch.Generator, click: Tensor | None) -> Tensor:
    """Numbers (batch, particles, 7) of triangles, around clicks (batch, 2), x and y in sides."""
    device = generator.device

    def uniform(size: int) -> Tensor:
        return torch.rand((*shape, size), generator=generator, device=device)

    radius = SMALLEST + (LARGEST - SMALLEST) * uniform(1)
    angle, jitter = (
        2 * math.pi * uniform(1),
        torch.randn((*shape, 3), generator=generator, device=device),
    )
    if click is None:
        return torch.cat([uniform(2), radius, angle, jitter], -1)
    # The clicked point lies anywhere in the triangle: it is moved so that a random point is there.
    around = corners(torch.zeros_like(jitter[..., :2]), angle, radius + JITTER * jitter)
    weight = torch.distributions.Exponential(1.0).icdf(uniform(3).clamp(max=1 - 1e-6))
    inside = (around * (weight / weight.sum(-1, keepdim=True)).unsqueeze(-1)).sum(-2)
    return torch.cat([click.unsqueeze(1) - inside, radius, angle, jitter], -1)


@dataclasses.dataclass(frozen=True)
class Posterior:
    """What is known of a batch of images, as a density.

    Args:
        images: White plus noise, not scaled, (batch, side, side).
        sigma: Of the noise.
        click: The clicked pixel as a mask (batch, side, side), or `None`: there is one triangle.
    """

    images: Tensor
    sigma: float
    click: Tensor | None

    def log(self, parts: list[Triangles], tempered: float) -> Tensor:
        """Unnormalised, (batch, particles)."""
        total = sum((one.log_prior() for one in parts), torch.zeros(()))
        white = parts[0].cover
        if self.click is not None:
            meant, other = white, parts[1].cover
            apart = (F.max_pool2d(meant, 5, 1, 2) * other).flatten(2).sum(2) == 0
            hit = (meant * self.click.unsqueeze(1)).flatten(2).sum(2) > 0
            total = torch.where(apart & hit, total, -torch.inf)
            total = total - meant.flatten(2).sum(2).clamp(min=1).log()  # any pixel is clicked
            white = meant + other
        gain = torch.einsum("bpij,bij->bp", white, self.images - 0.5) / self.sigma**2
        return total + tempered * gain

    def sample(self, particles: int, generator: torch.Generator) -> Tensor:
        """Masks (batch, particles, side, side) of the triangle that is meant."""
        side = self.images.shape[1]
        shape = (len(self.images), particles)
        centre = None if self.click is None else _point(self.click, generator)
        parts = [Triangles.of(prior(shape, generator, centre), side)]
        if self.click is not None:
            parts.append(Triangles.of(prior(shape, generator, None), side))
        tempered = 0.0
        for stage in range(1, STAGES + 1):
            new = (stage / STAGES) ** 3
            # The first weights also leave out what can't be: triangles that touch, for one.
            old = self.log(parts, tempered) if stage > 1 else self._proposed(parts)
            weight = torch.softmax(self.log(parts, new) - old, -1).nan_to_num(1 / particles)
            rows = torch.multinomial(weight, particles, replacement=True, generator=generator)
            parts, tempered = [one.take(rows) for one in parts], new
            for move in range(LAST if stage == STAGES else MOVES):
                parts = self._moved(parts, tempered, move, generator)
        return Triangles.of(parts[0].numbers, side, fine=3).cover

    def _proposed(self, parts: list[Triangles]) -> Tensor:
        """The density from which the first particles came."""
        jitter = sum((one.numbers[..., 4:].square().sum(-1) for one in parts), torch.zeros(()))
        if self.click is None:
            return -jitter / 2
        return -jitter / 2 - parts[0].cover.flatten(2).sum(2).clamp(min=1).log()

    def _moved(
        self, parts: list[Triangles], tempered: float, move: int, generator: torch.Generator
    ) -> list[Triangles]:
        """One Metropolis move of each particle and triangle."""
        now = self.log(parts, tempered)
        size = (0.8, 0.3, 0.1)[move % 3]
        for i, part in enumerate(parts):
            spread = part.numbers.std(1, keepdim=True)
            spread = torch.maximum(spread, LEAST.to(spread.device)).clamp(max=0.6)
            step = torch.randn(part.numbers.shape, generator=generator, device=now.device)
            if move % 2:  # one number alone, else all together
                only = torch.randint(7, (*now.shape, 1), generator=generator, device=now.device)
                step = step * (torch.arange(7, device=now.device) == only)
            tried = list(parts)
            tried[i] = Triangles.of(part.numbers + size * spread * step, self.images.shape[1])
            then = self.log(tried, tempered)
            draw = torch.rand(now.shape, generator=generator, device=now.device)
            taken = draw.log() < then - now
            parts = [new.where(taken, old) for new, old in zip(tried, parts, strict=True)]
            now = torch.where(taken, then, now)
        return parts


def _point(mask: Tensor, generator: torch.Generator) -> Tensor:
    """Somewhere in the one pixel of each mask (batch, side, side): x and y, in sides."""
    side = mask.shape[1]
    at = mask.flatten(1).argmax(1)
    pixel = torch.stack([at % side, at // side], -1)
    within = torch.rand(pixel.shape, generator=generator, device=mask.device)
    return (pixel + within) / side


def best_mask(samples: Tensor) -> tuple[Tensor, Tensor]:
    """The mask (batch, side, side) of the largest expected IoU, and that IoU.

    It is sought among the level sets of the pixels' probabilities.

    Args:
        samples: Masks of the posterior, (batch, particles, side, side).
    """
    p = samples.mean(1)
    masks = torch.stack([p > level / 20 for level in range(1, 20)], 1).float()
    expected = torch.stack([iou(one.unsqueeze(1), samples).mean(1) for one in masks.unbind(1)], 1)
    best = expected.max(1)
    return masks[torch.arange(len(p), device=p.device), best.indices], best.values


def iou(found: Tensor, truth: Tensor) -> Tensor:
    """In percent, over the last two axes."""
    both = (found * truth).sum((-2, -1))
    return 100 * both / (((found + truth) > 0).sum((-2, -1))).clamp(min=1)


def main(
    out: Out = HERE / "results",
    device: Device = "cpu",
    particles: Annotated[int, typer.Option(min=2, help="Triangles drawn per image.")] = 96,
    only: Only = None,
) -> None:
    """Score the best that can be done on the first test images of each condition."""
    torch.set_num_threads(1)
    console, rows, expectations = Console(), [], {}
    for name in only or CONDITIONS:
        sigma, pairs, count = CONDITIONS[name]
        begun = time.monotonic()
        generator = torch.Generator(device).manual_seed(0)
        scenes = masks(Task(pairs=pairs), 400, 7, device)
        values, expected = [], []
        for i in range(0, count, 10):
            white, meant = scenes.white[i : i + 10, 0], scenes.meant[i : i + 10, 0]
            noise = torch.randn(white.shape, generator=generator, device=device)
            one = torch.ones(len(meant), dtype=torch.long, device=device)
            click = clicks(meant > 0, one, 1, generator).float() if pairs else None
            samples = Posterior(white + sigma * noise, sigma, click).sample(particles, generator)
            mask, hoped = best_mask(samples)
            unknown = 1 if click is None else 1 - click
            values.append(iou(mask * unknown, meant * unknown))
            expected.append(hoped)
        value, hoped = (float(torch.cat(v).mean()) for v in (values, expected))
        expectations[name] = round(hoped, 2)
        rows.append(Measured(METHOD, name, "IoU", value, 0, 0, 0))
        seconds = time.monotonic() - begun
        console.print(f"{name}: {value:.1f}, by its own expectation {hoped:.1f}; {seconds:.0f} s")
    write(out / "limit.json", rows, {"expected": expectations})


if __name__ == "__main__":
    typer.run(main)
