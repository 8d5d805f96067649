"""What plugins' strategies and evidence do wrong is named, and the model is what it was."""

import dataclasses
import threading
import warnings

import pytest
import torch
from torch import nn

import feedback_adapter as fa
from feedback_adapter.errors import InputError, OptionsError, PluginError, SiteError
from feedback_adapter.guard import ModelChangedError
from feedback_adapter.plugins import scoped
from feedback_adapter.strategies import Newton
from feedback_adapter.testing import TinyNet, tiny_adapter, tiny_images, untouched

TOLD = fa.Labels({"cat": 1})


@dataclasses.dataclass(frozen=True)
class Options:
    number: object = 1

    def __post_init__(self):
        if self.number == "bad":
            raise ZeroDivisionError("no number")


class Plugin:
    """A plugin with one strategy, whose `refine` is a function."""

    def __init__(self, function, suits=None):
        self.function, self.suits = function, suits

    @fa.hookimpl
    def feedback_adapter_strategies(self):
        function = self.function

        class Mine(fa.Strategy):
            def refine(self, problem):
                return function(problem)

        return [fa.StrategySpec("mine", Mine, Options, "", suits=self.suits)]


def refine(function, adapter=None, told=TOLD, **arguments):
    with scoped(Plugin(function)):
        adapter = adapter or tiny_adapter()
        return adapter.refine(tiny_images(2), told, strategy="mine", **arguments)


def newton(problem):
    return Newton(fa.NewtonOptions()).refine(problem)


def changed(**fields):
    return lambda problem: dataclasses.replace(newton(problem), **fields)


def output(make):
    def function(problem):
        result = newton(problem)
        value = make(result.outputs_after["output"])
        return dataclasses.replace(
            result, outputs_after=fa.Outputs(value, result.outputs_after.specs)
        )

    return function


def raises(error):
    def function(problem):
        raise error

    return function


# ---- errors ----


