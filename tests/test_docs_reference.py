"""Every public name is in the reference, and its pages name what there is."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

import feedback_adapter

PAGES = sorted((Path(__file__).parents[1] / "docs" / "api").glob("*.md"))
MODULE = re.compile(r"^\.\. automodule:: (\S+)\n((?:   :.*\n)*)", re.M)
DATA = re.compile(r"^\.\. py:data:: (\S+)", re.M)


def described() -> set[str]:
    """The full names of everything that the reference describes."""
    names: set[str] = set()
    for page in PAGES:
        text = page.read_text("utf-8")
        names |= set(DATA.findall(text))
        for module, options in MODULE.findall(text):
            given = re.search(r":members:(.*)", options)
            if given:
                listed = [name.strip() for name in given[1].split(",") if name.strip()]
                public = listed or importlib.import_module(module).__all__
                names |= {f"{module}.{name}" for name in public}
    return names


@pytest.mark.parametrize("name", feedback_adapter.__all__)
def test_every_public_name_is_in_the_reference(name):
    value = getattr(feedback_adapter, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert f"{value.__module__}.{value.__qualname__}" in described()
    else:
        assert f"feedback_adapter.hookspecs.{name}" in described()


def test_what_the_reference_names_is_there():
    for full in described():
        module, _, name = full.rpartition(".")
        assert hasattr(importlib.import_module(module), name), full
