"""The command line on models that label pixels."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

import feedback_adapter as fa
from feedback_adapter.cli.app import app
from feedback_adapter.testing import LABELS

timm = pytest.importorskip("timm")


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    """A checkpoint whose map is as large as its input, 32 x 48, and a photo of 96 high, 96 wide."""
    models = pytest.importorskip("torchvision.models.segmentation")
    torch.manual_seed(0)
    model = models.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4)
    folder = tmp_path_factory.mktemp("maps")
    outputs = {"mask": fa.Output(LABELS, "map", select="out", exclusive=False)}
    adapter = fa.wrap(model.eval(), outputs=outputs, transform=fa.Transform((32, 48)))
    how = fa.Architecture("torchvision", "lraspp_mobilenet_v3_large", {"num_classes": 4})
    adapter.save(folder / "model", architecture=how)
    pixels = np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    return folder


def test_a_checkpoint_keeps_what_its_maps_are(segmenter):
    adapter = fa.load(segmenter / "model")
    assert adapter.outputs == {"mask": fa.Output(LABELS, "map", select="out", exclusive=False)}
    again = adapter.save(segmenter / "again")
    first, second = (load_file(p / "model.safetensors") for p in (segmenter / "model", again))
    assert all(torch.equal(first[name], second[name]) for name in first)
    config = json.loads((again / "feedback_adapter.json").read_text())
    assert config["outputs"]["mask"]["exclusive"] is False


def test_clicks_are_in_pixels_of_the_photo(segmenter):
    picture = segmenter / "picture.png"
    arguments = ["refine", str(segmenter / "photo.png"), "-c", str(segmenter / "model")]
    arguments += ["--click", "95,95=dog", "--click", "0,3=-ball", "--know", "snow", "--json"]
    ran = CliRunner().invoke(app, [*arguments, "--save-plot", str(picture)])
    assert ran.exit_code == 0, ran.output
    said = json.loads(ran.stdout)["images"][0]
    mask = said["masks"]["mask"]["dog"]["after"]
    assert mask["size"] == [32, 48]
    assert mask["counts"][-1] >= 1  # down the last column: the last pixel is a dog's
    assert len(mask["counts"]) % 2 == 0
    told = {row["label"]: (row["known"], row["present"]) for row in said["predictions"]}
    assert told["dog"] == (True, True)
    assert told["ball"] == (True, False)
    with Image.open(picture) as drawn:
        assert drawn.width > drawn.height > 100


def test_clicks_on_several_photos_of_which_one_cannot_be_read(segmenter):
    (segmenter / "broken.png").write_text("no picture")
    photos = [str(segmenter / name) for name in ("broken.png", "photo.png")]
    words = ["refine", *photos, "-c", str(segmenter / "model"), "--click", "95,95=dog", "--json"]
    ran = CliRunner().invoke(app, words)
    assert str(ran.exception).startswith("1 photo can't be read. Photo 1: ")
    broken, read = json.loads(ran.stdout)["images"]
    assert "is not an image" in broken["error"]
    assert read["masks"]["mask"]["dog"]["after"]["counts"][-1] >= 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--click", "dog"], "120,90=car"),
        (["--click", "96,0=dog"], "96 wide and 96 high"),
        (["--click", "1,1=dig"], "dog"),
        (["--radius", "3", "--know", "dog"], "add one"),
    ],
)
def test_mistakes_are_told(segmenter, more, message):
    arguments = ["refine", str(segmenter / "photo.png"), "-c", str(segmenter / "model"), *more]
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code != 0
    assert message in (str(ran.exception) + ran.output).replace("\n", " ")
