"""Which fine classes a coarse class has: the user's own groups, or ImageNet's by WordNet.

The ImageNet hierarchy is WordNet 3.0's (Miller, 1995; Fellbaum, 1998): every noun above
the 1,000 classes, with all its parents. Its licence is in `imagenet_hierarchy.json`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files

from feedback_adapter.errors import EvidenceError, did_you_mean

__all__ = ["Groups", "WordNet", "imagenet_labels", "members_of"]

Groups = Mapping[str, Sequence[str]]
"""A hierarchy of one level: `{coarse class: its fine labels}`."""


@dataclasses.dataclass(frozen=True)
class WordNet:
    """The part of WordNet that lies above ImageNet's classes.

    Args:
        classes: The 1,000 WordNet ids, in the usual order of ImageNet-1k.
        names: The names of each id, the most usual first.
        parents: The ids above each id.
        senses: For a name with several meanings its ids, the most frequent first.
    """

    classes: tuple[str, ...]
    names: Mapping[str, tuple[str, ...]]
    parents: Mapping[str, tuple[str, ...]]
    senses: Mapping[str, tuple[str, ...]]

    @functools.cached_property
    def by_name(self) -> dict[str, str]:
        """Every lower-case name, and every id, to the id it means."""
        found = {synset: synset for synset in self.names}
        for synset, names in self.names.items():
            for name in names:
                found[name.lower()] = self.senses.get(name.lower(), (synset,))[0]
        return found

    @functools.cached_property
    def below(self) -> dict[str, frozenset[str]]:
        """Find the classes that are at or below each id."""
        found: dict[str, set[str]] = {synset: set() for synset in self.names}
        for leaf in self.classes:
            todo = [leaf]
            while todo:
                synset = todo.pop()
                if leaf not in found[synset]:
                    found[synset].add(leaf)
                    todo += self.parents[synset]
        return {synset: frozenset(leaves) for synset, leaves in found.items()}

    def ids_of(self, labels: Sequence[str]) -> list[str | None]:
        """The class that each label means; `None` for labels that aren't of ImageNet.

        Labels are ids ("n02099601"), names ("golden retriever") or several of them with
        commas. A name that two classes share means the one at the label's own position
        among 1,000, else the more frequent.
        """
        own = dict(zip(imagenet_labels(), self.classes, strict=True))
        ids: list[str | None] = []
        for index, label in enumerate(labels):
            first = label.partition(",")[0].strip()
            here = self.classes[index] if len(labels) == len(self.classes) else None
            if here is not None and first.lower() in (n.lower() for n in self.names[here]):
                ids.append(here)
                continue
            synset = own.get(label) or self.by_name.get(first.lower())
            ids.append(synset if synset in self._leaves else None)
        return ids

    @functools.cached_property
    def _leaves(self) -> frozenset[str]:
        return frozenset(self.classes)


@functools.cache
def wordnet() -> WordNet:
    """Read the hierarchy that comes with the library; the file is read only once."""
    text = files("feedback_adapter.evidence").joinpath("imagenet_hierarchy.json").read_text("utf-8")
    content = json.loads(text)
    synsets = content["synsets"]
    return WordNet(
        tuple(content["classes"]),
        {synset: tuple(names) for synset, (names, _) in synsets.items()},
        {synset: tuple(parents) for synset, (_, parents) in synsets.items()},
        {name: tuple(ids) for name, ids in content["senses"].items()},
    )


@functools.cache
def imagenet_labels() -> tuple[str, ...]:
    """Return a unique name for each of ImageNet-1k's classes, in the usual order.

    Names that two classes share carry what is above them: "crane (wading bird)".
    """
    net = wordnet()
    first = [net.names[synset][0] for synset in net.classes]
    return tuple(
        f"{name} ({net.names[net.parents[synset][0]][0]})" if first.count(name) > 1 else name
        for name, synset in zip(first, net.classes, strict=True)
    )


def members_of(name: str, labels: Sequence[str], groups: Groups | None) -> list[int]:
    """Find the labels that belong to a coarse class.

    Args:
        name: The coarse class: a key of `groups`; without them, WordNet's name ("dog") or
            id ("n02084071").
        labels: The fine labels.
        groups: `{coarse class: its labels}`; `None` for WordNet, by the labels' names.

    Returns:
        Indices into `labels`, ascending, at least one.

    Raises:
        EvidenceError: Unknown class, labels that aren't ImageNet's, or no label of it.
    """
    if groups is not None:
        if name not in groups:
            raise EvidenceError(f"There is no coarse class {name!r}. {did_you_mean(name, groups)}")
        return _places(groups[name], labels, name)
    net = wordnet()
    ids = _ids(tuple(labels))
    synset = net.by_name.get(name.lower(), net.by_name.get(name))
    if all(label is None for label in ids):
        raise EvidenceError(
            f"What {name!r} includes isn't known: the labels ({', '.join(labels[:3])}, ...) aren't "
            "ImageNet's. Say it with Coarse(..., hierarchy={coarse class: [labels]})."
        )
    if synset is None:
        raise EvidenceError(
            f"WordNet has no {name!r} above ImageNet's classes. {did_you_mean(name, net.by_name)}"
        )
    inside = net.below[synset]
    found = [index for index, label in enumerate(ids) if label in inside]
    if not found:
        raise EvidenceError(f"None of the model's {len(labels)} labels is a kind of {name!r}.")
    return found


@functools.lru_cache(maxsize=8)
def _ids(labels: tuple[str, ...]) -> list[str | None]:
    return wordnet().ids_of(labels)


def _places(members: Iterable[str], labels: Sequence[str], name: str) -> list[int]:
    index = {label: i for i, label in enumerate(labels)}
    members = list(members)
    unknown = [member for member in members if member not in index]
    if unknown or not members:
        raise EvidenceError(
            f"The hierarchy says that {name!r} includes {(unknown or members)[:3]}: "
            f"{did_you_mean(unknown[0], labels) if unknown else 'name at least one label.'}"
        )
    return sorted(index[member] for member in members)
