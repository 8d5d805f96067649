"""Models and callers in a state that is hard: each test is named after it."""

import contextlib
import copy
import threading
import warnings

import pytest
import timm
import torch
from torch import nn
from torch.utils import checkpoint

import feedback_adapter as fa
from feedback_adapter.errors import InputError, ModelError
from feedback_adapter.sites import frozen
from feedback_adapter.testing import differences, snapshot, untouched

EVIDENCE = fa.Labels({"a": 1, "b": 0})


def refine(model, images, pivots="body", **options):
    return fa.wrap(model, labels=list("abcd")).refine(images, EVIDENCE, pivots=pivots, **options)


# ---- callers ----


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad], ids=lambda m: m.__name__)
def test_a_caller_inside(mode, net, images):
    outside = refine(net, images)
    with mode():
        inside = refine(net, images)
        made_inside = refine(net, images * 1.0)
        targets = torch.tensor([[1.0, 0, 0, 0]] * 3)
        evidence = fa.Labels.from_tensors(targets, torch.tensor([True, True, False, False]))
        adapter = fa.wrap(net, labels=list("abcd"))
        tensors = adapter.refine(images, evidence, pivots="body")
    assert torch.equal(tensors.after, outside.after)
    assert torch.equal(inside.after, outside.after)
    assert torch.equal(made_inside.after, outside.after)


def test_weights_made_under_inference_mode_are_a_named_error(net, images):
    with torch.inference_mode():
        model = copy.deepcopy(net)
    with pytest.raises(ModelError, match=r"'stem.0.weight' was made under torch.inference_mode"):
        refine(model, images)
    assert torch.equal(refine(copy.deepcopy(model), images).after, refine(net, images).after)


def test_a_model_on_the_meta_device_is_a_named_error(images):
    with torch.device("meta"):
        model = nn.Sequential(nn.Flatten(), nn.Linear(768, 4))
    with pytest.raises(ModelError, match="meta device"):
        refine(model, images, "0")


def test_images_on_another_device_than_the_model_are_a_named_error(net, images):
    with pytest.raises(InputError, match="The images are on meta, the model is on cpu"):
        refine(net, images.to("meta"))


@pytest.mark.parametrize("batch", [0, 1])
def test_batch_size(net, images, batch):
    result = refine(net, images[:batch])
    assert result.after.shape == (batch, 4)
    assert result.steps.shape == (batch,)
    assert torch.allclose(result.after, refine(net, images).after[:batch], atol=1e-5)


def test_autocast_is_kept(net, images):
    with torch.autocast("cpu", torch.bfloat16):
        plain = net(images)
        result = refine(net, images)
    assert plain.dtype == torch.bfloat16
    assert torch.equal(result.before, plain)
    assert (result.losses.amin(0) < result.losses[0]).all()


# ---- models ----


def test_channels_last_is_kept(net, images, holds):
    model = net.to(memory_format=torch.channels_last)
    seen = []
    model.body[0].register_forward_hook(
        lambda _, inputs, out: seen.append(
            out.is_contiguous(memory_format=torch.channels_last) and not out.is_contiguous()
        )
    )
    holds(model, images.to(memory_format=torch.channels_last), "stem")
    assert seen
    assert all(seen)


def test_bfloat16_is_kept(net, images, holds):
    result = holds(net.bfloat16(), images.bfloat16(), "stem", step_size=0.1)
    assert result.after.dtype == torch.bfloat16


@pytest.mark.parametrize("strategy", ["newton", "residual", "layerwise"])
@pytest.mark.parametrize("form", ["float16", "bfloat16", "autocast"])
def test_small_steps_are_not_rounded_away_in_half_precision(form, strategy, net, images):
    """In float16 Adam's smallest number is 0, and 0 / 0 isn't a number."""
    told, inside = fa.Labels({"a": 1, "b": 0}), contextlib.nullcontext()
    if form == "autocast":
        inside = torch.autocast("cpu", dtype=torch.float16)
    else:
        net, images = net.to(getattr(torch, form)), images.to(getattr(torch, form))
    with inside, untouched(net):
        result = fa.wrap(net, labels=list("abcd")).refine(
            images, told, strategy=strategy, pivots="stem"
        )
    assert result.improved.all()
    assert result.losses.dtype == torch.float32
    assert result.refined.dtype in (torch.float16, torch.bfloat16)


