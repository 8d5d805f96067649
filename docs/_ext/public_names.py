"""The directive `public-names`: every name of `feedback_adapter` with its first sentence."""

from __future__ import annotations

import inspect

from docutils import nodes
from markdown_tables import parsed, table
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import feedback_adapter


class PublicNames(SphinxDirective):
    """A table whose links must lead to the reference; one that doesn't is a warning."""

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # what it shows changes without this page
        rows = [
            (f"{{py:obj}}`{name} <{place(name)}>`", first_sentence(name))
            for name in sorted(feedback_adapter.__all__, key=str.lower)
        ]
        made = parsed(self, table(("name", "what it is"), rows))
        for part in made:
            for link in part.findall(addnodes.pending_xref):
                link["refwarn"] = True
        return made


def place(name: str) -> str:
    """Where the reference describes a public name."""
    value = getattr(feedback_adapter, name)
    if not inspect.isclass(value) and not inspect.isfunction(value):
        return f"feedback_adapter.hookspecs.{name}"  # a marker, which says nothing of itself
    return f"{value.__module__}.{value.__qualname__}"


def first_sentence(name: str) -> str:
    """What the docstring begins with."""
    if name == "hookimpl":
        return "Marks a function of a plugin as one that the library calls."
    said = inspect.getdoc(getattr(feedback_adapter, name)) or ""
    return " ".join(said.partition("\n\n")[0].split()).replace("|", "\\|")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("public-names", PublicNames)
    return {"parallel_read_safe": True}