@pytest.mark.parametrize(
    "error",
    [
        KeyError("zz"),
        SystemExit(3),
        GeneratorExit(),
        RecursionError(),
        StopIteration(),
        OSError(2, "no"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_names_the_strategy_and_its_distribution(error):
    with pytest.raises(PluginError, match="Strategy 'mine' of 'Plugin-0' failed: ") as caught:
        refine(raises(error))
    assert caught.value.__cause__ is error
    assert type(error).__name__ in str(caught.value)


def test_a_model_that_does_not_take_the_images_is_no_plugins_fault():
    def refine_two_channels(problem):
        return problem.read(problem.model(*problem.inputs.args))

    with scoped(Plugin(refine_two_channels)), pytest.raises(InputError, match="TinyNet raised"):
        tiny_adapter().refine(tiny_images(2)[:, :2], TOLD, strategy="mine", pivots="input")


def test_an_interrupt_stays_an_interrupt():
    with pytest.raises(KeyboardInterrupt):
        refine(raises(KeyboardInterrupt()))


def test_an_error_of_this_library_keeps_its_kind_and_says_whose_strategy_it_is():
    with pytest.raises(SiteError, match="strategy='mine' of 'Plugin-0'"):
        refine(raises(SiteError("no")))


def test_an_error_of_options_is_an_options_error():
    with pytest.raises(OptionsError, match="'mine' can't take .*ZeroDivisionError: no number"):
        refine(newton, number="bad")


class Bad(fa.Labels):
    """Evidence one of whose methods goes wrong."""

    def __init__(self, said, method, function):
        super().__init__(said)
        self.method, self.function = method, function

    def bind(self, specs, batch):
        if self.method == "bind":
            return self.function(None)
        bound = super().bind(specs, batch)
        old = getattr(bound, self.method)
        setattr(bound, self.method, lambda outputs: self.function(old(outputs)))
        return bound


PROMISES = {
    "scalar": ("loss", lambda loss: loss.sum(), r"its loss is torch.Size\(\[\]\), not \(2,\)"),
    "number": ("loss", lambda loss: 1.0, r"its loss is 1.0, not \(2,\)"),
    "per label": ("loss", lambda loss: loss[:, None], r"its loss is .*not \(2,\)"),
    "NaN": ("loss", lambda loss: loss * float("nan"), "isn't finite"),
    "whole": ("loss", lambda loss: loss.long(), "torch.int64"),
    "detached": ("loss", lambda loss: loss.detach(), "doesn't follow the outputs.*detached"),
    "no mask": ("known", lambda known: {}, "known has no bool mask"),
    "floats": ("known", lambda known: {n: k.float() for n, k in known.items()}, "no bool mask"),
    "inf": ("clamp", lambda o: o.replace(output=o["output"] / 0), "clamp has no finite"),
    "narrow": ("clamp", lambda o: o.replace(output=o["output"][:, :1]), "clamp has no finite"),
}


@pytest.mark.parametrize("promise", PROMISES)
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "joined"])
def test_evidence_that_breaks_a_promise_is_named(promise, alone):
    method, function, said = PROMISES[promise]
    told = Bad({"cat": 1}, method, function)
    with pytest.raises(PluginError, match=f"Evidence 'Bad' of 'tests.test_guard' breaks.*{said}"):
        tiny_adapter().refine(tiny_images(2), told if alone else fa.Labels({"dog": 0}) & told)
    with pytest.raises(PluginError, match="Evidence 'Bad' of 'Plugin-0' breaks"):
        refine(newton, told=told)  # the plugin that has this module


def test_what_bind_returns_is_checked():
    with pytest.raises(PluginError, match="Evidence 'Bad' .*bind returns a NoneType"):
        tiny_adapter().refine(tiny_images(2), Bad({"cat": 1}, "bind", lambda _: None))


class Failing(fa.Labels):
    def bind(self, specs, batch):
        raise ZeroDivisionError("mine")


def test_an_error_in_evidence_names_its_plugin_and_an_error_of_ones_own_gets_a_note():
    with pytest.raises(PluginError, match="Evidence 'Failing' of 'Plugin-0' failed: ZeroDivis"):
        refine(newton, told=Failing({"cat": 1}))
    with pytest.raises(ZeroDivisionError) as caught:
        tiny_adapter().refine(tiny_images(2), Failing({"cat": 1}))
    assert caught.value.__notes__ == ["Evidence 'Failing' of 'tests.test_guard' failed."]


# ---- results ----

RESULTS = {
    "None": (lambda problem: None, "returned NoneType and not a Refinement"),
    "NaN": (output(lambda v: {"output": v * float("nan")}), "output 'output' isn't finite after"),
    "one inf": (
        output(lambda v: {"output": v.index_fill(1, torch.tensor(0), torch.inf)}),
        "finite",
    ),
    "shape": (output(lambda v: {"output": torch.zeros(7, 3)}), r"\(7, 3\) after"),
    "missing": (output(lambda v: {}), "output 'output' isn't there after"),
    "dtype": (output(lambda v: {"output": v.double()}), "torch.float64"),
    "attached": (output(lambda v: {"output": v.clone().requires_grad_()}), "requires grad"),
    "losses": (changed(losses=torch.zeros(3)), r"losses is \(3,\), not \(steps \+ 1, 2\)"),
    "NaN losses": (changed(losses=torch.full((2, 2), torch.nan)), "losses aren't finite"),
    "steps": (changed(steps=torch.zeros(2)), "steps is torch.float32"),
    "status": (changed(status=("fine",)), "status is .*not a sentence for each of 2 images"),
    "known": (changed(known={}), "known has no mask of 'output'"),
}


@pytest.mark.parametrize("which", RESULTS)
def test_a_result_is_checked(which):
    function, said = RESULTS[which]
    with pytest.raises(
        PluginError, match=f"Strategy 'mine' of 'Plugin-0' breaks a promise: .*{said}"
    ):
        refine(function)


# ---- what is left behind ----


def write_grad(model):
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)


def replace_class_forward(model):
    type(model).forward = lambda self, x: x


def nan_weights(model):
    model.head.weight.data.fill_(torch.nan)


def other_shape(model):
    model.head.bias.data = torch.zeros(1)


TOUCHES = {
    "head.weight": nan_weights,
    "head.bias": other_shape,
    "stem.0.weight": lambda model: model.stem[0].weight.data.add_(1),
    "stem._forward_hooks": lambda model: model.stem.register_forward_hook(lambda *_: None),
    "stem._backward_hooks": lambda model: model.stem.register_full_backward_hook(lambda *_: None),
    "model._forward_pre_hooks": lambda model: model.register_forward_pre_hook(lambda *_: None),
    "stem.forward": lambda model: setattr(model.stem, "forward", lambda x: x),
    "model.eval": lambda model: setattr(model, "eval", lambda: None),
    "again._parameters": lambda model: setattr(model.again, "weight", nn.Parameter(torch.ones(1))),
    "model._modules": lambda model: setattr(model, "extra", nn.Linear(2, 2)),
    "model.training": lambda model: model.train(),
    "stem.0.weight.grad": write_grad,
    "Net.forward": replace_class_forward,
}