def test_float64_is_kept(net, images, holds):
    assert holds(net.double(), images.double(), "stem").after.dtype == torch.float64


def test_train_mode_is_left_for_the_time_and_restored(net, images):
    expected = refine(net, images).after
    net.train()
    net.body.append(nn.Dropout(0.5))
    net.stem[1].eval()  # a frozen batch norm in a model that trains
    flags = {name: module.training for name, module in net.named_modules()}
    statistics = copy.deepcopy(net.body[1].state_dict())
    assert torch.equal(refine(net, images, "body.2").before, refine(net, images).before)
    assert torch.equal(refine(net, images).after, expected)
    assert {name: module.training for name, module in net.named_modules()} == flags
    assert all(torch.equal(v, statistics[k]) for k, v in net.body[1].state_dict().items())


def test_gradients_and_frozen_parameters_are_left_alone(net, images, conformance):
    net(images).sum().backward()
    net.stem.requires_grad_(False)
    before = snapshot(net)
    refine(net, images, "stem")
    after = snapshot(net)
    assert not differences(before, after)
    assert not net.stem[0].weight.requires_grad
    assert net.head.weight.requires_grad


class Renames(nn.Module):
    """Its forward pass gives an attribute another name, and keeps what it holds."""

    def __init__(self):
        super().__init__()
        self.body, self.head, self.note = nn.Linear(4, 4), nn.Linear(4, 4), None

    def forward(self, images):
        if "note" in vars(self):
            del self.note
            self.other = None
        return self.head(self.body(images))


def test_an_attribute_that_changed_its_name_only_is_put_back():
    model = Renames()
    refine(model, torch.randn(2, 4))
    assert "note" in vars(model)
    assert "other" not in vars(model)


def test_an_exception_inside_leaves_the_model_as_it_was(net, images, conformance):
    net.train()
    before = snapshot(net)

    class Broken(fa.Labels):
        def bind(self, specs, batch):
            bound = super().bind(specs, batch)
            bound.loss = lambda outputs: 1 / 0
            return bound

    with pytest.raises(ZeroDivisionError):
        fa.wrap(net, labels=list("abcd")).refine(images, Broken({"a": 1}), pivots="body")
    after = snapshot(net)
    assert not differences(before, after)
    assert nn.Module.__call__.__name__ == "_wrapped_call_impl"


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "not-reentrant"])
def test_gradient_checkpointing(holds, net, images, reentrant):
    plain = refine(net, images, "stem.0").after

    class Model(type(net)):
        def forward(self, x):
            y = checkpoint.checkpoint(self.stem, x, use_reentrant=reentrant)
            y = checkpoint.checkpoint(self.body, y, use_reentrant=reentrant)
            return self.head(y.mean((2, 3)))

    net.__class__ = Model
    functions = dict(vars(checkpoint))
    for pivot in ("input", "stem.0", "stem", "body.1"):
        holds(net, images, pivot)
    assert torch.equal(refine(net, images, "stem.0").after, plain)
    assert all(getattr(checkpoint, name) is function for name, function in functions.items())


def test_gradient_checkpointing_of_timm(holds):
    model = timm.create_model("test_vit", num_classes=4).train()
    model.set_grad_checkpointing()
    holds(model, torch.randn(2, 3, 160, 160), "blocks.2")
    assert model.grad_checkpointing


