"""Tables in Markdown, and directives whose content is made when the pages are."""

from __future__ import annotations

import re
from collections.abc import Iterable

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective


def line(cells: Iterable[object]) -> str:
    """One row of a table."""
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def table(heads: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """A table with headings."""
    heads = list(heads)
    return "\n".join([line(heads), line(["---"] * len(heads)), *map(line, rows)])


def parsed(directive: SphinxDirective, text: str) -> list[nodes.Node]:
    """Markdown as the nodes that it makes in a page. Figures aren't broken over lines."""
    text = re.sub(r"(?<=\d) ± (?=\d)", "\u00a0±\u00a0", text)
    text = re.sub(r"\[([-+]?[\d.]+), ([-+]?[\d.]+)\]", "[\\1,\u00a0\\2]", text)
    node = nodes.container()
    directive.state.nested_parse(StringList(text.splitlines(), directive.name), 0, node)
    return node.children
