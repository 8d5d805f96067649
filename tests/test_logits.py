"""Outputs must be logits: probabilities are noticed and refused, and logits never are."""

import pytest
import timm
import torch
from torch import nn
from torch.nn.utils import prune

import feedback_adapter as fa
from feedback_adapter.errors import DataError, ModelError
from feedback_adapter.testing import TinyNet, tiny_images

LABELS = ["a", "b", "c", "d"]


class Then(nn.Module):
    """A small network, and a last step."""

    def __init__(self, last) -> None:
        super().__init__()
        self.net, self.last = TinyNet(), last

    def forward(self, x):
        return self.last(self.net(x))


PROBABILITIES = {
    "sigmoid": nn.Sigmoid(),
    "softmax": nn.Softmax(1),
    "clamp": nn.Hardsigmoid(),
    "tanh": lambda y: y.tanh() / 2 + 0.5,
    "shares": lambda y: y.exp() / y.exp().sum(1, keepdim=True),
    "one minus": lambda y: 1 - y.sigmoid(),
}


@pytest.mark.parametrize("last", PROBABILITIES.values(), ids=list(PROBABILITIES))
@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
def test_probabilities_are_refused_by_predict_and_refine(last, kind):
    adapter = fa.wrap(Then(last), labels=LABELS, kind=kind)
    before = {name: tensor.clone() for name, tensor in adapter.model.state_dict().items()}
    said = r"'output' holds probabilities, not logits.*Leave that last step out"
    with pytest.raises(ModelError, match=said):
        adapter.predict(tiny_images(2))
    with pytest.raises(ModelError, match=said):
        adapter.refine(tiny_images(2), fa.Labels({"b": 0}), pivots="net")
    after = adapter.model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_a_model_that_ends_in_softmax_whose_weights_make_one_class_sure():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Softmax(1))
    with torch.no_grad():
        model[1].bias[0] = 5.0
    adapter = fa.wrap(model, labels=LABELS, kind="multiclass")
    with pytest.raises(ModelError, match="rows sum to 1 .* after a softmax"):
        adapter.refine(torch.rand(1, 3, 2, 2), fa.Labels({"b": 0}), pivots="1")


def test_one_output_of_two_and_maps_are_noticed_by_name():
    two = Then(lambda y: {"a": y, "b": y.softmax(1)})
    outputs = {name: fa.Output(LABELS, select=name) for name in "ab"}
    with pytest.raises(ModelError, match=r"^Output 'b' holds probabilities"):
        fa.wrap(two, outputs=outputs).predict(tiny_images(2))
    pixels = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softmax(1))
    with pytest.raises(ModelError, match="holds probabilities"):
        fa.wrap(pixels, outputs={"m": fa.Output(LABELS, "map")}).predict(tiny_images(2))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_are_noticed(dtype):
    adapter = fa.wrap(Then(nn.Sigmoid()).to(dtype), labels=LABELS)
    with pytest.raises(ModelError, match="holds probabilities"):
        adapter.predict(tiny_images(1).to(dtype))


@pytest.mark.parametrize("last", [nn.Identity(), nn.LogSoftmax(1), nn.ReLU(), nn.Tanh()])
def test_logits_are_accepted_whatever_they_happen_to_be(last):
    for seed in range(5):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2), last)
        with torch.no_grad():
            model[1].weight.mul_(0.1)
            model[1].bias.fill_(0.5)  # so that they lie in [0, 1]
        fa.wrap(model, labels=["a", "b"]).predict(torch.rand(1, 3, 2, 2))


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_efficientnet", "test_convnext"])
def test_small_logits_of_timm_are_accepted(name):
    model = timm.create_model(name, num_classes=1).eval()
    with torch.no_grad():
        model.get_classifier().weight.zero_()
        model.get_classifier().bias.fill_(0.3)
    size = model.pretrained_cfg["input_size"][1:]
    assert float(fa.wrap(model, labels=["a"]).predict(torch.rand(1, 3, *size))) == pytest.approx(
        0.3
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (torch.randn(9, 4) * 3, r"go from .* must be in \[0, 1\]"),
        (torch.full((9, 4), float("nan")), "with NaN or inf"),
    ],
)
def test_fit_prior_takes_probabilities_only(wrong, said):
    adapter = fa.wrap(TinyNet(), labels=LABELS)
    right = torch.rand(9, 4)
    with pytest.raises(DataError, match="probabilities .*" + said):
        adapter.fit_prior(wrong, right.round())
    with pytest.raises(DataError, match="targets .*" + said):
        adapter.fit_prior(right, wrong)
    assert not adapter.priors


def test_a_dict_of_maps_is_pointed_to_map_outputs():
    class Segments(nn.Module):
        def forward(self, x):
            return {"out": x[:, :2], "aux": x[:, :1]}

    with pytest.raises(ModelError, match=r"is a dict.*Output\(labels, kind='map', select='out'\)"):
        fa.wrap(Segments(), labels=["a", "b"]).predict(tiny_images(1))


class Hooked(nn.Module):
    """A hook writes to this very object, so that a copy of it can't run."""

    def __init__(self, last) -> None:
        super().__init__()
        self.net, self.last, self.seen = nn.Linear(12, 4), last, {}
        nn.init.constant_(self.net.weight, 0.05)
        self.net.register_forward_hook(lambda m, i, o: self.seen.__setitem__("net", o))

    def forward(self, x):
        self.net(x.flatten(1))
        return self.last(self.seen["net"])


def test_a_model_whose_copies_cant_run_is_judged_by_other_images():
    images = torch.rand(2, 3, 2, 2) * 0.5 + 0.5
    outputs = fa.wrap(Hooked(nn.Hardtanh(-5, 5)), labels=LABELS).predict(images)
    assert float(outputs.min()) > 0
    assert float(outputs.max()) < 1
    with pytest.raises(ModelError, match="holds probabilities"):
        fa.wrap(Hooked(nn.Sigmoid()), labels=LABELS).predict(images)


@pytest.mark.parametrize("how", ["pruned", "weight_norm"])
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_logits_between_0_and_1_of_a_model_whose_weights_are_computed(how):
    """`deepcopy` refuses such weights."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    with torch.no_grad():
        model[2].weight.mul_(0.01)
        model[2].bias.fill_(0.5)
    if how == "pruned":
        prune.l1_unstructured(model[0], "weight", amount=0.5)
    else:
        nn.utils.weight_norm(model[0])
    model(torch.rand(3, 4))
    adapter = fa.wrap(model, labels=["a", "b"])
    result = adapter.refine(torch.rand(3, 4), fa.Labels({"a": 1}))
    assert ((result.before > 0) & (result.before < 1)).all()
    assert result.improved.all()


def test_a_mean_of_softmaxes_is_noticed():
    """Its sum has no gradient at all, but each of its entries has."""

    class Ensemble(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.heads = nn.Linear(4, 8), nn.ModuleList(nn.Linear(8, 2) for _ in "ab")

        def forward(self, x):
            features = self.stem(x).tanh()
            return torch.stack([head(features).softmax(1) for head in self.heads]).mean(0)

    with pytest.raises(ModelError, match="holds probabilities"):
        fa.wrap(Ensemble().eval(), labels=["a", "b"]).refine(torch.rand(3, 4), fa.Labels({"a": 1}))
