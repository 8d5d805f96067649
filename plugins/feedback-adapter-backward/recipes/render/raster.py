"""A z-buffer: triangles to a picture with alpha (orthographic, textures, 2 x 2 samples)."""

from dataclasses import dataclass

import numba
import numpy as np
from ac3d import Mesh

AMBIENT = 0.45  # share of the light that has no direction
FILL = 0.94  # the longer side of the object's box, as a share of the canvas


@dataclass(frozen=True)
class Textures:
    """Pictures of one model, end to end: `texels` (n, 4) from 0 to 1, and where each one is."""

    texels: np.ndarray
    start: np.ndarray
    height: np.ndarray
    width: np.ndarray

    @classmethod
    def pack(cls, pictures: list[np.ndarray]) -> "Textures":
        """Pack (height, width, 4) pictures; an empty list makes one white texel."""
        pictures = pictures or [np.ones((1, 1, 4), np.float32)]
        sizes = np.array([p.shape[0] * p.shape[1] for p in pictures])
        return cls(
            np.concatenate([p.reshape(-1, 4) for p in pictures]),
            np.concatenate([[0], np.cumsum(sizes)[:-1]]),
            np.array([p.shape[0] for p in pictures]),
            np.array([p.shape[1] for p in pictures]),
        )


def turn(yaw: float, elevation: float, roll: float) -> np.ndarray:
    """The (3, 3) rotation of a view; angles in radians."""
    (cy, ce, cr), (sy, se, sr) = np.cos([yaw, elevation, roll]), np.sin([yaw, elevation, roll])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, ce, -se], [0, se, ce]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_z @ about_x @ about_y


def render(mesh: Mesh, textures: Textures, view: np.ndarray, light: np.ndarray, size: int):
    """Draw one view.

    Args:
        mesh: Its `texture` indexes `textures`; -1 is plain colour.
        textures: The pictures.
        view: (3, 3), a rotation.
        light: (3,), the unit vector towards the light; both sides of a triangle are lit.
        size: Side of the square picture in pixels.

    Returns:
        (size, size, 4) of uint8, red, green, blue (not multiplied by alpha) and alpha.
    """
    points = mesh.corners @ view.T.astype(np.float32)
    low, high = points.reshape(-1, 3).min(0), points.reshape(-1, 3).max(0)
    fine = 2 * size
    scale = fine * FILL / max(high[0] - low[0], high[1] - low[1])
    middle = (low + high) / 2
    points = (points - middle) * np.array([scale, -scale, scale], np.float32)
    points[..., :2] += fine / 2
    normals = np.cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
    normals[:, 1] *= -1
    shade = AMBIENT + (1 - AMBIENT) * np.abs(normals @ light.astype(np.float32))
    colours = (mesh.colours * shade[:, None]).astype(np.float32)
    t = textures
    picture = _fill(
        points.astype(np.float32), mesh.uv, colours, mesh.texture,
        t.texels, t.start, t.height, t.width, fine,
    )  # fmt: skip
    picture = picture.reshape(size, 2, size, 2, 4).sum((1, 3))
    picture[..., :3] /= np.maximum(picture[..., 3:], 1)
    picture[..., 3] /= 4
    return np.round(picture * 255).astype(np.uint8)


@numba.njit(cache=True, fastmath=True)
def _fill(points, uv, colours, texture, texels, start, height, width, size):
    picture = np.zeros((size, size, 4), np.float32)
    depth = np.full((size, size), -1e9, np.float32)
    for i in range(points.shape[0]):
        x0, y0, z0 = points[i, 0]
        x1, y1, z1 = points[i, 1]
        x2, y2, z2 = points[i, 2]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if abs(area) < 1e-9:
            continue
        left, right = max(0, int(min(x0, x1, x2))), min(size - 1, int(max(x0, x1, x2)) + 1)
        top, bottom = max(0, int(min(y0, y1, y2))), min(size - 1, int(max(y0, y1, y2)) + 1)
        t = texture[i]
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                px, py = x + 0.5, y + 0.5
                b1 = ((px - x0) * (y2 - y0) - (x2 - x0) * (py - y0)) / area
                b2 = ((x1 - x0) * (py - y0) - (px - x0) * (y1 - y0)) / area
                b0 = 1 - b1 - b2
                if b0 < -1e-4 or b1 < -1e-4 or b2 < -1e-4:
                    continue
                z = b0 * z0 + b1 * z1 + b2 * z2
                if z <= depth[y, x]:
                    continue
                red, green, blue = colours[i]
                if t >= 0:
                    u = b0 * uv[i, 0, 0] + b1 * uv[i, 1, 0] + b2 * uv[i, 2, 0]
                    v = b0 * uv[i, 0, 1] + b1 * uv[i, 1, 1] + b2 * uv[i, 2, 1]
                    row = min(height[t] - 1, int((1 - (v - np.floor(v))) * height[t]))
                    column = min(width[t] - 1, int((u - np.floor(u)) * width[t]))
                    texel = texels[start[t] + row * width[t] + column]
                    if texel[3] < 0.5:
                        continue
                    red, green, blue = red * texel[0], green * texel[1], blue * texel[2]
                depth[y, x] = z
                picture[y, x, 0] = min(1.0, red)
                picture[y, x, 1] = min(1.0, green)
                picture[y, x, 2] = min(1.0, blue)
                picture[y, x, 3] = 1
    return picture
