"""Fit the model as published to the same backbone: `python reference.py --help`.

Its templates are those of the gated model (each mean times its gate); thresholds, noise and
decoders are fitted as the paper says, to training scenes of planes in their own frames.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch
from backgrounds import Backgrounds, dead_leaves, noise
from data import from_arrays
from examples import Sampler
from safetensors.torch import load_file, save_file
from scenes import Pose, place
from torch import Tensor

import feedback_adapter as fa
from fa_backward import GenerativeModel, Published

PLANE = 0


class ByPicture(GenerativeModel):
    """The published model; its mask is where the expected picture is above `cut`.

    The paper has no mask. Where f_td is above lambda would be one, but single convolutions
    predict blurred pictures, and hardly a pixel of them reaches the lambda of the image.
    """

    cut = 0.0

    def _instance(self, image, prior, place):
        found = super()._instance(image, prior, place)
        mask = (found.picture.amax(0) > self.cut).float()
        return replace(found, mask=mask, amodal=mask)


def reference(model: GenerativeModel, path: Path, cut: float = 0.0) -> ByPicture:
    """The published model with parameters that this recipe wrote: one pass down, as published."""
    net = _empty(model)
    net.load_state_dict(load_file(path), strict=False)
    options = replace(model.options, piece=False, guided=False, fine=0)
    made = ByPicture(model.network, net, options)
    made.cut = cut
    return made


def _empty(model: GenerativeModel) -> Published:
    """The published model with the gated one's scales and templates."""
    own = model.activations
    net = Published(own.shapes, own.categories, templates=len(own.templates.category))
    for mine, theirs in zip(net.observations, own.observations, strict=True):
        mine.load_state_dict(theirs.state_dict())
    net.templates.load_state_dict(own.templates.state_dict())
    net.templates.mean.mul_(torch.sigmoid(own.templates.logit))
    return net


@torch.no_grad()
def examples(model: GenerativeModel, objects: Path, count: int):
    """Activations of planes in scenes and alone, by level, and each one's nearest template."""
    g = torch.Generator().manual_seed(0)
    bank = torch.cat([dead_leaves(32, g), noise(32, g)])
    sampler = Sampler(from_arrays(objects, "train", "cpu"), Backgrounds(bank), g)
    index = sampler.members[PLANE][torch.randperm(len(sampler.members[PLANE]), generator=g)[:count]]
    layer = place(sampler.objects.pictures[index], Pose.canonical(count, "cpu"))
    scenes = sampler.around(layer, torch.full((count,), PLANE))
    network, own = model.network, model.activations
    found, alone = (own.normalise(network(x)) for x in (scenes.images, scenes.alone))
    return found, alone


@torch.no_grad()
def nearest(net: Published, top: Tensor) -> Tensor:
    """For each object the plane template that is nearest to its activations."""
    means = net.templates.mean.float().flatten(1)
    distance = torch.cdist(top.flatten(1), means)
    distance[:, net.templates.category != PLANE] = torch.inf
    return distance.argmin(1)


def main() -> None:
    """Fit and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="planes-backward")
    parser.add_argument("--objects", type=Path, required=True)
    parser.add_argument("--count", type=int, default=96, help="planes")
    parser.add_argument("--rounds", type=int, default=6, help="of EM, at each level")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    begin = time.monotonic()
    torch.manual_seed(0)
    model = fa.load(options.checkpoint).model.generative()
    found, alone = examples(model, options.objects, options.count)
    net = _empty(model)
    for level in range(len(net.names)):
        likelihoods = net.fit_thresholds(level, found[level], alone[level])
        print(net.names[level], net.thresholds(level).threshold, int(likelihoods.argmax()))
    objectives = net.fit_decoders(alone, nearest(net, alone[0]), options.rounds)
    print([[round(value) for value in level] for level in objectives])
    state = {k: v for k, v in net.state_dict().items() if not k.startswith("templates.")}
    save_file({k: v.contiguous() for k, v in state.items()}, options.out)
    print(f"{time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
