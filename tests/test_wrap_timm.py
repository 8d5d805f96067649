"""`wrap` knows timm's models: labels, kind and transform by what timm notes and by running them."""

import pytest
import timm
import torch
from torch import nn

import feedback_adapter as fa
from feedback_adapter.errors import ModelError


def test_an_imagenet_model_needs_no_labels():
    model = timm.create_model("test_resnet", num_classes=1000).eval()
    model.pretrained_cfg["num_classes"] = 1000
    adapter = fa.wrap(model)
    assert adapter.outputs["output"].kind == "multiclass"
    assert len(set(adapter.labels)) == 1000
    assert adapter.labels[134] == "crane (wading bird)"
    assert adapter.labels[517] == "crane (lifting device)"
    assert adapter.transform.size == (160, 160)
    assert adapter.transform.mean == model.pretrained_cfg["mean"]
    result = adapter.refine(torch.rand(1, 3, 160, 160), fa.Coarse("bird"))
    before, after = result.before.softmax(1), result.after.softmax(1)
    assert after[0, 134] > 5 * before[0, 134]
    assert after[0, 517] < before[0, 517] / 100


def test_its_kind_and_transform_can_be_said():
    model = timm.create_model("resnet10t").eval()
    mine = fa.Transform((64, 64))
    adapter = fa.wrap(model, kind="multilabel", transform=mine)
    assert adapter.outputs["output"].kind == "multilabel"
    assert adapter.transform is mine


def test_the_size_is_the_one_that_the_model_was_built_for():
    model = timm.create_model("vit_tiny_patch16_224", img_size=(64, 96), num_classes=2, depth=1)
    adapter = fa.wrap(model, labels=["a", "b"])
    assert adapter.transform == fa.Transform((64, 96), "bicubic", (0.5,) * 3, (0.5,) * 3)


def test_other_models_and_other_channels_have_no_transform():
    grey = timm.create_model("test_resnet", num_classes=2, in_chans=1)
    assert fa.wrap(grey, labels=["a", "b"]).transform is None
    assert fa.wrap(nn.Linear(2, 2), labels=["a", "b"]).transform is None
    with pytest.raises(ModelError, match="Only timm's models say it themselves"):
        fa.wrap(nn.Linear(2, 2))


def test_the_width_is_found_by_running_the_model():
    model = timm.create_model("resnet10t").eval()
    assert model.num_classes == 1000
    model.fc = nn.Linear(model.num_features, 3)
    assert fa.wrap(model, labels=["a", "b", "c"]).predict(torch.rand(1, 3, 64, 64)).shape == (1, 3)
    for arguments in ({}, {"labels": ["a", "b"]}, {"labels": [str(n) for n in range(999)]}):
        with pytest.raises(ModelError, match="returns 3 numbers for an image"):
            fa.wrap(model, **arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"num_classes": 3}, "returns 3 numbers for an image, and timm notes no names"),
        ({"num_classes": 0}, "returns 512 numbers for an image, and timm notes no names"),
        ({"num_classes": 0, "global_pool": ""}, "doesn't return one row of numbers"),
    ],
)
def test_models_whose_classes_are_not_known(arguments, said):
    with pytest.raises(ModelError, match=said):
        fa.wrap(timm.create_model("resnet10t", **arguments).eval())


def test_wrapping_changes_nothing():
    model = timm.create_model("resnet10t").train()
    running = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fa.wrap(model)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(t, running[name]) for name, t in model.state_dict().items())


def test_other_label_sets_of_timm_have_unique_names():
    model = timm.create_model("test_resnet", num_classes=11821).eval()
    model.pretrained_cfg["num_classes"] = 11821
    labels = fa.wrap(model).labels
    assert len(set(labels)) == 11821
    assert labels[0] == "benthos (n00005787)"
