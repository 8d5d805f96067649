"""Reading the images that nets are attacked on."""

import gzip
import io
import os

import numpy as np
import pytest
import torch
from PIL import Image

from fa_cnnf.data import cifar10, read, to_input
from feedback_adapter.errors import InputError


def test_packed_cifar10(tmp_path):
    grey = [0, 128, 255]
    files = []
    for value in grey:
        file = io.BytesIO()
        Image.new("RGB", (32, 32), (value,) * 3).save(file, "JPEG", quality=75)
        files.append(file.getvalue())
    parts = {
        "test_jpeg": np.frombuffer(b"".join(files), np.uint8),
        "test_offset": np.cumsum([0, *map(len, files)]),
        "test_label": np.array([3, 0, 9], np.uint8),
    }
    np.savez(tmp_path / cifar10.PACKED, **parts)
    images, labels = read("cifar10", tmp_path)
    assert images.shape == (3, 3, 32, 32)
    assert images.dtype == torch.uint8
    assert images[:, 0, 5, 5].tolist() == grey
    assert labels.tolist() == [3, 0, 9]
    assert to_input(images)[:, 0, 0, 0].tolist() == pytest.approx([-1, 1 / 255, 1], abs=1e-6)


@pytest.mark.parametrize(
    ("source", "folder", "split", "what"),
    [
        ("cifar10", None, "test", "Say where 'cifar10' is"),
        ("cifar10", ".", "test", "holds neither cifar10_jpeg.npz nor CIFAR-10"),
        ("cifar10", ".", "dev", "split='dev' is not possible"),
        ("cifar", None, "test", "There are no images 'cifar'. Did you mean 'cifar10'"),
    ],
)
def test_what_can_not_be_read_is_named(tmp_path, source, folder, split, what):
    with pytest.raises(InputError, match=what):
        read(source, folder and tmp_path / folder, split)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"test_label": None}, "test_label"),
        ({"test_label": np.array([3, 0])}, "2,. labels"),
        ({"test_label": np.array([3, 0, 10])}, "can't be read"),
        ({"test_offset": np.array([0, 5, 9, 11])}, "'a photo' is not an image"),
        ({"test_label": np.array([None] * 3)}, "allow_pickle"),
    ],
)
def test_broken_packed_cifar10_is_named(tmp_path, change, says):
    file = io.BytesIO()
    Image.new("RGB", (32, 32)).save(file, "JPEG")
    raw = np.frombuffer(file.getvalue() * 3, np.uint8)
    content = {
        "test_jpeg": raw,
        "test_offset": np.arange(4) * (len(raw) // 3),
        "test_label": np.array([3, 0, 9], np.uint8),
    } | change
    np.savez(tmp_path / cifar10.PACKED, **{k: v for k, v in content.items() if v is not None})
    with pytest.raises(InputError, match=f"cifar10_jpeg.npz.*{says}"):
        read("cifar10", tmp_path)


def test_broken_fashion_mnist_is_named(tmp_path):
    images = tmp_path / "t10k-images-idx3-ubyte"
    labels = tmp_path / "t10k-labels-idx1-ubyte"
    os.mkfifo(images)
    with pytest.raises(InputError, match="no regular file"):
        read("fashion", tmp_path)
    images.unlink()
    images.write_bytes(
        bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (2, 2, 2)) + bytes(8)
    )
    labels.write_bytes(bytes([0, 0, 8, 1]) + (3).to_bytes(4, "big") + bytes(3))
    with pytest.raises(InputError, match="2 images, but 3 labels"):
        read("fashion", tmp_path)
    labels.write_bytes(images.read_bytes())
    with pytest.raises(InputError, match="3 dimensions, not 1"):
        read("fashion", tmp_path)
    packed = gzip.compress(bytes(100))
    (tmp_path / f"{labels.name}.gz").write_bytes(packed[:12] + b"xx" + packed[14:])
    with pytest.raises(InputError, match=labels.name):
        read("fashion", tmp_path)
