"""Building one small model of a family, and checking what must hold of every model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import timm
import torch
import torchvision
from families import TIMM, TORCHVISION, Family
from torch import Tensor, nn

import feedback_adapter as fa
from feedback_adapter.sites import Inputs, Site, Tail, frozen
from feedback_adapter.testing import differences, snapshot

CLASSES = 10
FAMILIES = {family.name: family for family in (*TIMM, *TORCHVISION)}
LABELS = [f"label{i}" for i in range(CLASSES)]
SIZES = (64, 96, 128, 160, 192, 224, 256)
STEP_SIZES = (0.002, 0.0002)


class Pooled(nn.Module):
    """A model that returns maps or features, with their means as its (batch, classes) logits."""

    def __init__(self, body: nn.Module, classes: int = CLASSES) -> None:
        super().__init__()
        self.body, self.classes = body, classes

    def forward(self, images: Tensor) -> Tensor:
        value = self.body(images)
        tensors = list(value.values()) if isinstance(value, Mapping) else value
        tensors = list(tensors) if isinstance(tensors, (tuple, list)) else [tensors]
        return sum(self._logits(tensor) for tensor in tensors if isinstance(tensor, Tensor))

    def _logits(self, value: Tensor) -> Tensor:
        flat = value.flatten(1)
        width = math.ceil(flat.shape[1] / self.classes) * self.classes
        flat = nn.functional.pad(flat, (0, width - flat.shape[1]))
        return flat.unflatten(1, (self.classes, -1)).mean(2)


def wrapped_by(family: Family, model: nn.Module) -> str:
    """What makes (batch, classes) logits of a family's model, in a few words."""
    parts = ["its backbone"] if family.part == "detection" else []
    parts += ["means of what it returns"] if isinstance(model, Pooled) else []
    return ", ".join(parts) or "as it is"


def build(family: Family) -> tuple[nn.Module, Tensor]:
    """The family's model with random weights, in evaluation mode, and two random images."""
    torch.manual_seed(0)
    if family.library == "timm":
        model = timm.create_model(family.model, num_classes=CLASSES, **family.kwargs)
    else:
        model = torchvision.models.get_model(
            family.model, weights=None, num_classes=CLASSES, **family.kwargs
        )
        model = model.backbone if family.part == "detection" else model
    model.eval()
    _awaken(model)
    images = torch.rand(2, *(family.shape or _smallest(model, family))) * 2 - 1
    _calibrate(model, torch.rand(4, *images.shape[1:]) * 2 - 1)
    with torch.no_grad():
        value = model(images)
    if not isinstance(value, Tensor) or value.shape != (2, CLASSES):
        return Pooled(model).eval(), images
    _rescale(model, 1 / float(value.std()))
    return model, images


