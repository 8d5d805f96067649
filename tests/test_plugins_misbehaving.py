"""Plugins that misbehave when they are loaded: listed with what is wrong, and the rest work."""

import json
import types

import pytest

import feedback_adapter as fa
from feedback_adapter import plugins
from feedback_adapter.errors import PluginError
from feedback_adapter.plugins import Plugins
from feedback_adapter.strategies import Residual

HEAD = """
import dataclasses
import feedback_adapter as fa
from feedback_adapter import *

@dataclasses.dataclass(frozen=True)
class O:
    x: int = 1

class S(fa.Strategy):
    def refine(self, problem): ...

class Loud(Exception):
    def __str__(self): raise RuntimeError("in str")

def spec(name="fine", strategy=S, options=O, summary="", **more):
    return fa.StrategySpec(name, strategy, options, summary, **more)

"""
HOOK = HEAD + "@hookimpl\ndef feedback_adapter_strategies():\n    "
ENDLESS = "while True:\n        yield spec()"
BAD = {
    "raises": ("raise RuntimeError('[/oops] mine')", "RuntimeError: [/oops] mine"),
    "exits": ("raise SystemExit(7)", "SystemExit: 7"),
    "generator-exit": ("raise GeneratorExit", "GeneratorExit"),
    "no-module": ("import not_there_at_all", "No module named 'not_there_at_all'"),
    "syntax": ("def", "SyntaxError"),
    "loud": (HEAD + "raise Loud", "Loud: (its text can't be shown)"),
    "surrogate": ("raise ValueError('\\ud800')", "ValueError: \\ud800"),
    "long": ("raise ValueError('x' * 10**6)", "ValueError: xxx"),
    "recursion": ("def f(): f()\nf()", "RecursionError"),
    "hook-exits": (HOOK + "raise SystemExit(3)", "SystemExit: 3"),
    "hook-generator-exit": (HOOK + "raise GeneratorExit", "GeneratorExit"),
    "hook-none": (HOOK + "return None", "TypeError"),
    "hook-text": (HOOK + "return 'residual'", "must yield StrategySpec, not str"),
    "hook-class": (HOOK + "return [fa.StrategySpec]", "must yield StrategySpec, not type"),
    "hook-late": (HOOK + "yield spec()\n    raise RuntimeError('late')", "RuntimeError: late"),
    "hook-endless": (HOOK + ENDLESS, "yields more than 1,000 specs"),
    "hook-argument": (HOOK.replace("es():", "es(x):") + "return []", "PluginValidationError"),
    "hook-unknown": (HOOK.replace("strategies", "strategys") + "return []", "strategys"),
    "taken": (HOOK + "return [spec('residual')]", "'residual': 'feedback-adapter' and 'fa-taken'"),
    "twice": (HOOK + "return [spec(), spec()]", "yields 'fine' more than once"),
    "unhashable": (HOOK + "return [spec([])]", "name=[]): it must be text"),
    "nameless": (HOOK + "return [spec(None)]", "name=None): it must be text"),
    "empty-name": (HOOK + "return [spec('')]", "name=''): it must be text"),
    "spaced-name": (HOOK + "return [spec('a b')]", "it must be text without spaces and '='"),
    "summary": (HOOK + "return [spec(summary=5)]", "summary=5): it must be one line of text"),
    "no-strategy": (HOOK + "return [spec(strategy=O)]", "it must be a subclass of Strategy"),
    "options-list": (HOOK + "return [spec(options=[])]", "it must be a frozen dataclass"),
    "options-class": (HOOK + "return [spec(options=S)]", "missing 1 required positional"),
    "options-thawed": (HOOK + "return [spec(options=dict)]", "it must be a frozen dataclass"),
    "suits": (HOOK + "return [spec(suits=1.0)]", "suits=1.0): it must be a function or None"),
    "uses": (HOOK + "return [spec(uses='luck')]", "has uses='luck'"),
    "parse": (
        HEAD + "@hookimpl\ndef feedback_adapter_evidence_types():\n"
        "    return [fa.EvidenceSpec('e', fa.Labels, '', 'parse')]",
        "parse='parse'): it must be a function or None",
    ),
    "path": (
        HEAD + "@hookimpl\ndef feedback_adapter_checkpoints():\n"
        "    return [fa.CheckpointSpec('c', 5, '')]",
        "path=5): it must be a folder",
    ),
}
NOISY = (
    "import os, subprocess\nprint('hello')\n" + HOOK + "print('again')\n    return [spec('noisy')]"
)