def test_other_peoples_hooks(holds, net, images):
    calls = []
    net.stem.register_forward_pre_hook(lambda m, x: calls.append("pre"))
    net.body.register_forward_hook(lambda m, x, y: y * 2)  # a hook that changes what comes out
    net.body[0].register_forward_hook(lambda m, x, k, y: calls.append("kwargs"), with_kwargs=True)
    net.head.register_full_backward_hook(lambda m, a, b: calls.append("backward"))
    for pivot in ("stem", "body", "body.0"):
        holds(net, images, pivot)
    assert {"pre", "kwargs", "backward"} == set(calls)


def test_hooks_before_the_pivot_do_not_run_again(net, images):
    calls = []
    net.stem.register_forward_hook(lambda m, x, y: calls.append(1))
    refine(net, images, "body", steps=5, patience=None)
    # the recorded pass, two that look at the rows, one at the logits, and one more where images
    # left the batch
    assert len(calls) <= 5


# ---- compiled models ----


@pytest.fixture
def _no_compiler_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
        torch.compiler.reset()


@pytest.mark.usefixtures("_no_compiler_warnings")
@pytest.mark.parametrize("form", ["wrapper", "in place", "a child", "a child in place"])
def test_compiled_models_after_their_first_call(net, images, form):
    plain = refine(net, images)
    model = net
    if form == "wrapper":
        model = torch.compile(net, backend="eager")
    elif form == "in place":
        net.compile(backend="eager")
    elif form == "a child":
        net.body = torch.compile(net.body, backend="eager")
    else:
        net.body.compile(backend="eager")
    with torch.no_grad():
        expected = model(images)
    forward = model.forward
    result = refine(model, images)
    assert torch.equal(result.after, plain.after)
    inside = refine(model, images, "body.0")
    assert (inside.losses.amin(0) < inside.losses[0]).all()
    names = [site.name for site in fa.wrap(model, labels=list("abcd")).sites(images)]
    assert {"stem", "body", "body.0", "head"} <= set(names)
    assert not any("_orig_mod" in name for name in names)
    assert model.forward == forward
    with torch.no_grad():
        assert torch.equal(model(images), expected)


@pytest.mark.usefixtures("_no_compiler_warnings")
def test_the_compiler_is_given_back_by_the_last_of_two_threads(net):
    from torch._dynamo import eval_frame

    net.compile(backend="eager")
    stance = eval_frame._stance
    inside, go = threading.Event(), threading.Event()

    def hold():
        with frozen(net):
            inside.set()
            go.wait(10)

    thread = threading.Thread(target=hold)
    with frozen(net):
        thread.start()
        assert inside.wait(10)
    assert eval_frame._stance.stance == "force_eager"
    go.set()
    thread.join()
    assert eval_frame._stance is stance


# ---- several at once ----


def test_two_threads_refine_with_one_model(net, images, conformance):
    net.train()
    other = torch.randn(3, 3, 16, 16)
    expected = [refine(net, batch, "stem").after for batch in (images, other)]
    before = snapshot(net)
    results = [[], []]
    errors = []

    def work(index, batch):
        try:
            for _ in range(5):
                results[index].append(refine(net, batch, "stem").after)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i, b)) for i, b in enumerate((images, other))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for index, found in enumerate(results):
        assert all(torch.equal(value, expected[index]) for value in found)
    after = snapshot(net)
    assert not differences(before, after)


def test_a_thread_that_just_predicts_is_not_disturbed(net, images):
    expected = net(images)
    wrong, stop = [], threading.Event()

    def predict():
        while not stop.is_set():
            with torch.no_grad():
                if not torch.equal(net(images), expected):
                    wrong.append(1)

    thread = threading.Thread(target=predict)
    thread.start()
    for _ in range(5):
        refine(net, images, "stem")
    stop.set()
    thread.join()
    assert not wrong


def test_data_parallel_is_unwrapped(net, images):
    parallel = nn.DataParallel(net)
    assert fa.wrap(parallel, labels=list("abcd")).model is net
    assert torch.equal(refine(parallel, images).after, refine(net, images).after)