def _awaken(model: nn.Module) -> None:
    """Give zero weights small random values: a branch that begins at zero hides what's in it."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim and not parameter.any():
                parameter.normal_(0, 0.02)
            elif parameter.ndim == 1 and bool((parameter.abs() < 1e-2).all()):
                parameter.fill_(0.1)  # layer scale


def _calibrate(model: nn.Module, images: Tensor) -> None:
    """Give batch norms the statistics of some images, as training would have.

    With those that they begin with, the activations of some deep networks vanish.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        if norms:
            model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def _rescale(model: nn.Module, factor: float) -> None:
    """Multiply the logits: those of random weights can be so large that nothing moves them."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)) and module.weight.shape[0] == CLASSES:
                for parameter in module.parameters(recurse=False):
                    parameter.mul_(factor)


def _smallest(model: nn.Module, family: Family) -> tuple[int, ...]:
    """The smallest square image that the model takes."""
    config = getattr(model, "pretrained_cfg", {}) if family.library == "timm" else {}
    channels, *size = config.get("input_size", (3, 224, 224))
    sizes = size[:1] if config.get("fixed_input_size") else [*SIZES, size[0]]
    error: Exception | None = None
    for side in sizes:
        try:
            with torch.no_grad():
                model(torch.zeros(2, channels, side, side))
        except Exception as problem:  # whatever a model says to a size that doesn't fit it
            error = problem
        else:
            return channels, side, side
    raise RuntimeError(f"{family.model} takes none of {sizes}: {error}")


# ---- what must hold ----


def check(model: nn.Module, images: Tensor, *, places: int = 7) -> dict[str, Any]:
    """Sites, exactness, gradients, refinement and restoration of one model."""
    adapter = fa.wrap(model, labels=LABELS)
    with torch.no_grad():
        outside = model(images)
    before = snapshot(model)
    plain = adapter.predict(images)
    reasons: list[str] = []
    sites = adapter.sites(images)
    exact = gradient = True
    if not torch.equal(plain, outside):
        exact = False
        reasons.append(f"predict differs by {float((plain - outside).abs().max()):.1e}")
    rounding = 0.0
    for site in spread(sites, places):
        difference, slope, apart = _replay(adapter, images, site, outside)
        rounding = max(rounding, apart)
        if not apart <= 1e-5 * float(outside.abs().max()):
            exact = False
            reasons.append(f"{site.name}: the recorded output differs by {apart:.1e}")
        if difference:
            exact = False
            reasons.append(f"{site.name}: the replayed output differs by {difference:.1e}")
        if slope:
            gradient = False
            reasons.append(f"{site.name}: {slope}")
    evidence = fa.Labels({LABELS[0]: 1, LABELS[1]: 0, LABELS[2]: 1})
    for size in STEP_SIZES:
        results = {
            strategy: adapter.refine(images, evidence, strategy=strategy, step_size=size)
            for strategy in ("residual", "layerwise")
        }
        refined = all(bool(result.improved.all()) for result in results.values())
        if refined:
            break
    else:
        reasons += [f"{name}: losses {r.losses.tolist()}" for name, r in results.items()]
    newton = adapter.refine(images, evidence, strategy="newton")
    if not bool(newton.improved.all()):
        reasons.append(f"newton: losses {newton.losses.tolist()}")
    changed = differences(before, snapshot(model))
    reasons += [f"not restored: {changed[:3]}"] if changed else []
    return {
        "sites": len(sites), "exact": exact, "gradient": gradient, "refined": refined,
        "newton": bool(newton.improved.all()),
        "restored": not changed, "reason": "; ".join(reasons), "rounding": rounding,
        "step_size": size,
    }  # fmt: skip


def spread(sites: list[Site], places: int) -> list[Site]:
    """Some of the sites, from the input to the last, evenly in the order of the forward pass."""
    last = len(sites) - 1
    return [sites[i] for i in sorted({round(k * last / (places - 1)) for k in range(places)})]


def _replay(
    adapter: fa.Adapter, images: Tensor, site: Site, outside: Tensor
) -> tuple[float, str | None, float]:
    """How far the replayed output is off the recorded one, what is wrong with the gradient, if
    anything, and how far the recorded one is off what the model says by itself.
    """
    with frozen(adapter.model):
        tail = Tail.record(adapter.model, Inputs.of(images), [site])
        plain = adapter.read(tail.value)["output"].detach()
        apart = float((plain - outside).abs().max())
        leaf = tail.activations[0].detach().clone().requires_grad_()
        with torch.enable_grad():
            value = adapter.read(tail.run([lambda _: leaf]))["output"]
        difference = float((value - plain).abs().max())
        difference = difference if math.isfinite(difference) else float("inf")
        gradient = None
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(value.square().sum(), leaf, allow_unused=True)
        if gradient is not None:
            slope = None if bool(gradient.isfinite().all()) else "NaN or inf gradient"
            return difference, slope, apart
        with torch.no_grad():
            moved = adapter.read(tail.run([lambda _: leaf + torch.randn_like(leaf)]))["output"]
        return difference, None if torch.equal(moved, plain) else "no gradient", apart
