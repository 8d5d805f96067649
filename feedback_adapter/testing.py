"""What the tests of a plugin use: tiny models, plugins for the time of a test, conformance checks.

    from feedback_adapter.testing import check_evidence, check_strategy, scoped, tiny_outputs

    def test_my_evidence_keeps_its_promises():
        check_evidence(MyEvidence("a"), tiny_outputs())

    def test_my_strategy_keeps_its_promises():
        check_strategy(MyStrategy, MyOptions())

The checks raise `ConformanceError`, an `AssertionError` that names the promise.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from feedback_adapter.adapter import Adapter
from feedback_adapter.errors import FeedbackAdapterError
from feedback_adapter.evidence.base import Evidence
from feedback_adapter.evidence.labels import Labels
from feedback_adapter.hookspecs import StrategySpec, hookimpl
from feedback_adapter.outputs import SINGLE, Output, Outputs
from feedback_adapter.plugins import scoped
from feedback_adapter.refinement import Refinement
from feedback_adapter.strategies.base import Strategy

__all__ = [
    "LABELS",
    "ConformanceError",
    "TinyNet",
    "check_evidence",
    "check_strategy",
    "scoped",
    "tiny_adapter",
    "tiny_images",
    "tiny_outputs",
    "untouched",
]

LABELS = ("cat", "dog", "snow", "ball")
"""The labels of the tiny models."""


class ConformanceError(FeedbackAdapterError, AssertionError):
    """A plugin breaks a promise that the library relies on."""


class TinyNet(nn.Module):
    """A network with what makes refinement hard, in 2,000 weights.

    Batch norm with statistics of its own, activations in place, a skip connection, a layer
    that is called twice, dropout. Sites: `stem`, `block`, `again#0`, `again#1`, `head` and
    more. It has no kinks: PyTorch rounds differently for other batch sizes, and where a ReLU
    sits within rounding of zero, an image's gradient in a batch isn't that of it alone.

    Args:
        labels: Number of outputs.
        seed: Of the weights.
    """

    def __init__(self, labels: int = len(LABELS), seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.stem = nn.Sequential(
                nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ELU(inplace=True)
            )
            self.block = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.GELU())
            self.again = nn.Conv2d(8, 8, 3, 1, 1)
            self.drop = nn.Dropout(0.5)
            self.head = nn.Linear(8, labels)
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    nn.init.normal_(module.running_mean, 0, 0.2)  # pyright: ignore[reportArgumentType]
                    nn.init.uniform_(module.running_var, 0.5, 1.5)  # pyright: ignore[reportArgumentType]
            nn.init.normal_(self.head.weight)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to (batch, labels)."""
        x = self.stem(images)
        x = x + self.block(x)
        x = self.again(self.again(x).tanh()).tanh_()
        return self.head(self.drop(x.mean((2, 3))))


def tiny_images(batch: int = 4, size: int = 16, seed: int = 0) -> Tensor:
    """Random images of random colours, (batch, 3, size, size), the same every time."""
    generator = torch.Generator().manual_seed(seed)
    colour = torch.randn(batch, 3, 1, 1, generator=generator)
    return colour + torch.randn(batch, 3, size, size, generator=generator)


def tiny_adapter(kind: str = "multilabel", *, double: bool = False) -> Adapter:
    """A `TinyNet` with `LABELS` as an adapter, in float64 if `double`."""
    net = TinyNet().eval()
    return Adapter(
        net.double() if double else net,
        {SINGLE: Output(LABELS, kind)},  # pyright: ignore[reportArgumentType]
    )


