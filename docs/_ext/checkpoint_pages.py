"""A page for each checkpoint that is installed, from its config and its card, and a table of all.

The pages are written to `docs/zoo/` before the documentation is read. The directive
`checkpoint-table` is the table, with links to them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import checkpoint_pictures as pictures
from docutils import nodes
from markdown_tables import parsed, table
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from feedback_adapter.checkpoint import read_config
from feedback_adapter.checkpoint.format import WEIGHTS, read_card
from feedback_adapter.hookspecs import CheckpointSpec
from feedback_adapter.plugins import plugins

FOLDER = "zoo"
_KINDS = {
    "multilabel": "labels that can hold together",
    "multiclass": "classes that exclude each other",
    "tokens": "words, as a caption",
    "map": "labels for each pixel",
}
_MOST_LABELS = 40


def write_pages(app: Sphinx) -> None:
    """Write every page and picture that isn't there yet or has changed."""
    folder = Path(app.srcdir) / FOLDER
    specs = plugins().all("checkpoints")
    for spec in specs:
        picture = folder / "pictures" / f"{spec.name}.png"
        case = pictures.case_of(spec.name)
        if case is not None and _older(picture, [spec.path, Path(pictures.__file__)]):
            pictures.draw(spec.name, case, picture)
        _write(folder / f"{spec.name}.md", page(spec, case))
    for path in folder.glob("*.md"):
        if path.stem not in {spec.name for spec in specs}:
            path.unlink()


def page(spec: CheckpointSpec, case: pictures.Case | None) -> str:
    """The page of a checkpoint, in Markdown."""
    config = read_config(spec.path)
    parts = [f"# {spec.name}", config["summary"]]
    if case is not None:
        parts.append(
            f"```{{figure}} pictures/{spec.name}.png\n"
            f":alt: What {spec.name} predicts of {case.shows.split(';')[0]}, before and after\n\n"
            f"The image shows {case.shows}. The picture was drawn when this page was made.\n```"
        )
    parts += ["## Facts", table(("what", "value"), facts(config, spec.path))]
    parts += [f"### Labels of `{name}`\n\n{labels(output)}" for name, output in outputs(config)]
    parts += ["## Use it", f'```python\nadapter = fa.load("{spec.name}")\n```']
    card = _card(spec, config)
    if card:
        parts += ["## Card", "The card in the checkpoint's folder says:", card]
    return "\n\n".join(parts) + "\n"


def facts(config: Mapping[str, Any], folder: Path) -> Iterable[tuple[str, str]]:
    """What is short and can be said of every checkpoint."""
    built = config.get("architecture") or {}
    yield "network", f"`{built.get('model', '?')}` of {built.get('library', '?')}"
    for name, output in outputs(config):
        what = _KINDS.get(output["kind"], output["kind"])
        yield f"output `{name}`", f"{len(output['labels']):,} {what}"
    if seen := config.get("transform"):
        yield "input", f"photos, resized to {seen['size'][0]} x {seen['size'][1]} pixels"
    else:
        yield "input", "tensors; the card says how they are made"
    for name, value in scores(config):
        yield name, value
    how = config.get("refine") or {}
    if how.get("strategy") or how.get("pivots"):
        where = ", ".join(f"`{pivot}`" for pivot in how.get("pivots", ()))
        strategy = f"`{how['strategy']}`" if how.get("strategy") else "the default strategy"
        yield "refined by", f"{strategy}{f' at {where}' if where else ''}"
    yield "label statistics", "yes" if config.get("statistics") else "no"
    yield "licence of the data", config.get("license") or "see the card"
    size = (folder / WEIGHTS).stat().st_size
    yield "weights", f"{size / 1e6:.1f} MB, sha256 `{config['weights']['sha256'][:16]}…`"


def scores(config: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Its metrics, by name: those of a split that are a mapping become one line."""
    for name, value in (config.get("metrics") or {}).items():
        if isinstance(value, Mapping):
            which = "iteration " if all(key.isdigit() or key == "avg" for key in value) else ""
            said = "; ".join(
                f"{'' if key == 'avg' else which}{key}: {number:g}" for key, number in value.items()
            )
            yield f"scores on {name}", said
        else:
            split, _, metric = name.partition("_")
            yield f"{_METRICS.get(metric, metric)} on {split}", f"{value:g}"


_METRICS = {"map": "mean average precision", "cider": "CIDEr", "bleu4": "BLEU-4"}


def outputs(config: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """The outputs by name."""
    return config["outputs"].items()


def labels(output: Mapping[str, Any]) -> str:
    """The names of the labels, or of the first of them."""
    names = output["labels"]
    more = len(names) - _MOST_LABELS
    said = ", ".join(names[:_MOST_LABELS] if more > 0 else names)
    return f"{said} and {more:,} more." if more > 0 else f"{said}."


def _card(spec: CheckpointSpec, config: Mapping[str, Any]) -> str:
    """The card's text without what the page says already, its headings one level down."""
    text = re.sub(r"\A\s*# [^\n]*\n+", "", read_card(spec.path, config).text)
    text = text.strip().removeprefix(config["summary"])
    return re.sub(r"^(#+) ", r"#\1 ", text, flags=re.M).strip()


def _older(path: Path, sources: Iterable[Path]) -> bool:
    """Whether a file isn't there, or is older than one of its sources."""
    if not path.is_file():
        return True
    made = path.stat().st_mtime
    files = [f for s in sources for f in (s.iterdir() if s.is_dir() else [s])]
    return any(file.stat().st_mtime > made for file in files)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text("utf-8") != text:
        path.write_text(text, "utf-8")


class CheckpointTable(SphinxDirective):
    """One line for each checkpoint."""

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # what it shows changes without this page
        rows = []
        for spec in plugins().all("checkpoints"):
            config = read_config(spec.path)
            photos = "yes" if config.get("transform") else "no"
            rows.append((f"[{spec.name}]({FOLDER}/{spec.name}.md)", spec.summary, photos))
        text = table(("checkpoint", "what it is", "takes photos"), rows)
        return parsed(self, text)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write_pages)
    app.add_directive("checkpoint-table", CheckpointTable)
    return {"parallel_read_safe": True}
