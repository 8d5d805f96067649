"""From photos to a model's input: numbers, batches, and transforms of other libraries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision.transforms as v1
import torchvision.transforms.v2 as v2
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import feedback_adapter as fa
from feedback_adapter.errors import InputError, ModelError, OptionsError, PhotosError
from feedback_adapter.transform import CallableTransform

PHOTO = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
TRANSFORM = fa.Transform((6, 8), "bilinear", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def test_the_input_is_resized_and_normalised(tmp_path: Path) -> None:
    small = Image.fromarray(PHOTO).resize((8, 6), Image.Resampling.BILINEAR)
    right = (np.asarray(small) / 255 - (0.5, 0.4, 0.3)) / (0.2, 0.3, 0.4)
    Image.fromarray(PHOTO).save(tmp_path / "x.png")
    for photo in (tmp_path / "x.png", PHOTO, torch.from_numpy(PHOTO).permute(2, 0, 1)):
        found = TRANSFORM.open(photo)
        np.testing.assert_allclose(found[0].permute(1, 2, 0), right, atol=1e-6)
    np.testing.assert_allclose(TRANSFORM.picture(found)[0].permute(1, 2, 0) * 255, small, atol=1e-3)


def test_batches_read_everything_but_the_bad_ones_and_say_so_at_the_end(tmp_path: Path) -> None:
    photos = [PHOTO + np.uint8(i) for i in range(5)]
    files: list[object] = [*photos[:2], tmp_path / "absent.png", *photos[2:], PHOTO.astype(float)]
    found = {}

    def go_through() -> None:
        for rows, images in TRANSFORM.batches(iter(files), 2):
            assert 1 <= len(rows) == len(images) <= 2
            found.update(zip(rows, images, strict=True))

    with pytest.raises(PhotosError) as caught:
        go_through()
    assert sorted(found) == [0, 1, 3, 4, 5]
    assert all(torch.equal(found[row], TRANSFORM(files[row])) for row in found)
    assert list(caught.value.unread) == [2, 6]
    assert "2 photos can't be read. Photo 2: There is no image" in str(caught.value)
    assert isinstance(caught.value, InputError)
    assert [rows for rows, _ in TRANSFORM.batches(photos, 3)] == [[0, 1, 2], [3, 4]]


def test_batches_read_no_photo_before_its_turn() -> None:
    read = []
    photos = (read.append(i) or PHOTO for i in range(10**9))
    next(TRANSFORM.batches(photos, 3))
    assert read == [0, 1, 2]


@pytest.mark.parametrize("size", [0, -1, 1.5, "2", None])
def test_a_size_of_batches_that_is_none(size: object) -> None:
    with pytest.raises(OptionsError, match="size=.* is out of range"):
        list(TRANSFORM.batches([PHOTO], size))


def test_no_photo() -> None:
    with pytest.raises(InputError, match="There is no photo"):
        TRANSFORM.open()


THEIRS = {
    "torchvision v1": v1.Compose([v1.Resize((6, 8)), v1.ToTensor(), v1.Normalize([0.5], [0.5])]),
    "torchvision v2": v2.Compose(
        [v2.ToImage(), v2.Resize((6, 8)), v2.ToDtype(torch.float32, scale=True)]
    ),
    "timm": timm.data.create_transform((3, 6, 8)),
    "a function": lambda photo: torch.zeros(3, 6, 8) + photo.width,
}


@pytest.mark.parametrize("name", THEIRS)
def test_transforms_of_others_are_used_as_they_are(name: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 3)).eval()
    adapter = fa.wrap(model, ["a", "b", "c"], transform=THEIRS[name])
    assert adapter.transform.size == (6, 8)
    photo = Image.fromarray(PHOTO)
    photo.save(tmp_path / "x.png")
    images = adapter.transform.open(tmp_path / "x.png")
    assert type(images) is torch.Tensor
    assert torch.equal(images[0], torch.as_tensor(THEIRS[name](photo)))
    result = adapter.refine(images, fa.Labels({"a": 1}), strategy="residual", pivots="0")
    result.plot(tmp_path / "picture.png")
    with pytest.raises(fa.FeedbackAdapterError, match="CallableTransform, which a checkpoint"):
        adapter.save(tmp_path / "saved")


@pytest.mark.parametrize(
    ("transform", "says"),
    [
        (v1.Resize(8), "returned a Image: it must return a tensor of floating-point"),
        (v1.Compose([v1.Resize(8), v1.PILToTensor()]), r"returned uint8 of shape \(3, 8, 10\)"),
        (np.asarray, "returned a ndarray"),
        (lambda photo: torch.as_tensor(np.array(photo)) / 255, r"shape \(480, 640, 3\)"),
        (lambda photo: torch.zeros(1, 3, 4, 4), r"shape \(1, 3, 4, 4\)"),
        (lambda photo: torch.full((3, 4, 4), torch.nan), "NaN or inf"),
        (lambda photo: {"pixel_values": torch.zeros(1, 3, 4, 4)}, "returned a dict"),
        (lambda *, image: image, "failed on a photo of 640 x 480 pixels: TypeError"),
        (v1.ToTensor, "pass a feedback_adapter.Transform, or a function"),
        ("resize", "transform='resize' can't be used"),
        (5, "transform=5 can't be used"),
        ({"size": (6, 8)}, "can't be used"),
    ],
)
def test_a_transform_that_cannot_be_used_is_refused_by_wrap(transform: object, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        fa.wrap(nn.Linear(3, 2), ["a", "b"], transform=transform)


def test_a_transform_that_fails_later_or_makes_different_sizes_is_named() -> None:
    def picky(photo: Image.Image) -> torch.Tensor:
        if photo.width < 50:
            raise KeyError("too narrow")
        return torch.zeros(3, photo.height, photo.width)

    transform = fa.wrap(nn.Linear(3, 2), ["a", "b"], transform=picky).transform
    assert isinstance(transform, CallableTransform)
    with pytest.raises(InputError, match="failed on a photo of 40 x 30 pixels: KeyError"):
        transform.open(PHOTO)
    wide, high = np.zeros((60, 90), np.uint8), np.zeros((90, 60), np.uint8)
    with pytest.raises(InputError, match=r"different shapes, \[\(3, 60, 90\), \(3, 90, 60\)\]"):
        transform.open(wide, high)
    assert [rows for rows, _ in transform.batches([wide, high, wide], 8)] == [[0, 2], [1]]


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3),
    st.just(10**400), st.just(1j), st.just(torch.zeros(2)), st.just(np.array([6, 8])),
    st.lists(st.one_of(st.integers(-1, 300), st.floats(), st.text(max_size=2)), max_size=4),
)  # fmt: skip


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(["size", "interpolation", "mean", "std"]), ODD, min_size=1))
def test_any_option_gives_a_finite_input_or_a_named_error(options: dict[str, object]) -> None:
    try:
        transform = fa.Transform(**options)
    except InputError:
        return
    if max(transform.size) <= 512:
        image = transform(PHOTO)
        assert image.shape == (3, *transform.size)
        assert bool(image.isfinite().all())
    assert hash(transform) == hash(fa.Transform(**options))
