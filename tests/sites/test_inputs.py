"""What a model is called with: kept as it is, and cut per image."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import feedback_adapter as fa
from feedback_adapter.errors import InputError
from feedback_adapter.sites import Inputs

LABELS = list("abcd")
TOLD = fa.Labels({"a": 1, "b": 0})


class Normalises(nn.Module):
    """Takes the mean off its input, in place, and uses the input again at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(14, 4)

    def forward(self, x: Tensor) -> Tensor:
        x.sub_(1.0)
        return self.head(torch.cat([self.body(self.stem(x).tanh()).tanh(), x], 1))


@pytest.mark.parametrize("pivot", ["input", "stem", "body"])
@pytest.mark.parametrize("strategy", ["residual", "layerwise"])
def test_a_model_that_modifies_its_input_leaves_the_users_images_alone(pivot, strategy):
    model, images = Normalises().double(), torch.randn(5, 6).double()
    kept = images.clone()
    expected = model(images.clone())
    adapter = fa.wrap(model, labels=LABELS)
    result = adapter.refine(images, TOLD, strategy=strategy, pivots=pivot, patience=None)
    assert torch.equal(images, kept)
    assert images._version == 0
    assert torch.equal(result.before, expected)
    assert (result.loss < result.losses[0]).all()

    class Clean(Normalises):
        def forward(self, x):
            return super().forward(x.clone())

    clean = Clean().double()
    clean.load_state_dict(model.state_dict())
    same = fa.wrap(clean, labels=LABELS).refine(
        images, TOLD, strategy=strategy, pivots=pivot, patience=None
    )
    assert torch.equal(result.after, same.after)


def test_sites_and_predictions_leave_the_users_images_alone():
    images = torch.randn(5, 6)
    kept = images.clone()
    adapter = fa.wrap(Normalises(), labels=LABELS)
    assert [site.name for site in adapter.sites(images)] == ["input", "stem", "body", "head"]
    once, twice = adapter.predict(images), adapter.predict(images)
    assert torch.equal(once, twice)
    assert torch.equal(images, kept)


class Weighs(nn.Module):
    """Takes a weight per class, which has nothing to do with the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor, *, weight: Tensor) -> Tensor:
        return F.linear(self.stem(x).tanh(), self.head.weight) * weight


def test_a_shared_argument_as_long_as_the_batch_is_not_cut():
    model, images, weight = Weighs().double(), torch.randn(4, 6).double(), torch.arange(1.0, 5.0)
    inputs = Inputs((images,), {"weight": weight.double()}, shared=frozenset({"weight"}))
    told = fa.Labels([{"a": 1}, None, {"a": 0}, None])  # two images leave the batch
    result = fa.wrap(model, labels=LABELS).refine(inputs, told, pivots="stem")
    for image in range(4):
        one = Inputs((images[image : image + 1],), inputs.kwargs, shared=inputs.shared)
        alone = fa.wrap(model, labels=LABELS).refine(
            one, told.take(torch.tensor([image])), pivots="stem"
        )
        torch.testing.assert_close(alone.after[0], result.after[image])


def test_which_arguments_are_cut():
    rows = torch.tensor([2, 0])
    images, weight, names = torch.randn(3, 6), torch.randn(3), [torch.arange(3), "text"]
    inputs = Inputs((images, names), {"weight": weight, "other": weight}, shared="weight")
    taken = inputs.take(rows)
    assert torch.equal(taken.args[0], images[rows])
    assert taken.args[1][0].tolist() == [2, 0]
    assert taken.args[1][1] == "text"
    assert torch.equal(taken.kwargs["weight"], weight)
    assert torch.equal(taken.kwargs["other"], weight[rows])
    assert taken.shared == {"weight"}


def test_shared_names_keyword_arguments():
    with pytest.raises(InputError, match=r"shared='wieght' isn't a keyword.*'weight'"):
        Inputs((torch.randn(3, 6),), {"weight": torch.ones(3)}, shared=frozenset({"wieght"}))


def test_images_that_are_not_the_first_tensor_are_named():
    class Pairs(nn.Module):
        """Compares images with texts, as CLIP does."""

        def __init__(self):
            super().__init__()
            self.see, self.read = nn.Linear(12, 8), nn.EmbeddingBag(50, 8)

        def forward(self, pixels, ids):
            return self.see(pixels.flatten(1)) @ self.read(ids).T

    adapter = fa.wrap(Pairs().eval(), labels=["a", "b"], kind="multiclass")
    pixels, ids, told = torch.rand(3, 12), torch.randint(0, 50, (2, 5)), fa.Labels({"a": 1})
    for strategy in ("clamp", "newton", "residual"):
        with pytest.raises(fa.errors.FeedbackAdapterError, match="for 2 images"):
            adapter.refine({"ids": ids, "pixels": pixels}, told, strategy=strategy, pivots="see")
        after = adapter.refine({"pixels": pixels, "ids": ids}, told, strategy=strategy).after
        assert after.argmax(1).tolist() == [0, 0, 0]
    with pytest.raises(fa.errors.ModelError, match="3 rows for 2 images"):
        adapter.predict({"ids": ids, "pixels": pixels})
