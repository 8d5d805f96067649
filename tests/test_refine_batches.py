"""`refine_batches`: one result per batch, read ahead, in memory that doesn't grow."""

import gc
import threading
import time
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

import feedback_adapter as fa
from feedback_adapter.batches import read_ahead
from feedback_adapter.errors import InputError, OptionsError
from feedback_adapter.testing import tiny_adapter, tiny_images


def told(count: int) -> fa.Labels:
    return fa.Labels([{"dog": i % 2} for i in range(count)])


def test_each_batch_gets_the_result_of_refine():
    adapter, images = tiny_adapter(), tiny_images(5)
    source = [(images[:2], told(2)), (images[2:4], told(2)), (images[4:], told(1))]
    results = list(fa.refine_batches(adapter, source, strategy="residual", steps=3))
    assert [len(result) for result in results] == [2, 2, 1]
    for result, (some, evidence) in zip(results, source, strict=True):
        alone = adapter.refine(some, evidence, strategy="residual", steps=3)
        assert torch.equal(result.after, alone.after)
        assert torch.equal(result.losses, alone.losses)


def test_photos_are_opened_by_the_transform(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    pixels = np.random.default_rng(0).integers(0, 255, (40, 20, 3), dtype=np.uint8)
    file = tmp_path / "turned.png"
    Image.fromarray(pixels).save(file, exif=exif)
    adapter = tiny_adapter()
    adapter.transform = fa.Transform(tuple(tiny_images(1).shape[-2:]))
    photos = [file, pixels]
    (result,) = fa.refine_batches(adapter, [(photos, told(2))], strategy="residual", steps=1)
    right = adapter.transform.open(Image.fromarray(np.rot90(pixels, -1).copy()), pixels)
    expected = adapter.refine(right, told(2), strategy="residual", steps=1)
    assert torch.equal(result.after, expected.after)


def test_memory_does_not_grow_with_the_number_of_batches():
    adapter = tiny_adapter()
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most = {}

    def source(count):
        for _ in range(count):
            images = tiny_images(4)
            alive.add(images)
            yield images, told(4)

    for count in (4, 32):
        most[count] = 0
        for _ in fa.refine_batches(adapter, source(count), strategy="residual", steps=1, ahead=2):
            gc.collect()
            most[count] = max(most[count], len(alive))
    assert most[32] <= 5  # this one, two in the queue, one that waits for it, one just made
    assert most[32] <= most[4] + 1


def test_the_next_batches_are_read_while_this_one_is_refined():
    read = []

    def source():
        for number in range(6):
            read.append(number)
            yield number

    items = read_ahead(source(), ahead=2)
    assert next(items) == 0
    deadline = time.monotonic() + 10
    while len(read) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert read == [0, 1, 2, 3]  # 1 and 2 wait to be asked for, 3 waits for a place
    assert list(items) == [1, 2, 3, 4, 5]


def test_an_error_comes_after_what_was_before_it_and_no_thread_is_left():
    def source():
        yield tiny_images(1), told(1)
        raise InputError("the disk is gone")

    results = fa.refine_batches(tiny_adapter(), source(), strategy="residual", steps=1)
    assert len(next(results)) == 1
    with pytest.raises(InputError, match="the disk is gone"):
        next(results)
    endless = read_ahead(iter(int, 1))
    assert next(endless) == 0
    endless.close()
    assert not [t for t in threading.enumerate() if t.name == "read_ahead"]


def test_what_cannot_be_is_said():
    adapter = tiny_adapter()
    adapter.transform = None
    with pytest.raises(InputError, match="How photos become the model's input isn't known"):
        list(fa.refine_batches(adapter, [(["a.jpg"], told(1))]))
    for source in (5, [tiny_images(1)], [(tiny_images(1), told(1), 1)]):
        with pytest.raises(InputError, match="source .* must give pairs"):
            list(fa.refine_batches(adapter, source))
    with pytest.raises(OptionsError, match="ahead=0 is out of range"):
        list(fa.refine_batches(adapter, [], ahead=0))
