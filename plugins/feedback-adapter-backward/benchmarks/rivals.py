"""The other ways to find the plane, with thresholds chosen on training scenes."""

from collections.abc import Callable
from pathlib import Path

import torch
from drawn import KINDS, PLANE, SEEDS, draw
from methods import best_threshold, maps, otsu
from safetensors.torch import load_file
from torch import Tensor

from assemble import backbone  # isort: skip  (drawn adds recipes/training to the path)
from backbone import TOP  # isort: skip
from reference import ByPicture  # isort: skip
from scenes import Objects  # isort: skip

TRAINING_SCENES = 24  # of each kind
FEWER = 8  # of each kind, for the published model's cut


def best_cut(model: ByPicture, objects: Objects, photographs: Tensor) -> float:
    """The value of the expected picture above which masks fit best, on training scenes."""
    found, true = [], []
    for kind in KINDS:
        if kind == "two":
            continue
        drawn = draw(kind, FEWER, objects, photographs, SEEDS["train"])
        instances = model.backward(drawn.images, ["plane"])
        found += [one.picture.amax(0) for one in instances]
        true += list(drawn.seen[:, 0])
    return best_threshold(torch.stack(found), torch.stack(true))


def others(
    models: Path, net: torch.nn.Sequential, objects: Objects, photographs: Tensor
) -> dict[str, Callable[[Tensor], Tensor]]:
    """Each other method as a function from an image to a mask, thresholds from training scenes."""
    trunk, heads = backbone(load_file(models / "models.safetensors"))

    def mask_head(images: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.sigmoid(heads.mask(TOP, trunk(images)[0][TOP])[:, PLANE])

    training = [
        draw(kind, TRAINING_SCENES, objects, photographs, SEEDS["train"])
        for kind in KINDS
        if kind != "two"
    ]
    images = torch.cat([drawn.images for drawn in training])
    true = torch.cat([drawn.seen[:, 0] for drawn in training])
    found = {}
    for name, method in maps(net, mask_head, PLANE).items():
        cut = best_threshold(method(images), true)
        print(f"{name}: threshold {cut:.2f}", flush=True)
        found[name] = lambda image, method=method, cut=cut: method(image[None])[0] > cut
    return found | {"otsu": otsu}
