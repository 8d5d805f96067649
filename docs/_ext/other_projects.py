"""Links to the documentation of torch, timm, captum, numpy, Pillow and Python.

Sphinx reads where a name is described from an inventory that each project publishes. Building must
not need a network, so there is a small inventory of the names that are used here. With
FEEDBACK_ADAPTER_DOCS_ONLINE=1 the published inventories are read first.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

_ABC = "library/collections.abc.html#collections.abc"
PROJECTS: dict[str, tuple[str, dict[str, str]]] = {
    "torch": (
        "https://docs.pytorch.org/docs/stable/",
        {
            "torch.Tensor": "tensors.html#torch.Tensor",
            "torch.device": "tensor_attributes.html#torch.device",
            "torch.dtype": "tensor_attributes.html#torch.dtype",
            "torch.nn.Module": "generated/torch.nn.Module.html#torch.nn.Module",
            "torch.nn.modules.module.Module": "generated/torch.nn.Module.html#torch.nn.Module",
        },
    ),
    "timm": (
        "https://huggingface.co/docs/timm/",
        {"timm.create_model": "reference/models#timm.create_model"},
    ),
    "captum": (
        "https://captum.ai/api/",
        {
            "captum.attr.LayerGradCam": "layer.html",
            "captum.attr.ShapleyValues": "genindex.html",
            "captum.attr.ShapleyValueSampling": "genindex.html",
        },
    ),
    "numpy": (
        "https://numpy.org/doc/stable/",
        {"numpy.ndarray": "reference/generated/numpy.ndarray.html#numpy.ndarray"},
    ),
    "pillow": (
        "https://pillow.readthedocs.io/en/stable/",
        {"PIL.Image.Image": "reference/Image.html#PIL.Image.Image"},
    ),
    "python": (
        "https://docs.python.org/3/",
        {
            "os.PathLike": "library/os.html#os.PathLike",
            "pathlib.Path": "library/pathlib.html#pathlib.Path",
            **{
                f"collections.abc.{name}": f"{_ABC}.{name}"
                for name in ("Callable", "Generator", "Iterable", "Iterator", "Mapping", "Sequence")
            },
        },
    ),
}
_FUNCTIONS = {"timm.create_model"}


def mapping(folder: Path) -> dict[str, tuple[str, tuple[str | None, ...]]]:
    """What `intersphinx_mapping` takes; the inventories are written to the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    online = (None,) if os.environ.get("FEEDBACK_ADAPTER_DOCS_ONLINE") == "1" else ()
    found: dict[str, tuple[str, tuple[str | None, ...]]] = {}
    for project, (address, names) in PROJECTS.items():
        path = folder / f"{project}.inv"
        path.write_bytes(inventory(project, names))
        found[project] = (address, (*online, str(path)))
    return found


def inventory(project: str, names: dict[str, str]) -> bytes:
    """An inventory in Sphinx's format, version 2."""
    head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n"
    head += "# The remainder of this file is compressed using zlib.\n"
    lines = [
        f"{name} py:{'function' if name in _FUNCTIONS else 'class'} 1 {place} -\n"
        for name, place in names.items()
    ]
    return head.encode() + zlib.compress("".join(lines).encode())