class Net(TinyNet):
    """A model whose class is its own."""

    def forward(self, x):
        return super().forward(x)


@pytest.mark.parametrize("error", [None, ZeroDivisionError], ids=["no error", "error"])
@pytest.mark.parametrize("what", TOUCHES)
def test_what_a_strategy_leaves_behind_is_named_and_put_right(what, error):
    def function(problem):
        result = newton(problem)
        TOUCHES[what](problem.model)
        if error:
            raise error
        return result

    adapter = fa.wrap(Net(), labels=tiny_adapter().labels)
    adapter.model.train()
    before, forward = adapter.predict(tiny_images(2)), Net.forward
    with pytest.raises(ModelChangedError, match="left the model changed: .*what it was") as caught:
        refine(function, adapter)
    assert what in str(caught.value)
    assert Net.forward is forward
    assert adapter.model.training
    assert torch.equal(adapter.predict(tiny_images(2)), before)
    assert (caught.value.__cause__ is not None) == bool(error)
    assert all(parameter.grad is None for parameter in adapter.model.parameters())
    refine(newton, adapter)  # nothing is left to complain of


def test_gradients_of_ones_own_training_are_kept():
    adapter = tiny_adapter()
    adapter.model(tiny_images(2)).sum().backward()
    with untouched(adapter.model):
        refine(newton, adapter)

    def function(problem):
        for parameter in problem.model.parameters():
            parameter.grad.zero_()
        return newton(problem)

    grads = [parameter.grad.clone() for parameter in adapter.model.parameters()]
    with pytest.raises(ModelChangedError, match=r"\.grad"):
        refine(function, adapter)
    now = [parameter.grad for parameter in adapter.model.parameters()]
    assert all(map(torch.equal, now, grads))


def test_threads_that_share_a_model_dont_accuse_each_other():
    adapter, meet, failed = tiny_adapter(), threading.Barrier(2, timeout=20), []

    def function(problem):
        hook = problem.model.stem.register_forward_hook(lambda *_: None)
        meet.wait()
        hook.remove()
        meet.wait()
        return newton(problem)

    def work():
        try:
            adapter.refine(tiny_images(2), TOLD, strategy="mine")
        except fa.FeedbackAdapterError as error:
            failed.append(error)

    with scoped(Plugin(function)), untouched(adapter.model):
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert failed == []


# ---- suits ----


@pytest.mark.parametrize(
    "suits",
    [lambda _: 1 / 0, lambda _: "very", lambda _: float("nan"), lambda _: [1], lambda _: 10**400],
)
def test_a_strategy_that_cant_say_how_well_it_suits_is_left_out(suits):
    adapter, images = tiny_adapter(), tiny_images(2)
    plain = adapter.refine(images, TOLD)
    with scoped(Plugin(newton, suits)), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = adapter.refine(images, TOLD)
    assert torch.equal(result.after, plain.after)
    assert "Strategy 'mine' (tests.test_guard." in str(caught[0].message)


# ---- pivots ----


@pytest.mark.parametrize(
    ("pivots", "said"),
    [
        (5, "pivots=5 names no site"),
        ([5], "A pivot is 5: pass the name of a site"),
        ("", "There is no site ''"),
        ([], "pivots is empty"),
        ("stem#x", "no site 'stem#x'. Did you mean 'stem'"),
        ("stem#²", "no site 'stem#²'"),
        ("nowhere", "no site 'nowhere'"),
        (nn.Linear(1, 1), "A pivot is a Linear, not a name. It is no part of the model"),
    ],
    ids=str,
)
@pytest.mark.parametrize("strategy", ["newton", "posterior", "clamp"])
def test_pivots_are_checked_whatever_the_strategy(strategy, pivots, said):
    adapter = tiny_adapter()
    adapter.fit_prior(torch.rand(9, 4), torch.eye(4).repeat(3, 1)[:9])
    with untouched(adapter.model), pytest.raises(SiteError, match=said):
        adapter.refine(tiny_images(2), TOLD, strategy=strategy, pivots=pivots)


def test_a_module_as_a_pivot_is_told_its_name():
    adapter = tiny_adapter()
    with pytest.raises(SiteError, match="A pivot is a .*, not a name. Pass its name, 'stem'"):
        adapter.refine(tiny_images(2), TOLD, pivots=[adapter.model.stem])
