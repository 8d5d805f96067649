"""Tables of results, made from the JSON files that the benchmarks write.

`results-table` names a table and, if the table needs them, options in words:

    ```{results-table} labels caption-words-lite0 mAP
    ```

Pages and tables that a benchmark writes as Markdown are compared with their JSON: one that is stale
is a warning, and so an error of `make docs`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import tables_annotate
import tables_backward
import tables_batch
import tables_cnnf
import tables_core
import tables_evaluate
from docutils import nodes
from markdown_tables import parsed
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[2]
TABLES: dict[str, Callable[..., str]] = {
    **tables_evaluate.TABLES,
    **tables_cnnf.TABLES,
    **tables_core.TABLES,
    **tables_annotate.TABLES,
    **tables_backward.TABLES,
    **tables_batch.TABLES,
}
_log = logging.getLogger(__name__)


class ResultsTable(SphinxDirective):
    """A table of `TABLES`, by name."""

    required_arguments = 1
    optional_arguments = 9
    option_spec: ClassVar[dict[str, Callable[[str], str]]] = {"without": str}

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # what it shows changes without this page
        name, *words = self.arguments
        if name not in TABLES:
            raise self.error(f"There is no table {name!r}; there are {', '.join(TABLES)}.")
        left_out = {w.strip() for w in self.options.get("without", "").split(";") if w.strip()}
        options = {"without": left_out} if left_out else {}
        return parsed(self, TABLES[name](*words, **options))


def written() -> list[tuple[Path, str, str]]:
    """What benchmarks write: the file, what must be in it, and the command that writes it."""
    folder = ROOT / "plugins" / "feedback-adapter-dfm"
    tables = _module("tables", folder / "benchmarks")
    command = f"python plugins/{folder.name}/benchmarks/tables.py"
    texts = tables.texts(folder / "results").items()
    return [
        *((folder / "docs" / "tables" / f"{name}.md", text, command) for name, text in texts),
        *tables_core.written_pages(),
        (ROOT / "README.md", tables_evaluate.readme(), "copy the table from this message"),
    ]


def stale(files: Iterable[tuple[Path, str, str]]) -> list[str]:
    """What is to be done about each file that doesn't hold its text any more."""
    return [
        f"{path.name} isn't what its JSON says any more. To write it anew: {command}\n{text}"
        for path, text, command in files
        if text not in path.read_text("utf-8")
    ]


def check(_app: Sphinx) -> None:
    """Compare every file with its JSON."""
    for message in stale(written()):
        _log.warning(message)


def _module(name: str, folder: Path) -> Any:
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("results-table", ResultsTable)
    app.connect("builder-inited", check)
    return {"parallel_read_safe": True}