@pytest.fixture(scope="module")
def listed(tmp_path_factory, distribution, program) -> dict:
    """What `plugins --json` says where all of them are installed at once."""
    folder = tmp_path_factory.mktemp("bad")
    for name, (code, _) in BAD.items():
        distribution(folder, f"fa-{name}", code, point=name)
    distribution(folder, "fa-zz-noisy", NOISY, point="zz-noisy")
    done = program(folder, "plugins", "--json")
    assert done.returncode == 0, done.stderr
    return {info["name"]: info for info in json.loads(done.stdout)["plugins"]}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_plugin_is_listed_with_what_is_wrong(listed, name):
    info = listed[name]
    assert info["distribution"] == f"fa-{name}"
    assert (info["status"], info["version"], info["provides"]) == ("FAILED", "1.2", {})
    assert BAD[name][1] in info["reason"]
    assert len(info["reason"]) < 800


def test_the_others_work(listed):
    assert listed["builtin"]["status"] == "OK"
    assert "residual" in listed["builtin"]["provides"]["strategies"]
    assert listed["zz-noisy"]["provides"] == {"strategies": ["noisy"]}


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise SystemExit(7)", "SystemExit: 7"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("print('hello')\nraise RuntimeError", "RuntimeError"),
        ("", "TypeError: it is a module and not a function"),
    ],
)
def test_a_bad_command_only_breaks_itself(tmp_path, code, said, distribution, program):
    group = "feedback_adapter_commands"
    distribution(tmp_path, "fa-mine", code, point="mine", group=group)
    done = program(tmp_path, "mine")
    assert done.returncode == 2
    assert f"The command 'mine' of fa-mine can't be loaded: {said}" in done.stderr
    assert done.stdout == ""
    assert "mine" in program(tmp_path, "--help").stdout


# ---- in one process ----


class Odd:
    """A plugin whose attributes can't be looked at."""

    def __getattribute__(self, name):
        raise RuntimeError("don't look")


class Hook:
    """A plugin with one hook."""

    def __init__(self, specs):
        self.specs = specs

    @fa.hookimpl
    def feedback_adapter_strategies(self):
        return self.specs


class Shifty(fa.StrategySpec):
    """A spec whose name is another one each time."""

    def __getattribute__(self, name):
        if name == "name":
            object.__setattr__(self, "count", vars(self).get("count", 0) + 1)
            return f"shifty-{vars(self)['count']}"
        return super().__getattribute__(name)


class Text(str):
    """Text that can't be hashed."""

    __hash__ = None


ODD = {
    "none": lambda: None, "number": lambda: 5, "class": lambda: object, "odd": Odd,
    "hook's class": lambda: Hook, "number of specs": lambda: Hook(5),
    "dictionary of specs": lambda: Hook({1: 2}), "nothing": lambda: types.ModuleType("nothing"),
    "shifty": lambda: Hook([Shifty("x", Residual, fa.ResidualOptions, "")]),
    "unhashable": lambda: Hook([fa.StrategySpec(Text("x"), Residual, fa.ResidualOptions, "")]),
}  # fmt: skip


@pytest.mark.parametrize("which", ODD)
def test_nothing_that_is_registered_breaks_what_is_there(which):
    found = Plugins(entry_points=False)
    found.register(ODD[which](), "odd", "fa-odd")
    info = found.infos()[-1]
    assert info.name == "odd"
    for names in info.provides.values():
        assert all(found.get("strategies", name) is not None for name in names)
    assert found.get("strategies", "residual").strategy is Residual
    for name in (None, [], {}, 5, "odd", b"residual", "x" * 10**5):
        with pytest.raises(PluginError, match="There is no strategy"):
            found.get("strategies", name)


def test_an_interrupt_while_a_plugin_loads_is_an_interrupt(tmp_path, monkeypatch, distribution):
    before = plugins.plugins()
    distribution(tmp_path, "fa-waits", "raise KeyboardInterrupt")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        Plugins()
    assert plugins.plugins() is before
