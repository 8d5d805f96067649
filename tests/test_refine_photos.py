"""Photos go where images go, if the adapter knows how the model takes them."""

import numpy as np
import pytest
import torch
from PIL import Image

import feedback_adapter as fa
from feedback_adapter.errors import InputError
from feedback_adapter.testing import TinyNet

TOLD = fa.Labels({"a": 1})


def adapter(**more):
    torch.manual_seed(0)
    return fa.wrap(TinyNet(), labels=list("abcd"), **more)


@pytest.fixture
def ours():
    return adapter(transform=fa.Transform(size=(32, 32)))


@pytest.fixture
def photo():
    pixels = np.random.default_rng(0).integers(0, 255, (48, 40, 3), np.uint8)
    return Image.fromarray(pixels)


def test_a_photo_in_every_form_gives_what_its_tensor_gives(ours, photo, tmp_path):
    photo.save(tmp_path / "photo.png")
    want = ours.refine(ours.transform.open(photo), TOLD)
    pixels = np.asarray(photo)
    tensor = torch.tensor(pixels).permute(2, 0, 1)
    file = tmp_path / "photo.png"
    for given in (photo, str(file), file, pixels, tensor, [photo], (file,), pixels[None]):
        assert torch.equal(ours.refine(given, TOLD).after, want.after)
        assert torch.equal(ours.predict(given), want.before)
    several = ours.refine([photo, file, pixels], TOLD)
    torch.testing.assert_close(several.after, want.after.expand(3, -1))
    prepared = ours.prepare(tensor.expand(2, -1, -1, -1), pivots="block")
    assert prepared.batch == 2


def test_what_isnt_a_photo_is_passed_on(ours):
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(ours.predict((images,)), ours.predict(images))
    with pytest.raises(InputError, match=r"pass a tensor \(batch"):
        ours.predict([])
    with pytest.raises(InputError, match="The array is float64"):
        ours.predict(np.zeros((8, 8, 3)))
    with pytest.raises(InputError, match="There is no image 'nowhere.jpg'"):
        ours.predict("nowhere.jpg")


def test_photos_without_a_transform_are_refused_by_name(photo):
    with pytest.raises(InputError, match=r"wrap\(model, transform=...\)"):
        adapter().refine([photo], TOLD)


def test_photos_and_prepared_batches_go_wherever_images_go():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2), torch.nn.ReLU(), torch.nn.Flatten())
    model.append(torch.nn.Linear(8 * 9, 3))
    adapter = fa.wrap(model, labels=list("abc"), transform=fa.Transform(size=(8, 8)))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 12, 12, 3), dtype=np.uint8)
    photos = [Image.fromarray(photo) for photo in pixels]
    images = torch.stack([adapter.transform(photo) for photo in photos])
    told = fa.Labels([{"a": 1, "b": 0}, {"a": 0, "c": 1}, {"b": 1, "c": 0}, {"a": 1, "c": 1}])
    truth = torch.tensor([[1, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 1]])
    uses = (
        lambda given: adapter.choose_pivots(given, told, steps=2).trials,
        lambda given: adapter.calibrate(given, truth),
        lambda given: fa.estimate_wrong(adapter, given, told),
    )
    for use in uses:
        expected = use(images)
        assert use(photos) == expected
        assert use(adapter.prepare(images)) == expected
    for use in (adapter.choose_pivots, lambda x, y: fa.estimate_wrong(adapter, x, y)):
        with pytest.raises(fa.errors.EvidenceError, match="evidence is a dict: pass evidence"):
            use(images, {"a": 1})
