"""Read AC3D model files into triangles.

The format is plain text: materials, then a tree of objects, each with its own rotation,
translation, texture, vertices and polygons. Reference: the AC3D file format,
https://www.inivis.com/ac3d/man/ac3dfileformat.html.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Parts that are drawn only by day or night or while something happens: they hide the body.
NOT_BODY = re.compile(
    r"light|flash|beacon|strobe|contrail|smoke|shadow|disc|disk|blur|prop.?fast|halo|glow"
    r"|vapor|flame|burner|exhaust.?fx|pilot|wake|cone|bomb|tracer|rope|chute",
    re.IGNORECASE,
)
TRANSPARENT = 0.7  # materials above this are windows and glows
FEWEST_OPAQUE = 20  # below this number of opaque triangles, the transparent ones are kept too


@dataclass(frozen=True)
class Mesh:
    """Triangles of one model.

    Attributes:
        corners: (n, 3, 3), in the model's own unit of length.
        uv: (n, 3, 2), texture coordinates.
        colours: (n, 3), from 0 to 1, the material's colour.
        texture: (n,), index into `textures`, or -1.
        textures: File names without folders.
    """

    corners: np.ndarray
    uv: np.ndarray
    colours: np.ndarray
    texture: np.ndarray
    textures: tuple[str, ...]


class _Reader:
    def __init__(self, lines: list[str]):
        self.lines, self.at = lines, 0
        self.materials: list[list[float]] = []
        self.textures: dict[str, int] = {}
        self.triangles: list[tuple[np.ndarray, list, int, int]] = []

    def next(self) -> list[str]:
        self.at += 1
        return self.lines[self.at - 1].split()

    def rows(self, count: int) -> list[list[str]]:
        return [self.next() for _ in range(count)]

    def seek(self, word: str) -> list[str]:
        while (words := self.next())[:1] != [word]:
            pass
        return words

    def read(self) -> None:
        while self.at < len(self.lines):
            line = self.lines[self.at]
            if line.startswith("MATERIAL"):
                self.materials.append(_material(line))
            self.at += 1
            if line.startswith("OBJECT"):
                self.object(np.eye(3), np.zeros(3), skip=False)

    def object(self, rotation: np.ndarray, move: np.ndarray, skip: bool) -> None:
        texture, repeat, offset = -1, np.ones(2), np.zeros(2)
        points = np.zeros((0, 3))
        while self.at < len(self.lines):
            words = self.next()
            match words[:1]:
                case ["name"]:
                    skip = skip or bool(NOT_BODY.search(" ".join(words[1:])))
                case ["data"]:
                    self.at += 1
                case ["texture"]:
                    path = " ".join(words[1:]).strip('"').replace("\\", "/")
                    texture = self.textures.setdefault(Path(path).name, len(self.textures))
                case ["texrep"]:
                    repeat = np.array(words[1:3], float)
                case ["texoff"]:
                    offset = np.array(words[1:3], float)
                case ["rot"]:
                    rotation = rotation @ np.array(words[1:10], float).reshape(3, 3).T
                case ["loc"]:
                    move = move + rotation @ np.array(words[1:4], float)
                case ["numvert"]:
                    rows = self.rows(int(words[1]))
                    points = np.array([row[:3] for row in rows], float).reshape(-1, 3)
                    points = points @ rotation.T + move
                case ["numsurf"]:
                    for _ in range(int(words[1])):
                        self.polygon(points, texture, repeat, offset, skip)
                case ["kids"]:
                    for _ in range(int(words[1])):
                        self.seek("OBJECT")
                        self.object(rotation, move, skip)
                    return

    def polygon(self, points, texture, repeat, offset, skip: bool) -> None:
        is_line = int(self.seek("SURF")[1], 16) & 15 != 0
        material = 0
        while (words := self.next())[:1] != ["refs"]:
            if words[:1] == ["mat"]:
                material = int(words[1])
        refs = self.rows(int(words[1]))
        if skip or is_line:
            return
        index = [int(ref[0]) for ref in refs]
        uv = np.array([ref[1:3] for ref in refs], float).reshape(-1, 2) * repeat + offset
        for i in range(1, len(index) - 1):  # a fan: AC3D's polygons are convex
            fan = [0, i, i + 1]
            corners = points[[index[j] for j in fan]]
            self.triangles.append((corners, uv[fan], material, texture))


def _material(line: str) -> list[float]:
    colour = re.search(r"rgb\s+(\S+)\s+(\S+)\s+(\S+)", line)
    trans = re.search(r"trans\s+(\S+)", line)
    rgb = [float(colour[i]) for i in (1, 2, 3)] if colour else [0.7, 0.7, 0.7]
    return [*rgb, float(trans[1]) if trans else 0.0]


def read(path: Path) -> Mesh | None:
    """Read one file; None if it has no polygons.

    Raises:
        ValueError, IndexError: The file isn't AC3D, or is damaged.
    """
    reader = _Reader(path.read_text("latin1").split("\n"))
    reader.read()
    if not reader.triangles:
        return None
    corners, uv, material, texture = zip(*reader.triangles, strict=True)
    materials = np.array(reader.materials or [[0.7, 0.7, 0.7, 0.0]])
    material = np.clip(material, 0, len(materials) - 1)
    keep = materials[material, 3] < TRANSPARENT
    if keep.sum() < FEWEST_OPAQUE:
        keep[:] = True
    return Mesh(
        np.array(corners, np.float32)[keep],
        np.array(uv, np.float32)[keep],
        materials[material, :3].astype(np.float32)[keep],
        np.array(texture, np.int32)[keep],
        tuple(reader.textures),
    )
