"""Words known and the caption unknown, and the other way round (paper section 4.4).

    python caption.py --data DATA --out ../results/caption.json

The blocks before the pivot are run once, and everything after them as a model of its own: a
tail is exact, so figures are those of the whole model, up to rounding.
`feedback-adapter evaluate flickr8k-caption-lite0 --protocol caption` measures the same with the
whole model, without the rivals that need training images.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor, nn

import feedback_adapter as fa
from fa_evaluate.baselines.caption_neighbours import Neighbours
from fa_evaluate.data import LabelledImages, read
from fa_evaluate.data.flickr8k import read_captions
from fa_evaluate.data.words import targets_for
from fa_evaluate.methods import strategies_of
from fa_evaluate.protocols.caption import CaptionProtocol
from fa_evaluate.request import Request
from fa_evaluate.rows import PLAIN, Row, write_rows
from fa_evaluate.tables import markdown
from feedback_adapter.checkpoint import find, read_config

CHECKPOINT = "flickr8k-caption-lite0"
STRATEGIES = ["newton", "residual", "residual-reference"]
"""With one pivot the layer-wise form is the same computation: `--strategy layerwise` shows it."""
NEIGHBOURS, SHARE = 20, 0.5
"""Of the rival that mixes the image's own vector with its neighbours', chosen on dev."""


class FromBlocks(nn.Module):
    """A `Captioner` from the output of its backbone's last block on, by the same names."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone = nn.Module()
        for part in ("conv_head", "bn2", "global_pool", "classifier"):
            self.backbone.add_module(part, model.backbone.get_submodule(part))
        self.decoder = model.decoder

    def forward(self, maps: Tensor) -> dict[str, Tensor]:
        net = self.backbone
        features = net.global_pool(net.bn2(net.conv_head(maps)))
        return {"words": net.classifier(features), "caption": self.decoder.start(features)}


@torch.no_grad()
def block_maps(adapter: fa.Adapter, images: LabelledImages, file: Path | None) -> Tensor:
    """(N, channels, height, width), kept in a file once computed."""
    if file is not None and file.is_file():
        return torch.from_numpy(np.load(file))
    net: Any = adapter.model.backbone
    transform = adapter.transform
    assert transform is not None, "the checkpoint has a transform"
    parts = []
    for start in range(0, len(images), 32):
        photos = [transform(images.open(i)) for i in range(len(images))[start : start + 32]]
        parts.append(net.blocks(net.bn1(net.conv_stem(torch.stack(photos)))))
        print(f"\rimages {start} of {len(images)}", end="", file=sys.stderr)
    maps = torch.cat(parts)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, maps.numpy())
    return maps


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """A split's images from the last block on, its captions and its words."""

    maps: Tensor
    captions: list[tuple[str, ...]]
    words: np.ndarray


def load(
    adapter: fa.Adapter, config: dict[str, Any], data: Path, split: str, cache: Path | None
) -> Split:
    """Read a split."""
    labels = adapter.outputs["words"].labels
    images = read(data, labels, "caption-words").subset(split)
    sha = config["weights"]["sha256"][:8]
    file = None if cache is None else cache / f"{config['name']}-{sha}-{split}-maps.npy"
    captions = read_captions(data).of_split(split)
    return Split(block_maps(adapter, images, file), captions, images.targets)


def main(
    data: Annotated[Path, typer.Option(help="Folder of Flickr8k.")],
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    checkpoint: Annotated[str, typer.Option(help="Name or folder.")] = CHECKPOINT,
    split: Annotated[str, typer.Option(help="dev or test.")] = "test",
    strategy: Annotated[list[str], typer.Option(help="Repeat for more.")] = STRATEGIES,
    known: Annotated[str, typer.Option(help="Percent of the words.")] = "25,50,75,100",
    draws: Annotated[int, typer.Option(help="At least 3.")] = 3,
    limit: Annotated[int, typer.Option(help="Images of the split, 0: all.")] = 0,
    cache: Annotated[Path | None, typer.Option(help="Folder for activations.")] = None,
) -> None:
    """Measure, print a table, write the results."""
    adapter, config = fa.load(checkpoint), read_config(find(checkpoint))
    tail = fa.Adapter(FromBlocks(adapter.model).eval(), adapter.outputs, defaults=adapter.defaults)
    part = load(adapter, config, data, split, cache)
    train = load(adapter, config, data, "train", cache)
    with torch.no_grad():
        known_vectors = [tail.model(maps)["caption"] for maps in train.maps.split(256)]
    vectors, theirs = torch.cat(known_vectors), torch.from_numpy(train.words)
    reliability = fa.Reliability.fit(
        [own[0] for own in train.captions],
        torch.from_numpy(
            targets_for([own[1:] for own in train.captions], adapter.outputs["words"].labels)
        ),
        adapter.outputs["words"].labels,
    )
    request = Request(config["name"], tail, config, data, split=split, strategies=tuple(strategy))
    count = limit or len(part.maps)
    protocol = CaptionProtocol(
        known=[float(share) for share in known.split(",")], draws=draws, reliability=reliability
    )
    rivals = {
        "neighbours in words": Neighbours(vectors, theirs, NEIGHBOURS),
        "image and neighbours in words": Neighbours(vectors, theirs, NEIGHBOURS, SHARE),
    }
    rows: list[Row] = []
    measured = strategies_of(request)
    measured["residual, untuned"] = {"strategy": "residual", "options": fa.ResidualOptions()}
    for own, others in (({}, rivals), *(({n: a}, {}) for n, a in measured.items())):
        found = protocol.run(
            tail, part.maps[:count], part.captions[:count], part.words[:count], own,
            lambda note: print(f"\r{note:70}", end="", file=sys.stderr),
            checkpoint=config["name"], rivals=others,
        )  # fmt: skip
        rows += [row for row in found if not rows or row.method != PLAIN]
        if out is not None:  # after each method: a run that is cut off has given something
            notes = {"split": split, "draws": draws, "known_unit": KNOWN_UNIT}
            write_rows(out, rows, [protocol.seed], **notes)
    print(file=sys.stderr)
    for names in (["CIDEr, ", "BLEU-4, "], ["gain, "], ["left out"], ["mAP"]):
        own = [row for row in rows if any(name in row.metric for name in names)]
        print(markdown(own))


KNOWN_UNIT = "percent of the words; for mAP, percent of the captions"

if __name__ == "__main__":
    typer.run(main)
