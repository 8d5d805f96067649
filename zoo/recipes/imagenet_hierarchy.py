"""Write WordNet's nouns above ImageNet's classes: `evidence/imagenet_hierarchy.json`.

WordNet 3.0's noun files (`data.noun`, `index.noun`) are in Debian's package wordnet-base;
timm knows the WordNet ids of the 1,000 classes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from timm.data import ImageNetInfo

TARGET = Path(__file__).parents[2] / "feedback_adapter" / "evidence" / "imagenet_hierarchy.json"


def main(
    wordnet: Annotated[Path, typer.Option(help="Folder with data.noun and index.noun.")],
    notice: Annotated[Path, typer.Option(help="File with WordNet's licence, as Debian ships it.")],
) -> None:
    """Follow every class up to `entity`, all parents of each."""
    classes = ImageNetInfo("imagenet-1k").label_names()
    nouns = read_nouns(wordnet / "data.noun")
    synsets: dict[str, tuple[list[str], list[str]]] = {}
    todo = list(classes)
    while todo:
        synset = todo.pop()
        if synset not in synsets:
            synsets[synset] = nouns[synset]
            todo += nouns[synset][1]
    count: dict[str, int] = {}
    for names, _ in synsets.values():
        for name in names:
            count[name.lower()] = count.get(name.lower(), 0) + 1
    senses: dict[str, list[str]] = {}
    for line in (wordnet / "index.noun").read_text().splitlines():
        name, *rest = line.split()
        name = name.replace("_", " ")
        if count.get(name, 0) > 1:  # WordNet lists the most frequent sense first
            found = [f"n{word}" for word in rest if len(word) == 8 and word.isdigit()]
            senses[name] = [synset for synset in found if synset in synsets]
    text = notice.read_text().partition("Files: *")[2].partition("Files: debian")[0]
    lines = [line.strip() for line in text.splitlines()]
    content = {
        "source": "WordNet 3.0; ImageNet-1k's classes in their usual order",
        "notice": " ".join(line for line in lines if line not in ("", ".")),
        "classes": classes,
        "synsets": dict(sorted(synsets.items())),
        "senses": senses,
    }
    TARGET.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


def read_nouns(file: Path) -> dict[str, tuple[list[str], list[str]]]:
    """Names and parents (hypernyms) of every noun synset, by its WordNet id."""
    nouns: dict[str, tuple[list[str], list[str]]] = {}
    for line in file.read_text().splitlines():
        if line.startswith("  "):  # the licence
            continue
        fields = line.partition(" | ")[0].split()
        count = int(fields[3], 16)
        names = [fields[4 + 2 * i].replace("_", " ") for i in range(count)]
        at = 4 + 2 * count
        pointers = [fields[at + 1 + 4 * i : at + 5 + 4 * i] for i in range(int(fields[at]))]
        parents = [f"n{p[1]}" for p in pointers if p[0] in ("@", "@i") and p[2] == "n"]
        nouns[f"n{fields[0]}"] = (names, parents)
    return nouns


if __name__ == "__main__":
    typer.run(main)
