"""Maps as small pictures that the page lays over the photo."""

from __future__ import annotations

import base64
import colorsys
import io

import numpy as np
from PIL import Image
from torch import Tensor

from feedback_adapter.outputs import Output

__all__ = ["colour_of", "heat_picture", "map_picture", "seen"]


def colour_of(index: int) -> str:
    """The colour of a label, as `#rrggbb`; neighbours differ by the golden angle."""
    hue, bright = (0.58 + index * 0.381966) % 1, 0.95 if index % 3 else 0.8
    return "#" + "".join(f"{round(255 * c):02x}" for c in colorsys.hsv_to_rgb(hue, 0.8, bright))


def seen(logits: Tensor, spec: Output) -> Tensor:
    """Which labels a model sees at each pixel, (labels, height, width) bool.

    Args:
        logits: (labels, height, width).
        spec: What the output is: where labels exclude each other the likeliest is seen, else each
            that is likelier than not.
    """
    if not spec.one_holds:
        return logits > 0
    return logits.argmax(0, keepdim=True) == logits.new_tensor(range(len(logits))).view(-1, 1, 1)


def map_picture(mask: Tensor) -> str:
    """A picture of which labels are seen, as a `data:` URL; what is seen nowhere is transparent.

    Args:
        mask: (labels, height, width) bool. Of several labels at a pixel the first is drawn.
    """
    some = mask.any(0).numpy()
    number = mask.int().argmax(0).numpy()
    colours = np.array([list(bytes.fromhex(colour_of(i)[1:])) for i in range(len(mask))], np.uint8)
    return _url(np.dstack([colours[number], np.where(some, 255, 0).astype(np.uint8)]))


def heat_picture(change: Tensor) -> str:
    """A picture of how much each place changed, as a `data:` URL: the more, the less transparent.

    Args:
        change: (height, width), at least 0.
    """
    share = (change / change.max().clamp(min=1e-12)).clamp(0, 1).sqrt().numpy()
    pixels = np.zeros((*share.shape, 4), np.uint8)
    pixels[..., 0], pixels[..., 1] = 255, (200 * (1 - share)).astype(np.uint8)
    pixels[..., 3] = (230 * share).astype(np.uint8)
    return _url(pixels)


def _url(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
