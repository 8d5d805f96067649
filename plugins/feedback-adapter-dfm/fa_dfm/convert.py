"""Turn a convolutional network into one that looks again."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from fa_dfm.early import Early
from fa_dfm.errors import ConversionError
from fa_dfm.feedback import Feedback
from fa_dfm.injection import Frontier, Stem
from fa_dfm.network import DFM
from fa_dfm.predictions import Kind
from fa_dfm.probe import Trace, trace
from fa_dfm.receptive_field import receptive_field
from fa_dfm.updates import make_update
from feedback_adapter.errors import OptionsError, did_you_mean
from feedback_adapter.outputs import pick

__all__ = ["convert"]


def convert(
    model: nn.Module,
    frontend: str | None = None,
    loop: str | Sequence[str] | None = None,
    head: nn.Module | None = None,
    inject: str = "stem",
    hidden: int = 0,
    update: str = "replace",
    tau: float | None = None,
    steps: int = 4,
    evidence: bool = True,
    *,
    kind: Kind = "multiclass",
    image_size: tuple[int, int] = (224, 224),
    frozen_norms: bool = True,
) -> DFM:
    """Make a network that looks again from one that looks once. The model itself isn't changed.

    Step 1 without evidence computes exactly what the model computes in evaluation mode, and as
    the feedback weights start at zero, so do all steps until they are trained.

    Args:
        model: A convolutional network of timm or torchvision (classification or segmentation),
            or any module that takes images to logits, (batch, K) or (batch, K, height, width).
        frontend: Name of the convolution behind which feedback enters; `None` for the first.
        loop: Name of the stage at which the loop ends, or of several of which the last counts,
            as `("layer1", "layer2")`. `None`: at the last spatial features before the last layer
            with weights (or, in torchvision's segmentation models, of the backbone).
        head: Makes logits of the loop's features, in place of the rest of the model, which
            is left out. Maps it returns are brought to the size of the images.
        inject: Only `"stem"`: feedback is added to the output of the frontend.
        hidden: How many channels of the features are fed back beside the prediction.
        update: `"replace"` (the newest features count), `"leaky"` (an average that forgets) or
            `"published"` (a sum of ever smaller steps).
        tau: How many steps `"leaky"` and `"published"` remember, above 0; `None` for 2.
        steps: T, how often the network looks, at least 1.
        evidence: Give what is known channels of its own beside the prediction that it corrects.
        kind: `"multiclass"`, one softmax over the labels, or `"multilabel"`, a sigmoid for each.
        image_size: Height and width of the images on which the receptive field is measured.
        frozen_norms: Batch norms keep their statistics in training.

    Returns:
        The converted copy. Its `field` says what one step sees.

    Raises:
        ConversionError: The model has no first convolution, or a grouped one, or no features.
        OptionsError: An option is out of range, or names no module.

    Example:
        >>> import torch, torchvision, fa_dfm
        >>> model = torchvision.models.resnet18().eval()
        >>> looking = fa_dfm.convert(model, image_size=(64, 64)).eval()
        >>> images = torch.rand(2, 3, 64, 64)
        >>> torch.equal(looking(images), model(images))
        True
    """
    if inject != "stem":
        raise OptionsError(f"inject={inject!r} is not possible: 'stem' is.")
    if kind not in get_args(Kind):
        raise OptionsError(f"kind={kind!r} is not possible: {get_args(Kind)} are.")
    if hidden < 0:
        raise OptionsError(f"hidden={hidden} is out of range: it must be at least 0.")
    own = copy.deepcopy(model).eval()
    images = _probe_images(own, image_size)
    end = loop if isinstance(loop, str) or loop is None else list(loop)[-1]
    if head is not None:
        if end is None:
            raise OptionsError("head=... needs loop=...: the stage whose features it reads.")
        own, end = Early(own, end, copy.deepcopy(head), images).eval(), "body"
    seen = trace(own, images)
    first = _first_convolution(own, seen, frontend)
    last = _last_features(own, seen) if end is None else end
    if last not in seen.maps:
        raise OptionsError(f"loop={loop!r} makes no feature map. {did_you_mean(last, seen.maps)}")
    features, field = receptive_field(own, last, images)
    output = "out" if isinstance(seen.value, Mapping) else None
    logits = pick(seen.value, output)
    conv = own.get_submodule(first)
    feedback = Feedback(
        conv,
        labels=logits.shape[1],
        kind=kind,
        dense=logits.ndim == 4,
        channels=features,
        hidden=hidden,
        evidence=evidence,
    )
    wrapped = Frontier(own.get_submodule(last))
    own.set_submodule(first, Stem(conv))
    own.set_submodule(last, wrapped)
    return DFM(
        own,
        feedback,
        make_update(update, features, tau),
        kind=kind,
        steps=steps,
        output=output,
        field=field,
        frozen_norms=frozen_norms,
    )


def _probe_images(model: nn.Module, size: tuple[int, int]) -> Tensor:
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    if not convolutions:
        raise ConversionError(
            f"{type(model).__name__} has no convolution for feedback to enter behind."
        )
    like = convolutions[0].weight
    if like.is_meta:
        raise NotImplementedError("the receptive field is measured, which takes real weights")
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, convolutions[0].in_channels, *size, generator=generator)
    return images.to(like.device, like.dtype)


def _first_convolution(model: nn.Module, seen: Trace, frontend: str | None) -> str:
    name = seen.convolutions[0] if frontend is None else frontend
    if name not in seen.convolutions:
        raise OptionsError(
            f"frontend={name!r} is no convolution that the model runs. "
            f"{did_you_mean(name, seen.convolutions)}"
        )
    conv = model.get_submodule(name)
    assert isinstance(conv, nn.Conv2d)
    if conv.groups > 1:
        raise ConversionError(
            f"The convolution {name!r} works in {conv.groups} groups: feedback, which has other "
            "channels than the image, can't copy it. Name another one by `frontend`."
        )
    return name


def _last_features(model: nn.Module, seen: Trace) -> str:
    backbone = [name for name in seen.maps if name.startswith("backbone.")]
    names = backbone or list(seen.maps)
    if not names:
        raise ConversionError(
            f"{type(model).__name__} has no spatial features at images of this size: give "
            "`convert` larger ones by `image_size`."
        )
    return names[-1]
