"""Photos of every kind become upright RGB, and what isn't a photo is a named error."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from feedback_adapter.errors import InputError
from feedback_adapter.photos import as_rgb, read_photo

RED, WHITE = (255, 0, 0), (255, 255, 255)
RAMP = np.linspace(0, 65535, 256).reshape(16, 16).astype(np.uint16)


def saved(photo: Image.Image, path: Path, **options: object) -> Path:
    photo.save(path, **options)
    return path


def close(found: tuple[int, ...], right: tuple[int, ...], within: int = 3) -> bool:
    return all(abs(f - r) <= within for f, r in zip(found, right, strict=True))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_exif_orientation_is_obeyed(orientation: int, suffix: str, tmp_path: Path) -> None:
    """Stored as an `F`-like pattern that each of the eight orientations shows differently."""
    stored = np.zeros((32, 48, 3), np.uint8)
    stored[:16, :16] = 255
    stored[:16, 16:32, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(Image.fromarray(stored), tmp_path / f"x.{suffix}", exif=exif, quality=100)
    shown = {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1],
        5: stored.swapaxes(0, 1), 6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(stored),
    }[orientation]  # fmt: skip
    found = np.asarray(as_rgb(path)).astype(int)
    assert found.shape == shown.shape
    assert abs(found - shown).mean() < 8
    again = as_rgb(read_photo(path))  # what is upright already isn't turned once more
    assert np.array_equal(np.asarray(again), found)


def test_a_photo_with_broken_exif_data_is_shown_as_it_is(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (4, 2), RED), tmp_path / "x.png", exif=b"Exif\0\0nonsense")
    assert as_rgb(path).getpixel((0, 0)) == RED


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_16_bit_grey_is_scaled(suffix: str, tmp_path: Path) -> None:
    path = saved(Image.fromarray(RAMP), tmp_path / f"x.{suffix}")
    grey = np.asarray(as_rgb(path))[..., 1]
    assert abs(grey.astype(int) - (RAMP / 257).round()).max() <= 1


def test_16_bit_big_endian_and_a_transparent_grey(tmp_path: Path) -> None:
    big = Image.frombytes("I;16B", (16, 16), RAMP.astype(">u2").tobytes())
    assert np.array_equal(np.asarray(as_rgb(big)), np.asarray(as_rgb(RAMP)))
    path = saved(Image.fromarray(RAMP), tmp_path / "x.png", transparency=0)
    assert as_rgb(path).getpixel((0, 0)) == WHITE


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bits_have_no_white_and_are_refused(mode: str, tmp_path: Path) -> None:
    photo = Image.new(mode, (2, 2), 7)
    for what in (photo, saved(photo, tmp_path / "x.tiff")):
        with pytest.raises(InputError, match="32 bits per pixel"):
            as_rgb(what)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa", "La"])
def test_alpha_is_laid_over_white(mode: str) -> None:
    grey = np.zeros((2, 2, 4), np.uint8)
    grey[..., :3], grey[0, 0, 3], grey[1, 1, 3] = 50, 255, 128
    photo = Image.fromarray(grey)
    for step in {"La": ["LA", "La"]}.get(mode, [mode]):
        photo = photo.convert(step)
    found = as_rgb(photo)
    assert close(found.getpixel((0, 0)), (50, 50, 50))
    assert found.getpixel((0, 1)) == WHITE
    assert close(found.getpixel((1, 1)), (152, 152, 152))


def test_a_transparent_colour_is_white(tmp_path: Path) -> None:
    for mode, clear in (("P", 0), ("L", 0), ("RGB", (0, 0, 0)), ("1", 0)):
        path = saved(Image.new(mode, (2, 2)), tmp_path / f"{mode}.png", transparency=clear)
        assert as_rgb(path).getpixel((0, 0)) == WHITE, mode


def test_cmyk_keeps_its_colours(tmp_path: Path) -> None:
    path = saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), tmp_path / "x.jpg", quality=100)
    assert close(as_rgb(path).getpixel((4, 4)), RED)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff"])
def test_of_an_animation_the_first_frame_is_taken(suffix: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), c) for c in (RED, (0, 0, 255))]
    path = saved(frames[0], tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:])
    assert close(as_rgb(path).getpixel((4, 4)), RED, 8)


def test_postscript_is_not_run(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (8, 8), RED), tmp_path / "x.eps")
    with pytest.raises(InputError, match="PostScript is a program"):
        as_rgb(path)


def test_16_bits_are_rounded_to_the_nearest_of_8() -> None:
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(np.asarray(as_rgb(every))[..., 0], (every / 257).round())


def test_one_bit_and_palette_and_ycbcr_photos() -> None:
    assert as_rgb(Image.new("1", (2, 2), 1)).getpixel((0, 0)) == WHITE
    assert as_rgb(Image.new("RGB", (2, 2), RED).convert("P")).getpixel((0, 0)) == RED
    assert close(as_rgb(Image.new("RGB", (2, 2), RED).convert("YCbCr")).getpixel((0, 0)), RED)


def test_arrays_and_tensors_are_photos_too() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    tensor = torch.from_numpy(rgb).permute(2, 0, 1)
    for photo in (rgb, tensor, Image.fromarray(rgb), rgb.astype(np.uint16) * 257, rgb[:, :, ::1]):
        assert np.array_equal(np.asarray(as_rgb(photo)), rgb)
    for grey in (
        rgb[..., 0],
        rgb[..., :1],
        tensor[0],
        tensor[:1],
        tensor[:1].to(torch.uint16) * 257,
    ):
        assert np.array_equal(np.asarray(as_rgb(grey)), rgb[..., :1].repeat(3, 2))
    clear = np.concatenate([rgb, np.zeros((5, 7, 1), np.uint8)], 2)
    assert as_rgb(clear).getpixel((3, 3)) == WHITE
    assert np.array_equal(np.asarray(as_rgb(RAMP.astype(">u2"))), np.asarray(as_rgb(RAMP)))


@pytest.mark.parametrize(
    ("photo", "says"),
    [
        (np.zeros((3, 9, 9), np.uint8), r"array has shape \(3, 9, 9\): .*width\[, channels"),
        (np.zeros((9, 9, 2), np.uint8), "1, 3 or 4 channels"),
        (np.zeros((1, 9, 9, 3), np.uint8), r"shape \(1, 9, 9, 3\): one photo"),
        (np.zeros((0, 9, 3), np.uint8), "shape"),
        (np.zeros((9, 9, 3)), "float64: a photo has whole numbers"),
        (np.zeros((9, 9), bool), "bool: a photo"),
        (np.zeros((9, 9), object), "object: a photo"),
        (torch.zeros(9, 9, 3, dtype=torch.uint8), r"tensor has shape .*\[channels,\] height"),
        (torch.zeros(3, 9, 9), "float32: a photo"),
        (torch.zeros(2, 3, 9, 9, dtype=torch.uint8), "one photo is"),
        (torch.zeros(3, 9, 9, dtype=torch.uint8).to_sparse(), "sparse"),
        (torch.zeros(3, 9, 9, dtype=torch.uint8, device="meta"), "no values"),
        (Image.new("RGB", (0, 5)), "nothing to see"),
        (None, "can't be a NoneType"),
        (b"x.png", "can't be a bytes"),
        (["x.png"], "can't be a list"),
    ],
)  # fmt: skip
def test_wrong_layouts_and_types_are_named(photo: object, says: str) -> None:
    with pytest.raises(InputError, match=says):
        as_rgb(photo)


def test_a_closed_image_is_named(tmp_path: Path) -> None:
    photo = Image.open(saved(Image.new("RGB", (2, 2)), tmp_path / "x.png"))
    photo.close()
    with pytest.raises(InputError, match="The Pillow image can't be read"):
        as_rgb(photo)


def bomb(side: int) -> bytes:
    """A PNG file of a few bytes that says that it is `side` pixels wide and high."""
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def test_files_that_are_no_photos_are_named_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "bomb.png").write_bytes(bomb(20_000))
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    whole = saved(Image.effect_noise((64, 64), 50), tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    for name, says in (
        ("pipe.png", "isn't a regular file"),
        ("bomb.png", "exceeds limit of .* pixels"),
        ("text.png", "not an image that Pillow can read"),
        ("empty.png", "not an image that Pillow can read. Save it as JPEG or PNG."),
        ("cut.png", "can't be read: "),
        ("absent.png", "There is no image"),
        ("", "is a folder"),
        ("nul\0.png", "There is no image"),
        ("long" * 999, "can't be read: .*too long"),
    ):
        with pytest.raises(InputError, match=says) as caught:
            as_rgb(tmp_path / name)
        assert repr(str(tmp_path / name)) in str(caught.value)
    with pytest.raises(InputError, match="isn't a regular file"):
        as_rgb("/dev/zero")


FILES = {
    suffix: (lambda buffer: (Image.effect_noise((24, 16), 80).save(buffer, suffix), buffer)[1])(
        io.BytesIO()
    ).getvalue()
    for suffix in ("png", "jpeg", "gif", "tiff", "bmp", "webp")
}


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.sampled_from(sorted(FILES)),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6),
    st.integers(1, 10**6),
)
def test_damaged_files_give_a_photo_or_a_named_error(
    kind: str, changes: list[tuple[int, int]], length: int
) -> None:
    data = bytearray(FILES[kind])
    for place, value in changes:
        data[place % len(data)] = value
    try:
        photo = read_photo(io.BytesIO(data[: max(length % (2 * len(data)), 8)]), "the file")
    except InputError as error:
        refused = str(error)
    else:
        refused = ""
        assert photo.mode == "RGB"
    assert not refused or refused.startswith("'the file' ")
