"""Plugins: registered, listed, and never able to break the program."""

import dataclasses
import json
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import feedback_adapter as fa
from feedback_adapter import plugins
from feedback_adapter.errors import PluginError
from feedback_adapter.plugins import Plugins, scoped
from feedback_adapter.strategies import Residual
from feedback_adapter.testing import tiny_adapter, tiny_images

GOOD = """
from feedback_adapter import EvidenceSpec, Labels, hookimpl


@hookimpl
def feedback_adapter_evidence_types():
    return [EvidenceSpec("{name}", Labels, "a good one")]
"""


@pytest.fixture
def installed(tmp_path, monkeypatch) -> Path:
    """A folder whose distributions are installed for this process."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


REASONS = {
    "fa-raises": "RuntimeError: [/oops] of mine",
    "fa-exits": "SystemExit: bye",
    "fa-missing": "ModuleNotFoundError: No module named 'a_module_that_is_not_there'",
    "fa-hook": "SystemExit: 3",
    "fa-wrong": "TypeError: feedback_adapter_evidence_types must yield EvidenceSpec, not str",
}


def install_six(folder: Path, distribution: Callable[..., None]) -> None:
    """Six distributions, of which one works."""
    good = GOOD.format(name="x")
    distribution(folder, "fa-raises", "raise RuntimeError('[/oops] of mine')")
    distribution(folder, "fa-exits", "import sys\nsys.exit('bye')")
    distribution(folder, "fa-missing", "import a_module_that_is_not_there")
    distribution(folder, "fa-hook", good.replace("return [", "raise SystemExit(3)\n    ["))
    distribution(folder, "fa-wrong", good.replace("return [", "return ['y'] or ["))
    distribution(folder, "fa-good", GOOD.format(name="good"))


def test_failing_plugins_are_listed_and_harmless(tmp_path, distribution, program):
    install_six(tmp_path, distribution)
    done = program(tmp_path, "plugins", "--json")
    assert done.returncode == 0, done.stderr
    infos = {info["name"]: info for info in json.loads(done.stdout)["plugins"]}
    assert infos["builtin"]["status"] == "OK"
    assert {"labels"} <= set(infos["builtin"]["provides"]["evidence"])
    assert {"residual", "layerwise"} <= set(infos["builtin"]["provides"]["strategies"])
    assert infos["fa-good"] == {
        "name": "fa-good", "distribution": "fa-good", "version": "1.2", "status": "OK",
        "reason": "", "provides": {"evidence": ["good"]},
    }  # fmt: skip
    for name, reason in REASONS.items():
        assert infos[name] == {
            "name": name, "distribution": name, "version": "1.2", "status": "FAILED",
            "reason": reason, "provides": {},
        }  # fmt: skip


def test_everything_works_beside_failing_plugins(installed, command_line, distribution):
    install_six(installed, distribution)
    with scoped(entry_points=True):
        result = tiny_adapter().refine(tiny_images(2), fa.Labels({"cat": 1}))
        assert (result.losses[-1] < result.losses[0]).all()
        with pytest.raises(PluginError, match=r"no strategy 'mine'.*'fa-missing' failed to load"):
            tiny_adapter().refine(tiny_images(2), fa.Labels({"cat": 1}), strategy="mine")
        code, out, _ = command_line("plugins")
        assert code == 0
        for reason in REASONS.values():  # nothing is taken for markup
            assert reason in out


def test_strict_raises_and_names_the_plugin(installed, monkeypatch, distribution):
    monkeypatch.setenv(plugins.STRICT, "1")
    distribution(installed, "fa-strict", "raise RuntimeError('oops')", point="a-point")
    with pytest.raises(PluginError, match=r"'a-point' of 'fa-strict' failed: Runtime.*: oops") as e:
        Plugins()
    assert f"unset {plugins.STRICT}" in str(e.value)


@pytest.mark.parametrize("same", ["entry point", "evidence"])
def test_of_two_distributions_with_one_name_the_later_fails(
    installed, same, monkeypatch, distribution
):
    points = ("one", "one") if same == "entry point" else ("one", "two")
    names = ("one", "one") if same == "evidence" else ("one", "two")
    for which, point, name in zip(("first", "second"), points, names, strict=True):
        distribution(installed, f"fa-{which}", GOOD.format(name=name), point=point)
    said = r"Two plugins .*'one'.* 'fa-first' and .*'fa-second'"
    infos = {info.distribution: info for info in Plugins().infos()}
    assert infos["fa-first"].status == "OK"
    assert infos["fa-second"].status == "FAILED"
    assert re.search(said, infos["fa-second"].reason)
    monkeypatch.setenv(plugins.STRICT, "1")
    with pytest.raises(PluginError, match=said):
        Plugins()


# ---- in one process ----


class Twice(Residual):
    pass


def plugin(name: str = "mine", **hooks) -> types.ModuleType:
    """A plugin with hook functions."""
    module = types.ModuleType(name)
    for hook, specs in hooks.items():

        def implementation(specs=tuple(specs)):
            yield from specs

        setattr(module, f"feedback_adapter_{hook}", fa.hookimpl(implementation))
    return module


SPEC = fa.StrategySpec("twice", Twice, fa.ResidualOptions, "residual by another name")


def test_scoped_adds_for_the_time_of_a_with():
    images, told = tiny_images(2), fa.Labels({"cat": 1})
    before = plugins.plugins()
    with scoped(plugin(strategies=[SPEC])) as inside:
        assert plugins.plugins() is inside
        result = tiny_adapter().refine(images, told, strategy="twice")
        assert result.strategy == "twice"
        own = tiny_adapter().refine(images, told, strategy="residual")
        assert torch.equal(result.after, own.after)
        assert inside.infos()[-1].provides == {"strategies": ("twice",)}
        with scoped(), pytest.raises(PluginError, match="no strategy 'twice'"):
            plugins.strategy("twice")
        assert plugins.strategy("twice") is SPEC
    assert plugins.plugins() is before
    with pytest.raises(PluginError, match=r"no strategy 'residual2'. Did you mean 'residual'"):
        plugins.strategy("residual2")


class Mine(nn.Sequential):
    """A model that a plugin's strategy was made for."""


