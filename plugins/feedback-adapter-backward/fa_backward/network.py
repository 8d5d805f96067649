"""The user's model as a function from images to activations by site."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fa_backward.errors import BackwardError
from fa_backward.generative import IMAGE
from feedback_adapter.sites import Inputs, Site, Tail, discover, frozen

POOLS = (nn.MaxPool2d, nn.AvgPool2d)
PLAIN = (
    nn.Conv2d, nn.ReLU, nn.BatchNorm2d, nn.Dropout, nn.Identity, nn.Linear, nn.Flatten,
    nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Sequential, *POOLS,
)  # fmt: skip


class Network:
    """Activations of a plain model at some sites. The model is never changed.

    Args:
        model: Convolutions, ReLUs and poolings, one after another.
        sites: Names of its sites, the top first.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU())
        >>> {k: tuple(v.shape) for k, v in Network(model, ["1"])(torch.zeros(2, 3, 8, 8)).items()}
        {'1': (2, 4, 8, 8), 'image': (2, 3, 8, 8)}
    """

    def __init__(self, model: nn.Module, sites: Sequence[str]):
        check_plain(model)
        self.model, self.sites = model, tuple(sites)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """(n, 3, H, W) to activations (n, C, h, w) of each site, and the images themselves."""
        with frozen(self.model):
            tail = Tail.record(self.model, Inputs.of(images), [Site.of(s) for s in self.sites])
        found = dict(zip((s.name for s in tail.pivots), tail.activations, strict=True))
        return {name: found[name] for name in self.sites} | {IMAGE: images}


def check_plain(model: nn.Module) -> None:
    """Raise an error that names what isn't convolution, pooling or the like.

    Raises:
        BackwardError: A module of another kind, such as a residual block.
    """
    for name, module in model.named_modules():
        if name and not isinstance(module, PLAIN):
            raise BackwardError(
                f"{name!r} is a {type(module).__name__}: the generative backward pass follows one "
                "chain of convolutions, ReLUs and poolings, as VGG has. Use such a model, or "
                "another strategy: 'residual' works with any."
            )


def find_sites(model: nn.Module, images: Tensor) -> dict[str, tuple[int, int, int]]:
    """Default sites with their shapes, the top first: the last map, and every pooling's output.

    Raises:
        BackwardError: The model isn't plain, or has no pooling.
    """
    check_plain(model)
    with frozen(model):
        found = discover(model, Inputs.of(images))
    modules = dict(model.named_modules())
    maps = [s for s in found if s.module in modules and len(s.shape) == 4 and s.shape[2] > 1]
    chosen = [s for s in maps if isinstance(modules[s.module], POOLS)]
    tops = [s for s in maps if isinstance(modules[s.module], (nn.ReLU, *POOLS))]
    if not chosen or not tops:
        raise BackwardError(
            f"{type(model).__name__} has no pooling that leaves a map of more than one cell, so "
            "there is no site below the image's top. Give sites=[...], the top first."
        )
    if tops[-1] not in chosen:
        same = [s for s in chosen if s.shape[2:] == tops[-1].shape[2:]]
        chosen = [s for s in chosen if s not in same] + [tops[-1]]
    return {s.name: tuple(s.shape[1:]) for s in reversed(chosen)}
