"""Models of several outputs and inputs: evidence on one output, refinement of another."""

import collections
import dataclasses

import pytest
import torch
from torch import nn

import feedback_adapter as fa
from feedback_adapter.errors import ModelError, SiteError
from feedback_adapter.testing import tiny_images

STRATEGIES = ["residual", "layerwise", "newton"]


def one(evidence: fa.Evidence, image: int) -> fa.Evidence:
    return evidence.take(torch.tensor([image]))


class Heads(nn.Module):
    """Two heads on one trunk, and one that sits before the pivot `late`."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Tanh())
        self.late = nn.Conv2d(8, 8, 3, 1, 1)
        self.objects, self.scene, self.early = nn.Linear(8, 3), nn.Linear(8, 2), nn.Linear(8, 2)
        for head in (self.objects, self.scene, self.early):
            nn.init.normal_(head.weight)

    def forward(self, images, gain=None, bias=None):
        trunk = self.trunk(images)
        if gain is not None:
            trunk = trunk * gain[:, None, None, None]  # per image
        if bias is not None:
            trunk = trunk + bias[:, None, None]  # per channel, for all images
        late = self.late(trunk).tanh().mean((2, 3))
        return {
            "objects": self.objects(late),
            "heads": [self.scene(late), self.early(trunk.mean((2, 3)))],
        }


@pytest.fixture
def heads() -> fa.Adapter:
    return fa.wrap(
        Heads(),
        outputs={
            "objects": fa.Output(("dog", "ball", "boat"), select="objects"),
            "scene": fa.Output(("beach", "city"), "multiclass", select="heads.0"),
            "early": fa.Output(("day", "night"), "multiclass", select="heads.1"),
        },
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_evidence_on_one_output_moves_another(heads, strategy):
    result = heads.refine(tiny_images(3), fa.Labels({"beach": 1}), strategy=strategy, pivots="late")
    assert set(result.after) == {"objects", "scene", "early"}
    assert (result.losses[-1] < result.losses[0]).all()
    assert (result.after["objects"] != result.before["objects"]).all()
    assert torch.equal(result.after["early"], result.before["early"])
    expected = -result.before["scene"].log_softmax(1)[:, 0]
    torch.testing.assert_close(result.losses[0], expected)


def test_evidence_improves_another_output():
    """The heads share what they see: a model whose two outputs agree, told one, gets the other."""

    class Agree(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Linear(2, 2)
            nn.init.eye_(self.features.weight)
            nn.init.zeros_(self.features.bias)

        def forward(self, x):
            seen = self.features(x)
            return seen[:, :1], (seen @ torch.tensor([[2.0], [0.1]]))

    adapter = fa.wrap(
        Agree(),
        outputs={"a": fa.Output(("dog",), select="0"), "b": fa.Output(("pet",), select="1")},
    )
    x = torch.tensor([[-0.5, 0.0], [0.5, 0.0]])
    result = adapter.refine(
        x, fa.Labels({"dog": [1, 0]}), pivots="features", steps=30, step_size=0.1
    )
    assert result.before["b"].sign().flatten().tolist() == [-1, 1]
    assert result.after["b"].sign().flatten().tolist() == [1, -1]


def test_evidence_on_several_outputs_adds_up(heads):
    images = tiny_images(2)
    both = heads.refine(images, fa.Labels({"dog": 1, "day": 0}), pivots="trunk", steps=0)
    dog = heads.refine(images, fa.Labels({"dog": 1}), pivots="trunk", steps=0)
    day = heads.refine(images, fa.Labels({"day": 0}), pivots="trunk", steps=0)
    torch.testing.assert_close(both.losses, dog.losses + day.losses)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_evidence_that_a_pivot_cannot_reach(heads, strategy):
    for pivot in ("late", "objects"):
        with pytest.raises(SiteError, match=f"No known output depends on {pivot}.*earlier pivot"):
            heads.refine(tiny_images(2), fa.Labels({"day": 1}), strategy=strategy, pivots=pivot)
    with pytest.raises(SiteError, match="No known output depends on objects"):
        heads.refine(tiny_images(2), fa.Labels({"city": 1}), strategy=strategy, pivots="objects")


def test_inputs_by_keyword_and_by_position(heads):
    images, gain, bias = tiny_images(6), torch.linspace(0.5, 2, 6), torch.randn(8)
    told = fa.Labels({"dog": [1, 0, 1, None, 0, 1]})
    arguments = {"pivots": "late", "steps": 8, "tolerance": 0.05, "patience": 1}
    by_name = heads.refine({"images": images, "gain": gain, "bias": bias}, told, **arguments)
    by_place = heads.refine((images, gain, bias), told, **arguments)
    assert torch.equal(by_name.after["objects"], by_place.after["objects"])
    plain = heads.refine(images, told, **arguments)
    assert (plain.before["objects"] != by_name.before["objects"]).any()
    for image in range(6):  # each with its own gain, also after mates have left; one bias for all
        rows = slice(image, image + 1)
        alone = heads.refine((images[rows], gain[rows], bias), one(told, image), **arguments)
        torch.testing.assert_close(
            alone.after["objects"][0], by_name.after["objects"][image], atol=1e-5, rtol=0
        )


@dataclasses.dataclass
class Both:
    objects: torch.Tensor
    scene: torch.Tensor


@pytest.mark.parametrize("shape", ["dict", "named tuple", "dataclass"])
def test_outputs_are_found_by_their_names(shape):
    heads = collections.namedtuple("Heads", "objects scene")
    made = {
        "dict": lambda x: {"scene": x[:, :2], "objects": x},
        "named tuple": lambda x: heads(x, x[:, :2]),
        "dataclass": lambda x: Both(x, x[:, :2]),
    }[shape]

    class Net(nn.Module):
        def forward(self, images):
            return made(images.mean((2, 3)) * 9 - 4)

    images = tiny_images(2)
    outputs = {"scene": fa.Output(["in", "out"]), "objects": fa.Output(["a", "b", "c"])}
    found = fa.wrap(Net(), outputs=outputs).predict(images)
    assert torch.equal(found["objects"], images.mean((2, 3)) * 9 - 4)
    assert torch.equal(found["scene"], found["objects"][:, :2])
    with pytest.raises(ModelError, match="'things' is a "):
        fa.wrap(Net(), outputs={"things": fa.Output(["a", "b", "c"])}).predict(images)