def mine_suits(facts: fa.Facts) -> float | None:
    return 9.0 if isinstance(facts.model, Mine) else None


OWN = fa.StrategySpec("own", Twice, fa.ResidualOptions, "mine", uses="trained", suits=mine_suits)


def test_a_plugins_strategy_is_the_default_for_its_own_models():
    images, told = torch.randn(2, 3), fa.Labels({"cat": 1})
    layers = [nn.Linear(3, 3), nn.Linear(3, 4)]
    labels = ["cat", "dog", "ball", "snow"]
    mine, other = (fa.wrap(kind(*layers), labels=labels) for kind in (Mine, nn.Sequential))
    with scoped(plugin(strategies=[OWN])):
        assert mine.refine(images, told).strategy == "own"
        assert mine.refine(images, told, step_size=0.1).strategy == "own"
        assert mine.refine(images, told, strategy="auto").strategy == "own"
        assert (
            mine.refine(images, told, prior_std=2.0).strategy == "newton"
        )  # it has no such option
        assert other.refine(images, told).strategy == "newton"
        chosen = fa.Adapter(mine.model, mine.outputs, defaults=fa.Defaults("layerwise"))
        assert chosen.refine(images, told).strategy == "layerwise"  # a checkpoint's own choice
        told = fa.Labels([{"cat": i % 2, "dog": i % 2} for i in range(2)])
        assert fa.choose_pivots(mine, images, told, pivots=["0"], steps=1).strategy == "own"
    assert mine.refine(images, told).strategy == "newton"
    missing = fa.Adapter(mine.model, mine.outputs, defaults=fa.Defaults("own"))
    with pytest.raises(PluginError, match=r"no strategy 'own', which this checkpoint was made for"):
        missing.refine(images, told)


def test_each_image_gets_the_strategy_that_suits_it():
    adapter, images = tiny_adapter(), tiny_images(4)
    adapter.fit_prior(torch.rand(9, 4), torch.eye(4).repeat(3, 1)[:9])
    told = fa.Labels([{"cat": 1}, None, {"dog": 0}, {"cat": 1, "dog": 0}])
    whole = adapter.refine(images, told)
    assert whole.strategies == ("posterior", "newton", "posterior", "posterior")
    assert whole.strategy == "posterior, newton"
    assert whole.moved == ((), whole.pivots, (), ())
    for row in range(4):
        rows = torch.tensor([row])
        alone = adapter.refine(images[rows], told.take(rows))
        assert alone.strategies == whole.strategies[row : row + 1]
        torch.testing.assert_close(alone.after, whole.after[rows], atol=1e-5, rtol=0)


