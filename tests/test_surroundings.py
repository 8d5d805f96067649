"""Callers in surroundings that change what PyTorch's functions do."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import feedback_adapter as fa
from feedback_adapter.errors import InputError
from feedback_adapter.testing import untouched

IMAGES = torch.rand(3, 3, 8, 8)
LABELS = ["dog", "cat", "bird", "fish"]
GROUPS = {"pet": ["dog", "cat"], "wild": ["bird", "fish"]}


def network():
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)]
    return nn.Sequential(*layers).eval()


@pytest.fixture
def adapter():
    return fa.wrap(network(), outputs={"output": fa.Output(LABELS, hierarchy=GROUPS)})


@pytest.mark.parametrize("strategy", ["newton", "residual", "layerwise", "clamp"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: fa.Labels({"dog": 1, "cat": [0, None, 1]}),
        lambda: fa.Labels({"dog": 1}, wrong=0.1),
        lambda: fa.Labels({"dog": 1, "cat": 0}, wrong=None),
        lambda: fa.Labels.from_tensors([[1.0, 0, 0, 0]] * 3, [True, True, False, False]),
        lambda: fa.Coarse("pet"),
        lambda: fa.Labels({"dog": 1}) & fa.Coarse("wild"),
        lambda: fa.Text("a dog and a cat"),
    ],
    ids=["labels", "wrong", "estimated", "tensors", "coarse", "both", "text"],
)
def test_the_default_device_is_not_where_evidence_goes(make, strategy):
    """Device `meta` holds no values: whatever is made there by mistake is found."""
    results = []
    for device in ("cpu", "meta"):
        torch.manual_seed(0)
        adapter = fa.wrap(network(), outputs={"output": fa.Output(LABELS, hierarchy=GROUPS)})
        with torch.device(device):
            assert len(adapter.sites(IMAGES)) == 5
            results.append(adapter.refine(IMAGES, make(), strategy=strategy))
            results[-1].to_json()
    one, other = (result.outputs_after["output"] for result in results)
    assert torch.equal(one, other)


@pytest.mark.parametrize("call", ["refine", "predict", "sites", "prepare"])
@pytest.mark.parametrize(
    "inside",
    [
        lambda f: torch.func.grad(f)(IMAGES),
        lambda f: torch.func.vmap(lambda x: f(x[None]))(IMAGES),
        lambda f: torch.func.jvp(f, (IMAGES,), (IMAGES,)),
        lambda f: torch.func.functionalize(f)(IMAGES),
        lambda f: torch.jit.trace(f, IMAGES),
        lambda f: make_fx(f)(IMAGES),
        lambda f: f(FakeTensorMode().from_tensor(IMAGES)),
    ],
    ids=["grad", "vmap", "jvp", "functionalize", "trace", "make_fx", "fake tensors"],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_transforms_of_functions_are_a_named_error(inside, call, adapter):
    def f(images):
        arguments = (fa.Labels({"dog": 1}),) if call == "refine" else ()
        getattr(adapter, call)(images, *arguments)
        return images.sum()

    with untouched(adapter.model), pytest.raises(InputError, match="ordinary tensors"):
        inside(f)


def test_a_compiled_function_that_refines_gives_what_it_gives_by_itself(adapter):
    def after(images):
        result = adapter.refine(images, fa.Labels({"dog": 1}))
        return result.outputs_after["output"] + adapter.predict(images)

    expected = after(IMAGES)
    torch.testing.assert_close(torch.compile(after, backend="eager")(IMAGES), expected)
