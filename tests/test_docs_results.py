"""Tables in the documentation hold what the results files hold."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DIRECTIVE = re.compile(r"^```\{results-table\} (.*)\n((?::.*\n)*)```$", re.M)


@pytest.fixture(scope="module")
def tables():
    """The extension of the documentation that makes them."""
    sys.path.insert(0, str(ROOT / "docs" / "_ext"))
    yield importlib.import_module("results_tables")
    sys.path.remove(str(ROOT / "docs" / "_ext"))


def test_no_written_table_is_stale(tables):
    assert tables.stale(tables.written()) == []


def test_a_stale_table_is_named_with_what_to_do(tables):
    path, text, command = tables.written()[0]
    (message,) = tables.stale([(path, text.replace("1", "2"), command)])
    assert path.name in message
    assert command in message


def test_every_page_names_tables_that_exist(tables):
    pages = [*ROOT.glob("docs/**/*.md"), *ROOT.glob("plugins/*/docs/*.md")]
    named = [m[1].split() for page in pages for m in DIRECTIVE.finditer(page.read_text("utf-8"))]
    assert {name for name, *_ in named} == set(tables.TABLES)


def test_a_table_has_the_numbers_of_its_file(tables):
    text = tables.TABLES["cnnf-evidence"]()
    rows = json.loads(
        (ROOT / "plugins/feedback-adapter-cnnf/results/evidence.json").read_text("utf-8")
    )["rows"]
    (first,) = [
        row["accuracy"]
        for row in rows
        if (row["checkpoint"], row["input"], row["evidence"]) == ("fashion-cnnf", "clean", "absent")
        and (row["method"], row["masked"]) == ("unrefined", True)
    ]
    line = next(line for line in text.splitlines() if "| fashion-cnnf | clean | absent" in line)
    assert f"{first:.1f}" in line
