"""The headings of the troubleshooting page are messages that the library really has."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
HEADINGS = re.findall(r"^### `(.+)`$", PAGE, re.M)
VALUE = "\0"


def text_of(node: ast.AST) -> str | None:
    """A string as it is written, with a mark for each value that is put in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or VALUE for part in node.values)
    return None


@pytest.fixture(scope="module")
def messages():
    """Every string of the library."""
    found: set[str] = set()
    for path in (ROOT / "feedback_adapter").rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        found |= {text for node in ast.walk(tree) if (text := text_of(node))}
    return found


def test_there_are_headings():
    assert len(HEADINGS) == len(set(HEADINGS)) > 15


@pytest.mark.parametrize("heading", HEADINGS)
def test_heading_is_a_message(heading, messages):
    assert len(heading.replace("…", "").strip()) > 12
    pattern = re.compile(re.escape(heading).replace("…", f".*?{VALUE}.*?"), re.S)
    assert any(pattern.search(message) for message in messages)