def test_one_usable_label_does_not_switch_the_whole_batch():
    adapter, images = tiny_adapter(), tiny_images(3)
    adapter.fit_prior(torch.rand(9, 4), torch.eye(4).repeat(3, 1)[:9])

    def says(facts):
        return 30.0 if facts.known()["output"][:, 0].any() else None

    first = dataclasses.replace(OWN, suits=says)
    with scoped(plugin(strategies=[first])):
        result = adapter.refine(images, fa.Labels([{"dog": 1}, {"cat": 1}, {"snow": 1}]))
    assert result.strategies == ("posterior", "own", "posterior")


def test_a_strategy_says_what_it_uses():
    with pytest.raises(PluginError, match="uses='luck'.*'weights', 'statistics', 'trained'"):
        fa.StrategySpec("x", Twice, fa.ResidualOptions, "x", uses="luck")


def test_scoped_ends_with_an_error():
    before = plugins.plugins()
    with pytest.raises(ZeroDivisionError), scoped():
        raise ZeroDivisionError
    assert plugins.plugins() is before


def test_what_a_plugin_adds_is_found_by_name(tmp_path):
    checkpoint = fa.CheckpointSpec("tiny", tmp_path, "nothing in it")
    kind = fa.EvidenceSpec("said", fa.Labels, "labels by another name")
    with scoped(plugin(checkpoints=[checkpoint], evidence_types=[kind])) as inside:
        assert plugins.checkpoint("tiny") is checkpoint
        assert plugins.evidence_type("said") is kind
        assert inside.all("checkpoints") == [checkpoint]
        with pytest.raises(PluginError, match="no checkpoint 'tiyn'. Did you mean 'tiny'"):
            plugins.checkpoint("tiyn")


@pytest.mark.parametrize(
    ("hooks", "reason"),
    [
        ({"strategies": ["twice"]}, "must yield StrategySpec, not str"),
        ({"checkpoints": [SPEC]}, "must yield CheckpointSpec, not StrategySpec"),
        ({"strategies": [SPEC, SPEC]}, "yields 'twice' more than once"),
        ({"strategys": []}, "unknown hook 'feedback_adapter_strategys'"),
    ],
)
def test_hooks_that_yield_nonsense(hooks, reason):
    found = Plugins(entry_points=False)
    found.register(plugin(**hooks), "mine", "fa-mine")
    info = found.infos()[-1]
    assert (info.name, info.distribution, info.status) == ("mine", "fa-mine", "FAILED")
    assert reason in info.reason
    with pytest.raises(PluginError, match=r"no strategy 'twice'.*'mine' failed to load"):
        found.get("strategies", "twice")
    found.register(plugin(strategies=[SPEC]), "other")  # the name is still free
    assert found.get("strategies", "twice") is SPEC


def test_a_name_taken_twice_in_one_process():
    found = Plugins(entry_points=False)
    found.register(plugin(strategies=[SPEC]), "one", "fa-one")
    found.register(plugin(strategies=[SPEC]), "two", "fa-two")
    assert "Two plugins add strategies 'twice': 'fa-one' and 'fa-two'" in found.infos()[-1].reason
    found.register(plugin(), "one", "fa-three")
    assert "Two plugins are called 'one': one of 'fa-one' and" in found.infos()[-1].reason
    residual = fa.StrategySpec("residual", Twice, fa.ResidualOptions, "a thief")
    mine = fa.StrategySpec("mine", Twice, fa.ResidualOptions, "not added either")
    found.register(plugin(strategies=[mine, residual]), "thief", "fa-x")
    assert "strategies 'residual': 'feedback-adapter' and 'fa-x'" in found.infos()[-1].reason
    assert [info.name for info in found.infos() if info.status == "OK"] == ["builtin", "one"]
    assert found.get("strategies", "residual").strategy is Residual
    with pytest.raises(PluginError, match="no strategy 'mine'"):
        found.get("strategies", "mine")


def test_strict_in_one_process(monkeypatch):
    monkeypatch.setenv(plugins.STRICT, "1")
    with pytest.raises(PluginError, match=r"'mine' of 'fa-mine' failed: TypeError") as caught:
        Plugins(entry_points=False).register(plugin(strategies=[1]), "mine", "fa-mine")
    assert isinstance(caught.value.__cause__, TypeError)
