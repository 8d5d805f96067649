"""The strategy: it keeps the library's promises, and says what it can't do."""

import pytest
import torch

import fa_dfm
import feedback_adapter as fa
from fa_dfm.checkpoints import build
from fa_dfm.nets import SmallResNet
from fa_dfm.strategy import DFMOptions, DFMStrategy, known_of
from feedback_adapter.errors import CheckpointError, FeedbackAdapterError, OptionsError
from feedback_adapter.testing import check_strategy, tiny_adapter, tiny_images

LABELS = ("cat", "dog", "snow", "ball")


def adapter_of(kind):
    """A network whose feedback has learned that evidence for a label speaks for that label."""
    torch.manual_seed(0)
    net = fa_dfm.convert(SmallResNet(4, blocks=1), kind=kind, steps=3, image_size=(32, 32)).eval()
    images = images_of(16)
    optimizer = torch.optim.Adam(net.feedback.parameters(), 0.05)
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        labels = torch.randint(4, (16,), generator=generator)
        target = torch.nn.functional.one_hot(labels, 4).float()
        known = fa_dfm.Known(torch.ones(16, 1 if kind == "multiclass" else 4), target)
        logits = net.unroll(images, known, 2).logits[-1]
        if kind == "multiclass":
            loss = torch.nn.functional.cross_entropy(logits, labels)
        else:
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return fa.wrap(net, labels=LABELS, kind=kind)


@pytest.fixture(scope="module")
def multilabel():
    return adapter_of("multilabel")


@pytest.fixture(scope="module")
def multiclass():
    return adapter_of("multiclass")


def images_of(count):
    generator = torch.Generator().manual_seed(4)
    return torch.rand(count, 3, 32, 32, generator=generator)


@pytest.mark.parametrize("options", [DFMOptions(), DFMOptions(steps=5), DFMOptions(tolerance=0.01)])
def test_it_keeps_the_promises_of_strategies(multilabel, options):
    check_strategy(DFMStrategy, options, adapter=multilabel, images=images_of(8), pivots="input")


def test_it_is_the_default_of_its_own_networks_only(multilabel):
    result = multilabel.refine(images_of(2), fa.Labels({"cat": 1}))
    assert result.strategy == "dfm"
    assert tiny_adapter().refine(tiny_images(2), fa.Labels({"cat": 1})).strategy != "dfm"


def test_evidence_enters_by_its_own_channels(multiclass):
    images = images_of(4)
    result = multiclass.refine(images, fa.Labels({"dog": 1}), strategy="dfm", trace=True)
    assert result.trace["output"].shape == (4, 4, 4)
    assert (result.after.softmax(1)[:, 1] > result.before.softmax(1)[:, 1]).all()


def test_confidence_reaches_the_loop(multiclass):
    images = images_of(2)
    outputs = fa.Outputs({"output": multiclass.predict(images)}, multiclass.outputs)
    for confidence in (0.0, 0.3, 1.0):
        evidence = fa.Labels({"dog": 1}, confidence=confidence).bind(multiclass.outputs, 2)
        known = known_of(evidence, outputs, "output", multiclass.model)
        torch.testing.assert_close(known.weight, torch.full((2, 1), confidence), rtol=0, atol=1e-4)
        if confidence:
            expected = torch.nn.functional.one_hot(torch.tensor([1, 1]), 4).float()
            torch.testing.assert_close(known.target, expected, rtol=0, atol=1e-4)


def test_early_stops_are_told(multilabel):
    result = multilabel.refine(
        images_of(3), fa.Labels({"cat": 1}), strategy="dfm", steps=30, tolerance=0.02
    )
    assert (result.steps < 30).all()
    assert all("converged" in said for said in result.status)
    result = multilabel.refine(images_of(3), fa.Labels({"cat": 1}), strategy="dfm", steps=2)
    assert all("steps=4" in said for said in result.status)


def test_a_model_that_was_not_converted_is_named():
    with pytest.raises(FeedbackAdapterError, match=r"fa_dfm\.convert.*TinyNet"):
        tiny_adapter().refine(tiny_images(2), fa.Labels({"cat": 1}), strategy="dfm")


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"tolerance": -1.0}])
def test_impossible_options_are_named(wrong):
    with pytest.raises(OptionsError, match=next(iter(wrong))):
        DFMOptions(**wrong)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("small-view", {"net": {"labels": 1, "width": 8}, "kind": "multilabel", "hidden": 2}),
        ("unet", {"net": {"labels": 3, "channels": 3, "width": 4}, "image_size": [32, 32]}),
        (
            "resnet10t",
            {"loop": "layer1", "head": {"channels": 64, "labels": 5}, "image_size": [32, 32]},
        ),
    ],
)
def test_checkpoints_build_their_networks(name, kwargs):
    net = build(name, kwargs)
    again = build(name, kwargs)
    again.load_state_dict(net.state_dict())


@pytest.mark.parametrize(("name", "kwargs"), [("os.system", {}), ("unet", {"colour": "red"})])
def test_unknown_networks_and_options_are_named(name, kwargs):
    with pytest.raises(CheckpointError, match=name):
        build(name, kwargs)
