"""Put what the training wrote into one net: `python assemble.py --models FOLDER --out FOLDER`.

Writes the checkpoint `planes-backward`; `net` gives the same in memory for benchmarks.
"""

from pathlib import Path

import torch
from backbone import LAYERS, Backbone, Heads, plain
from safetensors.torch import load_file
from torch import Tensor

from fa_backward.net import GenerativeNet

CATEGORIES = ("plane", "ship", "vehicle")
SITES = (1, 2, 3)  # poolings
SIDE = 128


def part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries of one part, without its prefix, in single precision."""
    keep = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
    return {k: v.float() if v.dtype == torch.float16 else v for k, v in keep.items()}


def backbone(state: dict[str, Tensor], name: str = "compositional") -> tuple[Backbone, Heads]:
    """A trained backbone with its heads, by its name in the training."""
    net, heads = Backbone(), Heads()
    net.load_state_dict(part(state, f"{name}.net."))
    heads.load_state_dict(part(state, f"{name}.heads."))
    return net.eval(), heads.eval()


def net(folder: Path, search: dict | None = None) -> GenerativeNet:
    """The backbone as a plain net, with its generative model."""
    state = load_file(folder / "models.safetensors") | load_file(folder / "templates.safetensors")
    generative = part(state, "generative.")
    made = GenerativeNet(
        [(layer.channels, layer.kernel, bool(layer.pooled)) for layer in LAYERS],
        CATEGORIES,
        SIDE,
        SITES,
        templates=len(generative["templates.category"]),
        components=generative["log_bigram1"].shape[1],
        search=search,
    )
    made.net.load_state_dict(plain(backbone(state)[0]).state_dict())
    made.activations.load_state_dict(generative)
    return made.eval()