def tiny_outputs(
    batch: int = 4, *, kind: str = "multilabel", labels: Sequence[str] = LABELS, seed: int = 0
) -> Outputs:
    """Random logits of a model with one output, float64, for checks of evidence."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, len(labels), generator=generator, dtype=torch.float64)
    return Outputs({SINGLE: logits}, {SINGLE: Output(tuple(labels), kind)})  # pyright: ignore[reportArgumentType]


def check_evidence(evidence: Evidence, outputs: Outputs) -> None:
    """Check that evidence keeps the promises of `feedback_adapter.Evidence`.

    Args:
        evidence: What is known of `outputs.batch` images; vary it from image to image.
        outputs: Some logits in float64 (`tiny_outputs()`), of at least two images.

    Raises:
        ConformanceError: A promise that it breaks: the loss is (batch,), finite, right in its
            gradient and each image's own; the clamp keeps names and shapes, is finite, each
            image's own and changes nothing in place; `known` has every output; `take` picks;
            `evidence & evidence` has twice the loss.
    """
    who = type(evidence).__name__
    batch = outputs.batch
    originals = {name: value.clone() for name, value in outputs.items()}
    bound = evidence.bind(outputs.specs, batch)
    _require(isinstance(bound, Evidence), f"{who}.bind returns {type(bound).__name__}")
    loss = bound.loss(outputs)
    _require(tuple(loss.shape) == (batch,), f"{who}.loss is {tuple(loss.shape)}, not {(batch,)}")
    _require(bool(loss.isfinite().all()), f"{who}.loss isn't finite: {loss.tolist()}")
    known = bound.known(outputs)
    for name, value in outputs.items():
        mask = known.get(name)
        fine = mask is not None and mask.dtype == torch.bool and mask.shape == value.shape
        _require(fine, f"{who}.known has no bool mask {tuple(value.shape)} of output {name!r}")
    clamped = bound.clamp(outputs)
    for name, value in outputs.items():
        new = clamped[name]
        fine = new.shape == value.shape and new.dtype == value.dtype
        _require(fine, f"{who}.clamp makes {new.dtype} {tuple(new.shape)} of output {name!r}")
        _require(bool(new.isfinite().all()), f"{who}.clamp isn't finite for output {name!r}")
        same = torch.equal(value, originals[name])
        _require(same, f"{who} changes the outputs it is given, in place")
    for rows in _choices(batch):
        part = Outputs({name: value[rows] for name, value in outputs.items()}, outputs.specs)
        for form, taken in (("", evidence.take(rows)), (" once bound", bound.take(rows))):
            what = f"{who}.take({rows.tolist()}){form}"
            _close(taken.loss(part), loss[rows], f"{what} has another loss")
            for name, value in taken.clamp(part).items():
                _close(value, clamped[name][rows], f"{what} clamps {name!r} differently")
            for name, mask in taken.known(part).items():
                _require(torch.equal(mask, known[name][rows]), f"{what} knows something else")
    _check_gradient(who, bound, outputs)
    twice = (evidence & evidence).bind(outputs.specs, batch)
    _close(twice.loss(outputs), 2 * loss, f"the loss of {who} & {who} isn't the sum")


def _check_gradient(who: str, bound: Evidence, outputs: Outputs) -> None:
    leaves = {name: v.detach().clone().requires_grad_() for name, v in outputs.items()}

    def loss(*values: Tensor) -> Tensor:
        return bound.loss(outputs.replace(**dict(zip(leaves, values, strict=True))))

    try:
        torch.autograd.gradcheck(loss, tuple(leaves.values()))
    except RuntimeError as error:
        raise ConformanceError(f"{who}.loss has a wrong gradient: {error}") from error
    inputs = tuple(leaves.values())
    first = torch.autograd.grad(loss(*inputs)[0], inputs, allow_unused=True)
    for gradient in first:
        alone = gradient is None or not bool(gradient[1:].any())
        _require(alone, f"{who}.loss of image 0 depends on other images")


def check_strategy(
    strategy: type[Strategy[Any]] | StrategySpec,
    options: Any = None,
    *,
    adapter: Adapter | None = None,
    images: Tensor | None = None,
    evidence: Callable[[int], Evidence] | None = None,
    pivots: Any = "auto",
    atol: float = 1e-5,
) -> Refinement:
    """Check that a strategy keeps the promises of `feedback_adapter.Strategy`.

    Args:
        strategy: The class, or its spec.
        options: Its options; with a spec, by default those of no arguments.
        adapter: The model to refine; by default `tiny_adapter()`.
        images: A batch for it, of four or more; by default `tiny_images(8)`.
        evidence: Makes evidence for so many images; by default labels of two images of
            three. Nothing may be known of image 2.
        pivots: Sites, or `"auto"`.
        atol: How far, in logits, an image alone may be from the same image in the batch.

    Returns:
        The refinement of the batch, for checks of your own.

    Raises:
        ConformanceError: A promise that it breaks: shapes; what is before is what the model
            says; the loss falls; an image's result is its own; an image of which nothing is
            known stays as it is; the model is bit for bit what it was, after an error too.
    """
    adapter = adapter or tiny_adapter()
    images = tiny_images(8) if images is None else images
    make = evidence or _some_labels
    batch = len(images)
    kind = strategy.options if isinstance(strategy, StrategySpec) else type(options)
    strategy = strategy.strategy if isinstance(strategy, StrategySpec) else strategy
    spec = StrategySpec("strategy-under-test", strategy, kind, "under test")
    fine = dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen  # pyright: ignore
    _require(bool(fine), f"options are a {kind.__name__}: they must be a frozen dataclass")
    options = kind() if options is None else options

    def refine(chosen: Tensor, told: Evidence) -> Refinement:
        with scoped(_Only(spec)):
            return adapter.refine(chosen, told, strategy=spec.name, pivots=pivots, options=options)

    told = make(batch)
    with untouched(adapter.model):
        result = refine(images, told)
    _check_shapes(result, batch)
    plain = adapter.predict(images)
    for name, value in result.outputs_before.items():
        expected = plain if isinstance(plain, Tensor) else plain[name]
        _close(value, expected, f"output {name!r} before isn't what the model says", atol)
    after = told.bind(adapter.outputs, batch).loss(result.outputs_after)
    fell = float(after.sum()) < float(result.losses[0].sum())
    _require(fell, f"the evidence loss rose: {result.losses[0].tolist()} to {after.tolist()}")
    for name, value in result.outputs_after.items():
        for index in range(batch):
            rows = torch.tensor([index])
            alone = refine(images[rows], told.take(rows)).outputs_after[name]
            _close(alone, value[rows], f"image {index} depends on its batch mates", atol)
        stays = f"image 2, of which nothing is known, changes in output {name!r}"
        _close(value[2], result.outputs_before[name][2], stays, atol)
    with untouched(adapter.model), contextlib.suppress(_BrokenError):
        refine(images, _Broken(told))
    return result


@contextlib.contextmanager
def untouched(model: nn.Module) -> Generator[None]:
    """Check that what happens in the `with` leaves a model bit for bit as it is.

    Also where an exception leaves it. Compared are the weights and buffers and their
    identity, gradients, `requires_grad`, every attribute of every module (training flags,
    hooks and `forward` are some), and `nn.Module.__call__`.

    Raises:
        ConformanceError: Something differs; it says what.
    """
    before = _state(model)
    try:
        yield
    finally:
        after = _state(model)
        for what in before.keys() | after.keys():
            if what not in before or what not in after:
                raise ConformanceError(f"{what} {'appeared' if what in after else 'is gone'}")
            if not _same(before[what], after[what]):
                raise ConformanceError(f"{what} changed: {before[what]!r} to {after[what]!r}")


def _state(model: nn.Module) -> dict[str, Any]:
    state: dict[str, Any] = {"nn.Module.__call__": nn.Module.__call__}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        state[f"{name} (identity)"] = id(tensor)
        state[name] = tensor.detach().clone()
        state[f"{name}.requires_grad"] = tensor.requires_grad
        state[f"{name}.grad"] = None if tensor.grad is None else tensor.grad.detach().clone()
        state[f"{name}._version"] = None if tensor.is_inference() else tensor._version
    for path, module in model.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, dict):  # hooks, parameters, buffers, children
                value = [(k, id(v)) for k, v in value.items()]
            elif not isinstance(value, (bool, int, float, str, type(None))):
                value = id(value)
            state[f"{path or 'model'}.{key}"] = value
    return state


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        return torch.equal(before.nan_to_num(1e9), after.nan_to_num(1e9))
    return type(before) is type(after) and bool(before == after)


def _check_shapes(result: Refinement, batch: int) -> None:
    losses = result.losses
    fine = losses.ndim == 2 and losses.shape[1] == batch and len(losses) >= 1
    _require(fine, f"losses is {tuple(losses.shape)}, not (steps + 1, {batch})")
    _require(bool(losses.isfinite().all()), "losses aren't finite")
    steps, status = result.steps, result.status
    fine = tuple(steps.shape) == (batch,) and steps.dtype == torch.long
    _require(fine, f"steps is {steps.dtype} {tuple(steps.shape)}, not {torch.long} {(batch,)}")
    fine = len(status) == batch and all(isinstance(said, str) and said for said in status)
    _require(fine, f"status is {status!r}, not a sentence for each of {batch} images")
    for name, value in result.outputs_before.items():
        after = result.outputs_after[name]
        fine = after.shape == value.shape and after.dtype == value.dtype
        _require(fine, f"output {name!r} is {after.dtype} {tuple(after.shape)} after")
        _require(not (value.requires_grad or after.requires_grad), f"{name!r} requires grad")
        mask = result.known.get(name)
        _require(mask is not None and mask.shape == value.shape, f"known has no mask of {name!r}")


class _Only:
    """A plugin with one strategy."""

    def __init__(self, spec: StrategySpec) -> None:
        self.spec = spec

    @hookimpl
    def feedback_adapter_strategies(self) -> list[StrategySpec]:
        return [self.spec]


class _BrokenError(Exception):
    """What broken evidence raises."""


class _Broken(Evidence):
    """Evidence that fails when its loss or its clamp has been asked for twice."""

    def __init__(self, told: Evidence) -> None:
        self.told, self.calls = told, 0

    def _count(self) -> None:
        self.calls += 1
        if self.calls > 2:
            raise _BrokenError

    def bind(self, specs: Any, batch: int) -> Evidence:
        self.told = self.told.bind(specs, batch)
        return self

    def loss(self, outputs: Outputs) -> Tensor:
        self._count()
        return self.told.loss(outputs)

    def clamp(self, outputs: Outputs) -> Outputs:
        self._count()
        return self.told.clamp(outputs)

    def known(self, outputs: Outputs) -> dict[str, Tensor]:
        return self.told.known(outputs)

    def take(self, images: Tensor) -> Evidence:
        return _Broken(self.told.take(images))


def _some_labels(batch: int) -> Evidence:
    rows = [{"dog": float(i % 2), "snow": 1 - float(i % 2)} for i in range(batch)]
    return Labels([row if i % 3 != 2 else None for i, row in enumerate(rows)])


def _choices(batch: int) -> list[Tensor]:
    rows = [torch.arange(batch).flip(0), torch.tensor([0]), torch.tensor([batch - 1, 0, 0])]
    return [*rows, torch.arange(0, batch, 2)]


def _close(value: Tensor, expected: Tensor, broken: str, atol: float = 1e-9) -> None:
    apart = float((value - expected).abs().amax()) if value.numel() else 0.0
    _require(value.shape == expected.shape and apart <= atol, f"{broken} (by {apart:.1e} at most)")


def _require(fine: bool, broken: str) -> None:
    if not fine:
        raise ConformanceError(f"Broken promise: {broken}.")
