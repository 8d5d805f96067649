"""What is packed is read again as it was."""

import numpy as np
import pytest
import torch
from PIL import Image

from feedback_adapter.errors import InputError

pack = pytest.importorskip("pack")
packed = pytest.importorskip("packed")


def noise(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_frames_come_back_at_half_their_size_with_their_masks(tmp_path):
    for number, split in enumerate(("train", "val", "test")):
        for folder in (split, f"{split}annot"):
            (tmp_path / folder).mkdir()
        for name in ("a.png", "b.png"):
            smooth = Image.fromarray(noise(number, 6, 8, 3)).resize((480, 360))
            smooth.save(tmp_path / split / name)
            mask = noise(number, 360, 480) % 12
            Image.fromarray(mask).save(tmp_path / f"{split}annot" / name)
    pack.camvid(tmp_path, tmp_path / "out")
    images, masks = packed.camvid(tmp_path / "out", "val")
    assert images.shape == (2, 3, 180, 240)
    expected = np.asarray(Image.fromarray(noise(1, 6, 8, 3)).resize((480, 360)).resize((240, 180)))
    off = images[0].permute(1, 2, 0).float() - torch.tensor(expected.astype(np.float32))
    assert off.abs().mean() < 2
    assert torch.equal(masks[1], torch.from_numpy((noise(1, 360, 480) % 12)[::2, ::2]))


def test_photos_come_back_with_their_labels(tmp_path):
    for split in ("train", "test"):
        for name in ("airplane", "truck"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(noise(len(name), 32, 32, 3)).save(tmp_path / split / name / "1.png")
    pack.cifar10(tmp_path, tmp_path / "out")
    images, labels = packed.cifar10(tmp_path / "out", "test")
    assert labels.tolist() == [0, 1]
    assert torch.equal(images[1].permute(1, 2, 0), torch.from_numpy(noise(5, 32, 32, 3)))


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match=r"pack\.py camvid"):
        packed.camvid(tmp_path, "val")
    (tmp_path / "train").mkdir()
    with pytest.raises(InputError, match=r"no \*\.png in .*train"):
        pack.camvid(tmp_path, tmp_path)
