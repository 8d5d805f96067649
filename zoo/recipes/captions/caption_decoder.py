"""flickr8k-caption-lite0: the words of caption-words-lite0, and a decoder that writes captions.

The task of Feedback-prop (CVPR 2018), section 4.4, on Flickr8k. The backbone and its words are
those of the other checkpoint, unchanged; the decoder is trained on their pooled features, as
they are and as feedback from known words moves them, so that it can read what feedback writes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from safetensors.torch import load_file, save_file
from torch import Tensor

import feedback_adapter as fa
import pixels
from captions.caption_card import write
from captions.caption_features import block_maps, head_adapter, pooled, refined
from captions.caption_training import Settings, encode, fit, vocabulary_of
from fa_evaluate.caption_metrics import cider
from fa_evaluate.data import LabelledImages, read
from fa_evaluate.data.flickr8k import read_captions
from feedback_adapter.evidence.captions import tokenise
from feedback_adapter.networks import Captioner
from feedback_adapter.networks.decoder import CaptionDecoder
from feedback_adapter.networks.decoding import beam_search

BASE = "caption-words-lite0"
CROP = 0.5
"""Least share of a photo's area in a random crop."""
REFINE: dict[str, Any] = {
    "strategy": "residual", "pivots": "conv_head", "solver": "gradient", "step_size": 10.0,
    "steps": 10,
}  # fmt: skip
"""How feedback moves the features that are trained on."""


def main(
    data: Annotated[Path, typer.Option(help="Folder of Flickr8k, packed or official layout.")],
    out: Annotated[Path, typer.Option(help="Folder to write the checkpoint to.")],
    base: Annotated[str, typer.Option(help="Checkpoint whose features and words it has.")] = BASE,
    epochs: Annotated[int, typer.Option(min=1, help="Passes.")] = Settings.epochs,
    share: Annotated[
        float, typer.Option(min=0, max=1, help="Of features that feedback moved; 0: none.")
    ] = Settings.refined,
    views: Annotated[int, typer.Option(min=1, help="Of each photo, random but the first.")] = 3,
    limit: Annotated[int, typer.Option(help="Use so many images a split; 0: all.")] = 0,
    least: Annotated[int, typer.Option(help="Times a word occurs to be in the vocabulary.")] = 5,
) -> None:
    """Train the decoder, measure the checkpoint and write it; features are kept in OUT/state."""
    settings = dataclasses.replace(Settings(), epochs=epochs, refined=share)
    adapter = fa.load(base)
    images, texts = read(data, adapter.labels, "caption-words"), read_captions(data)
    size = images_of(adapter)
    parts, captions = {}, {}
    for split in ("train", "dev", "test"):
        count = limit or None
        parts[split] = images.subset(split).select(range(len(images.subset(split)))[:count])
        captions[split] = texts.of_split(split)[:count]
    vocabulary = vocabulary_of(captions["train"], least)
    train = [features(adapter, parts["train"], "train", v, size, out) for v in range(views)]
    dev = features(adapter, parts["dev"], "dev", 0, size, out)
    result = fit(
        torch.stack([t["plain"] for t in train]),
        torch.stack([t["refined"] for t in train]) if share else None,
        encode(captions["train"], vocabulary),
        len(vocabulary),
        settings,
        judge_on(dev, captions["dev"], vocabulary),
        report=lambda entry: typer.echo(entry),
    )
    model = assemble(adapter.model, len(adapter.labels), len(vocabulary), settings)
    model.decoder.load_state_dict(result.weights)
    write(out, model, adapter, vocabulary, settings, result, parts, captions, views)


def images_of(adapter: fa.Adapter) -> int:
    """Side of the square images that a checkpoint takes."""
    assert adapter.transform is not None, "the zoo's checkpoints have a transform"
    return adapter.transform.size[0]


def features(
    adapter: fa.Adapter, images: LabelledImages, split: str, view: int, size: int, out: Path
) -> dict[str, Tensor]:
    """`{"plain", "refined"}`: (N, channels), kept in a file once computed.

    What feedback is told, is a random part of each image's words: a share drawn from 0 to 1.
    """
    file = out / "state" / f"{split}-{view}-{len(images)}.safetensors"
    if not file.is_file():
        decoded = pixels.load(images, size)
        maps = block_maps(adapter.model, decoded.images, view, crop=CROP)
        found = features_of_maps(adapter, maps, decoded.targets, view)
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({k: v.half().contiguous() for k, v in found.items()}, file)
    return {k: v.float() for k, v in load_file(file).items()}


def features_of_maps(
    adapter: fa.Adapter, maps: Tensor, targets: Tensor, seed: int
) -> dict[str, Tensor]:
    """`{"plain", "refined"}`, of block maps."""
    head = head_adapter(adapter.model, adapter.labels)
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(len(targets), 1, generator=generator)
    known = torch.rand(targets.shape, generator=generator) < share
    return {"plain": pooled(head, maps), "refined": refined(head, maps, targets, known, REFINE)}


def judge_on(
    dev: dict[str, Tensor], captions: list[tuple[str, ...]], vocabulary: tuple[str, ...]
) -> Callable[[CaptionDecoder], dict[str, float]]:
    """CIDEr (times 100) of greedy captions, from features as they are and as feedback made them.

    The score is that of the plain ones: a decoder isn't chosen for what evidence does to it.
    """
    references = [[tokenise(text) for text in of_image] for of_image in captions]

    def judge(decoder: CaptionDecoder) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, values in dev.items():
            with torch.no_grad():
                tokens, _ = beam_search(decoder, decoder.start(values))
            written = [[vocabulary[token] for token in row] for row in tokens]
            found[name] = 100 * float(cider(written, references).mean())
        return {**found, "score": found["plain"]}

    return judge


def assemble(backbone: Any, words: int, vocabulary: int, settings: Settings) -> Captioner:
    """The whole network, with the backbone's weights and a new decoder."""
    model = Captioner(
        backbone.default_cfg["architecture"], words, vocabulary, settings.width, settings.hidden,
        settings.dropout,
    )  # fmt: skip
    model.backbone.load_state_dict(backbone.state_dict())
    return model.eval()


if __name__ == "__main__":
    typer.run(main)
