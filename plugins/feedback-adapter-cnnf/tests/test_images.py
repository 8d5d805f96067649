"""Reading the images that nets are attacked on."""

import io

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
