"""Running what plugins bring: errors are named, results checked, and models put right.

The library's own strategies and evidence run as they are, but for a check of the result. Beside
those of others the model is copied once per refinement, and compared with the copy afterwards.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import traceback
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from feedback_adapter import plugins
from feedback_adapter.errors import EvidenceError, FeedbackAdapterError, OptionsError, PluginError
from feedback_adapter.evidence.base import All, Evidence
from feedback_adapter.hookspecs import StrategySpec
from feedback_adapter.installed import reason
from feedback_adapter.outputs import Output, Outputs
from feedback_adapter.refinement import Refinement
from feedback_adapter.sites.kept import Kept
from feedback_adapter.strategies.base import Problem, Strategy

_FLAT = ("multilabel", "multiclass")
"""Kinds of outputs whose form is known before the model has run."""


class ModelChangedError(PluginError):
    """A strategy left something behind on the model."""


def title(spec: StrategySpec) -> str:
    """A strategy's name, and the distribution that it is of, if that isn't this one."""
    distribution = plugins.plugins().distribution(spec.strategy)
    return f"{spec.name!r} of {distribution!r}" if distribution else repr(spec.name)


def bind(evidence: Evidence, outputs: Mapping[str, Output], batch: int) -> Evidence:
    """Bind evidence to a model's outputs.

    Raises:
        EvidenceError: It isn't evidence, or doesn't fit the outputs or the batch.
        PluginError: Evidence of a plugin fails.
    """
    if not isinstance(evidence, Evidence):
        raise EvidenceError(
            f"evidence is a {type(evidence).__name__}: pass evidence such as Labels({{'dog': 1}})."
        )
    with Named():
        bound = evidence.bind(outputs, batch)
        if not isinstance(bound, Evidence):
            raise PluginError(f"{_who(evidence)}.bind returns a {type(bound).__name__}.")
    return bound


def tried(evidence: Evidence, problem: Problem, outputs: Mapping[str, Output]) -> Problem:
    """Try evidence that isn't the library's own on outputs that are all 0.

    Its bound form is that of the problem, which has at least one image.

    Returns:
        The same problem with evidence in which mistakes are allowed for.

    Raises:
        PluginError: Evidence fails, or breaks a promise.
    """
    bound = problem.evidence
    pairs = [(evidence, bound)]
    if isinstance(evidence, All) and isinstance(bound, All):
        pairs = zip(evidence.parts, bound.parts, strict=True)
    with Named():
        if all(spec.kind in _FLAT for spec in outputs.values()):
            for part, now in pairs:
                wrong = None if _is_ours(type(part)) else next(_broken(now, problem, outputs), None)
                if wrong is not None:
                    raise PluginError(f"{_who(part)} breaks a promise: {wrong}.")
        return problem.believed()


def run_each(
    runs: Sequence[tuple[StrategySpec, Any, Tensor]],
    problem: Problem,
    outputs: Mapping[str, Output],
) -> Refinement:
    """Run strategies, each with its options and on its own images, by their indices (k,).

    Their results are joined in the images' order.
    """
    parts: list[Refinement] = []
    for spec, options, rows in runs:
        part = problem if len(runs) == 1 else problem.take(rows)
        done = run(spec, options, part, outputs)
        parts.append(dataclasses.replace(done, strategies=(spec.name,) * len(rows)))
    if len(parts) == 1:
        return parts[0]
    return Refinement.cat(parts).take(torch.cat([rows for *_, rows in runs]).argsort())


def run(spec: StrategySpec, options: Any, problem: Problem, outputs: Mapping[str, Output]) -> Any:
    """Refine one batch, of at least one image, whose model is `frozen`.

    Raises:
        InputError: The model doesn't take these images.
        OptionsError: The result isn't finite.
        PluginError: A strategy that isn't the library's own fails, gives something else than a
            result, or leaves the model changed, which is put right.
    """
    who, ours = f"Strategy {title(spec)}", _is_ours(spec.strategy)
    try:
        with contextlib.nullcontext() if ours else _put_right(problem.model, who), Named(spec):
            result = spec.strategy(options).refine(problem)
    except PluginError as error:
        if not isinstance(error, ModelChangedError):
            problem.unrefined()  # a model that doesn't take the images is no plugin's fault
        raise
    wrong = next(complaints(result, outputs, problem.inputs.batch), None)
    if wrong is not None and ours:
        raise OptionsError(f"{who} can't refine this: {wrong}. Try smaller steps.")
    if wrong is not None:
        raise PluginError(f"{who} breaks a promise: {wrong}.")
    return result


class Named:
    """Names the plugin whose code fails in the `with`, and its distribution.

    An error of evidence that no plugin brings is the user's own: it gets a note. Interrupts and
    this library's own errors stay what they are, and so do errors from nobody's plugin.
    """

    def __init__(self, spec: StrategySpec | None = None) -> None:
        self.spec = spec

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, where: object) -> None:
        if error is None or isinstance(error, (FeedbackAdapterError, KeyboardInterrupt)):
            return
        owner, spec = _owner(error), self.spec
        if isinstance(owner, Evidence):
            who = _who(owner)
            if not plugins.plugins().distribution(type(owner)):
                error.add_note(f"{who} failed.")
                return
        elif spec is not None and not _is_ours(spec.strategy):
            who = f"Strategy {title(spec)}"
        else:
            return
        raise PluginError(f"{who} failed: {reason(error)}. Update or uninstall it.") from error


def complaints(result: Any, outputs: Mapping[str, Output], batch: int) -> Generator[str]:
    """What is wrong with what a strategy returned for a batch, a phrase for each."""
    if not isinstance(result, Refinement):
        yield f"it returned {type(result).__name__} and not a Refinement"
        return
    losses, steps, status = result.losses, result.steps, result.status
    if losses.ndim != 2 or losses.shape[1] != batch or not len(losses):
        yield f"losses is {tuple(losses.shape)}, not (steps + 1, {batch})"
    if not bool(losses.isfinite().all()):
        yield "losses aren't finite"
    if tuple(steps.shape) != (batch,) or steps.dtype != torch.long:
        yield f"steps is {steps.dtype} {tuple(steps.shape)}, not {torch.long} {(batch,)}"
    if len(status) != batch or not all(isinstance(said, str) and said for said in status):
        yield f"status is {status!r}, not a sentence for each of {batch} images"
    for name in outputs:
        before = result.outputs_before.get(name)
        if before is None or len(before) != batch:
            yield f"output {name!r} isn't there before, for {batch} images"
            continue
        mask = result.known.get(name)
        if mask is None or mask.shape != before.shape:
            yield f"known has no mask of {name!r}"
        for when in ("refined", "after"):
            value = getattr(result, f"outputs_{when}").get(name)
            if value is None:
                yield f"output {name!r} isn't there {when}"
            elif value.shape != before.shape or value.dtype != before.dtype:
                yield f"output {name!r} is {value.dtype} {tuple(value.shape)} {when}"
            elif value.requires_grad or before.requires_grad:
                yield f"{name!r} requires grad"
            elif not bool((value.isfinite() | ~before.isfinite()).all()):
                yield f"output {name!r} isn't finite {when}"


def _broken(bound: Evidence, problem: Problem, outputs: Mapping[str, Output]) -> Generator[str]:
    """The promises that bound evidence breaks on outputs that are all 0."""
    batch, device = problem.inputs.batch, problem.inputs.images.device
    blank = {name: spec.blank(batch, device).requires_grad_() for name, spec in outputs.items()}
    with torch.enable_grad():
        loss = bound.loss(Outputs(blank, outputs))
    if not isinstance(loss, Tensor) or tuple(loss.shape) != (batch,):
        yield f"its loss is {getattr(loss, 'shape', loss)}, not ({batch},)"
    elif not loss.is_floating_point() or not bool(loss.isfinite().all()):
        yield f"its loss is {loss.dtype} and isn't finite in every image: {loss.tolist()}"
    zeros = Outputs(blank, outputs).detach()
    known, clamped, found = bound.known(zeros), bound.clamp(zeros), False
    for name, value in zeros.items():
        mask, new = known.get(name), clamped.get(name)
        if mask is None or mask.dtype != torch.bool or mask.shape != value.shape:
            yield f"known has no bool mask {tuple(value.shape)} of output {name!r}"
        elif bool(mask.any()):
            found = True
        if new is None or new.shape != value.shape or not bool(new.isfinite().all()):
            yield f"clamp has no finite {tuple(value.shape)} of output {name!r}"
    if found and not loss.requires_grad:
        yield "its loss doesn't follow the outputs, so autograd can't: was it detached?"


def _owner(error: BaseException) -> Strategy[Any] | Evidence | None:
    """The innermost strategy or evidence, not of this library, whose method an error left."""
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        owner = frame.f_locals.get("self")
        if isinstance(owner, (Strategy, Evidence)) and not _is_ours(type(owner)):
            return owner
    return None


def _who(evidence: Evidence) -> str:
    kind = type(evidence)
    distribution = plugins.plugins().distribution(kind)
    return f"Evidence {kind.__name__!r} of {distribution or kind.__module__!r}"


def _is_ours(kind: type[Any]) -> bool:
    return kind.__module__.partition(".")[0] == __name__.partition(".")[0]


_lock = threading.Lock()
_kept: dict[int, tuple[Kept, set[object]]] = {}


@contextlib.contextmanager
def _put_right(model: nn.Module, who: str) -> Generator[None]:
    """Put right what the `with` leaves behind on a model, and say so.

    Where several threads hold one model, the last of them does.
    """
    holder = object()
    with _lock:
        kept, holders = _kept.setdefault(id(model), (Kept(model), set()))
        holders.add(holder)
    found: list[str] = []
    failed: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failed = error
        raise
    finally:
        with _lock:
            holders.discard(holder)
            if not holders:
                found = kept.put_back()
                _kept.pop(id(model), None)
        if found and not isinstance(failed, KeyboardInterrupt):
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            raise ModelChangedError(
                f"{who} left the model changed: {', '.join(found[:3])}{more}. "
                "The model is again what it was. Update or uninstall the plugin."
            ) from failed
