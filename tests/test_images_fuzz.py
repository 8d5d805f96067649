"""Whatever is passed as images: a finite result, or one named error; the model stays as it is."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

import feedback_adapter as fa
from feedback_adapter.errors import FeedbackAdapterError, InputError

LABELS = ["a", "b", "c", "d"]


def conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(6, 4),
    )  # fmt: skip


def fixed() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Tanh(), nn.Linear(8, 4))


def words() -> nn.Module:
    return nn.Sequential(nn.Embedding(20, 4), nn.Flatten(), nn.Linear(32, 4))


def vit() -> nn.Module:
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=8, depth=1, embed_dim=12, num_heads=2,
        num_classes=4,
    )  # fmt: skip


ADAPTERS: dict[str, fa.Adapter] = {}
STATES: dict[str, dict[str, Tensor]] = {}
torch.manual_seed(0)
for make in (conv, fixed, words, vit):
    ADAPTERS[make.__name__] = fa.wrap(make().eval(), LABELS)
    model = ADAPTERS[make.__name__].model
    STATES[make.__name__] = {key: value.clone() for key, value in model.state_dict().items()}


def made(kind: str, x: Tensor) -> object:
    """What is passed as images; torch warns of some kinds of tensors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return KINDS[kind](x)


KINDS: dict[str, Callable[[Tensor], object]] = {
    "a tensor": lambda x: x,
    "a tuple": lambda x: (x,),
    "two": lambda x: (x, x),
    "keywords": lambda x: {"input": x},
    "wrong keywords": lambda x: {3: x},
    "numpy": lambda x: x.detach().numpy(),
    "numbers": lambda x: x.tolist(),
    "tensors": lambda x: list(x.unbind()) if x.ndim else [],
    "a photo": lambda x: Image.new("RGB", (8, 8)),
    "a name": lambda x: "photo.png",
    "nothing": lambda x: None,
    "channels last": lambda x: x.to(memory_format=torch.channels_last) if x.ndim == 4 else x,
    "backwards": lambda x: x.transpose(-1, -2) if x.ndim > 1 else x,
    "one for all": lambda x: x[:1].expand_as(x) if x.ndim else x,
    "with gradient": lambda x: x.float().requires_grad_(),
    "a parameter": lambda x: nn.Parameter(x.float()),
    "sparse": lambda x: x.to_sparse(),
    "compressed": lambda x: x.reshape(len(x), -1).to_sparse_csr(),
    "nested": lambda x: torch.nested.nested_tensor(list(x.unbind())),
    "quantised": lambda x: torch.quantize_per_tensor(x.float(), 0.1, 0, torch.quint8),
    "on meta": lambda x: x.to("meta"),
    "float8": lambda x: x.to(torch.float8_e4m3fn),
}
DTYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int64,
    torch.bool, torch.complex64,
)  # fmt: skip
SHAPES = (
    (2, 3, 8, 8), (3, 3, 16, 16), (2, 1, 8, 8), (2, 4, 8, 8), (2, 8, 8, 3), (3, 8, 8), (0, 3, 8, 8),
    (2, 3, 0, 8), (2, 3, 1, 1), (2, 3, 7, 9), (1, 2, 3, 8, 8), (3, 8), (192,), (),
)  # fmt: skip
SCALES = (1.0, 0.0, -1.0, 1e-42, 1e3, 1e30, -1e30, 3e38, float("nan"), float("inf"))


def answers(adapter: fa.Adapter, what: str, images: object) -> list[Tensor]:
    if what == "predict":
        return [adapter.predict(images)]
    result = adapter.refine(images, fa.Labels({"a": 1}), strategy=None if what == "auto" else what)
    return [result.before, result.after, result.refined]


@settings(max_examples=250, deadline=None, derandomize=True)
@given(
    st.sampled_from(sorted(ADAPTERS)), st.sampled_from(SHAPES), st.sampled_from(DTYPES),
    st.sampled_from(SCALES), st.sampled_from(["a tensor"] * 12 + sorted(KINDS)),
    st.sampled_from(["predict", "auto", "newton", "residual", "clamp"]),
)  # fmt: skip
def test_any_images_give_a_finite_result_or_one_named_error(
    name: str, shape: tuple[int, ...], dtype: torch.dtype, scale: float, kind: str, what: str
) -> None:
    adapter, before = ADAPTERS[name], STATES[name]
    whole = not (dtype.is_floating_point or dtype.is_complex)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * (10 if whole else scale)
    try:
        images = made(kind, x.to(dtype))
    except (RuntimeError, ValueError, IndexError, TypeError):  # torch has no such tensor
        return
    try:
        found = answers(adapter, what, images)
    except FeedbackAdapterError:
        found = []
    assert all(bool(tensor.isfinite().all()) for tensor in found)
    state = adapter.model.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in state.items())
    assert not any(module.training for module in adapter.model.modules())
    assert all(p.grad is None and p.requires_grad for p in adapter.model.parameters())


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("sparse", r"images are sparse_coo: .*to_dense"),
        ("compressed", "images are sparse_csr"),
        ("nested", "images are nested"),
        ("quantised", "images are torch.quint8"),
        ("float8", "images are torch.float8_e4m3fn"),
        ("on meta", "images are on meta, the model is on cpu"),
        ("numpy", r"How photos become .* isn't known: pass wrap\(model, transform="),
        ("a photo", r"How photos become .* isn't known: pass wrap\(model, transform="),
        ("two", r"Sequential raised TypeError .* on images \(2, 3, 8, 8\)"),
    ],
)
def test_what_is_no_ordinary_tensor_is_named(kind: str, says: str) -> None:
    images = made(kind, torch.rand(2, 3, 8, 8))
    for what in ("predict", "newton"):
        with pytest.raises(InputError, match=says):
            answers(ADAPTERS["conv"], what, images)


@pytest.mark.parametrize("what", ["predict", "clamp", "auto", "residual"])
def test_logits_that_overflow_are_named(what: str) -> None:
    images = torch.rand(3, 3, 16, 16)
    images[1] *= 3e38
    with pytest.raises(FeedbackAdapterError, match=r"image 1 (are NaN or infinite|is nan)"):
        answers(ADAPTERS["conv"], what, images)


def test_a_logit_of_minus_infinity_is_a_class_that_cannot_be() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) + torch.tensor([0, 0, 0, -torch.inf])

    adapter = fa.wrap(Masked().eval(), LABELS, "multiclass")
    assert adapter.predict(torch.rand(2, 5)).softmax(1)[:, 3].tolist() == [0, 0]


def test_results_are_those_of_float32_however_the_images_lie_in_memory() -> None:
    x, adapter = torch.rand(2, 3, 8, 8), ADAPTERS["conv"]
    right = answers(adapter, "newton", x)
    for kind in ("a tuple", "keywords", "channels last", "with gradient", "a parameter"):
        for found, value in zip(answers(adapter, "newton", KINDS[kind](x)), right, strict=True):
            torch.testing.assert_close(found, value, rtol=1e-5, atol=1e-5)
    whole = np.ascontiguousarray(np.arange(16).reshape(2, 8))
    assert answers(ADAPTERS["words"], "newton", torch.from_numpy(whole))[0].shape == (2, 4)
