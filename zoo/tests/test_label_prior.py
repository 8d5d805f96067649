"""The label statistics that checkpoints ship, and the recipe that makes them."""

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import feedback_adapter as fa
from feedback_adapter.prior import LabelPrior
from words import label_prior
from words.held_out import held_out


@pytest.mark.parametrize(
    ("name", "known", "related", "apart"),
    [
        ("caption-words-lite0", "snow", "mountain", "beach"),
        ("coco80-lite0", "oven", "sink", "giraffe"),
    ],
)
def test_shipped_statistics_are_used_by_default(name, known, related, apart):
    adapter = fa.load(name)
    images = torch.zeros(1, 3, *adapter.transform.size)
    result = adapter.refine(images, fa.Labels({known: 1}))
    assert result.strategy == "posterior"
    moved = (result.after - result.before)[0]
    place = adapter.labels.index
    assert moved[place(related)] > max(0, moved[place(apart)])
    plain = adapter.refine(images, fa.Labels({known: 1}), strategy="residual")
    assert plain.strategy == "residual"


def test_the_recipe_writes_what_load_reads(tmp_path):
    labels = ("dog", "snow", "ball")
    data = tmp_path / "flickr8k"
    (data / "images").mkdir(parents=True)
    entries = {}
    for index in range(6):
        Image.new("RGB", (16, 16), (40 * index, 0, 0)).save(data / "images" / f"{index}.png")
        said = labels[index % 3]
        split = "dev" if index == 5 else "train"
        entries[f"{index}.png"] = {"split": split, "captions": [f"A {said} ."]}
    (data / "captions.json").write_text(json.dumps(entries))
    model = timm.create_model("test_resnet", num_classes=3).eval()
    made = fa.Adapter(
        model, {"output": fa.Output(labels)}, transform=fa.Transform((16, 16), "bilinear")
    )
    folder = made.save(tmp_path / "tiny")
    config = json.loads((folder / "feedback_adapter.json").read_text())
    config["data"] = {"source": "caption-words"}
    (folder / "feedback_adapter.json").write_text(json.dumps(config))
    label_prior.main(folder, data)
    images = label_prior.read(data, labels, "caption-words").subset("train")
    assert len(images) == 5
    logits = label_prior.predicted(made, images)
    expected = LabelPrior.fit(logits.sigmoid(), torch.from_numpy(images.targets))
    found = fa.load(folder).priors["output"]
    torch.testing.assert_close(found.covariance, expected.covariance, atol=1e-4, rtol=2e-3)
    np.savez(tmp_path / "logits.npz", logits=logits.numpy())
    label_prior.main(folder, data, tmp_path / "logits.npz")
    again = fa.load(folder).priors["output"]
    assert torch.equal(again.covariance, found.covariance)


def test_held_out_predictions_have_not_seen_the_image():
    """Labels that are pure chance are predicted no better than by their frequency."""
    generator = torch.Generator().manual_seed(0)
    seen = torch.randn(300, 40, generator=generator)
    explained = seen[:, :1] > 0
    chance = torch.rand(300, 1, generator=generator) < 0.5
    truth = torch.cat([explained, chance], 1)
    right = ((held_out(seen, truth) > 0) == truth).float().mean(0)
    assert right[0] > 0.85
    assert right[1] < 0.6
