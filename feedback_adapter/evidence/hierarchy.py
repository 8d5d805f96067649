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
from feedback_adapter.evidence.given import short
from feedback_adapter.names import find, place, singular

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
        """Every id, and every name in the singular, to the id it means: its most frequent sense."""
        found = {synset: synset for synset in self.names}
        for synset, names in self.names.items():
            for name in names:
                found[singular(name)] = self.senses.get(name.lower(), (synset,))[0]
        return found

    @functools.cached_property
    def classes_named(self) -> dict[str, list[str]]:
        """Every name, in the singular, to the ids of the classes that have it."""
        found: dict[str, list[str]] = {synset: [synset] for synset in self.classes}
        for synset in self.classes:
            for name in dict.fromkeys(map(singular, self.names[synset])):
                found.setdefault(name, []).append(synset)
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
        commas. 1,000 labels (or 1,001, with a background in front, which becomes "") that nearly
        all have the names of the classes at their places are ImageNet's in its usual order, and
        each is the class at its place; else a label means the only class of that name.
        """
        named = [self._candidates(label) for label in labels]
        extra = len(labels) - len(self.classes)
        if extra in (0, 1):  # one more in front is the background, no class of ImageNet
            own = zip(self.classes, named[extra:], strict=True)
            if sum(synset in found for synset, found in own) > 900:
                return [*[""] * extra, *self.classes]
        return [found[0] if len(found) == 1 else None for found in named]

    def _candidates(self, label: str) -> list[str]:
        exact = _own_names().get(label)
        return [exact] if exact else self.classes_named.get(singular(label.split(",")[0]), [])


@functools.cache
def _own_names() -> dict[str, str]:
    return dict(zip(imagenet_labels(), wordnet().classes, strict=True))


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
            id ("n02084071"), or one of the labels.
        labels: The fine labels.
        groups: `{coarse class: its labels}`; `None` for WordNet, by the labels' names.

    Returns:
        Indices into `labels`, ascending, at least one.

    Raises:
        EvidenceError: Unknown class, labels that aren't ImageNet's, or no label of it.
    """
    if groups is not None:
        return _grouped(name, labels, groups)
    net, ids = wordnet(), _ids(tuple(labels))
    strangers = [label for label, synset in zip(labels, ids, strict=True) if synset is None]
    if strangers:
        raise EvidenceError(
            f"What {name!r} includes isn't known: {len(strangers)} of {len(labels)} labels aren't "
            f"ImageNet's, or not clear: {', '.join(map(repr, strangers[:5]))}. "
            "Say it with Coarse(..., hierarchy={coarse class: [labels]})."
        )
    same, synset = find(name, labels), net.by_name.get(name, net.by_name.get(singular(name), ""))
    if not synset and not same:
        raise EvidenceError(
            f"WordNet has no {name!r} above ImageNet's classes. {did_you_mean(name, net.by_name)}"
        )
    found = [index for index, label in enumerate(ids) if label in net.below.get(synset, ())]
    if not found and not same:
        raise EvidenceError(f"None of the model's {len(labels)} labels is a kind of {name!r}.")
    if set(same) <= set(found):
        return found
    if len(same) == 1 and (not found or name == labels[same[0]]):
        return same
    could_be = [f"{labels[i]!r} ({ids[i]})" for i in same]
    could_be += [f"{net.names[synset][0]!r} ({synset})"] if found and found != same[:1] else []
    raise EvidenceError(
        f"{name!r} isn't clear: it could be {' or '.join(could_be)}. Say which, by name or by id."
    )


@functools.lru_cache(maxsize=8)
def _ids(labels: tuple[str, ...]) -> list[str | None]:
    return wordnet().ids_of(labels)


def _grouped(name: str, labels: Sequence[str], groups: Groups) -> list[int]:
    if not isinstance(groups, Mapping) or not all(isinstance(key, str) for key in groups):
        raise EvidenceError(f"hierarchy is {short(groups)}: it must be {{coarse class: [labels]}}.")
    keys = list(groups)
    members = groups[keys[place(name, keys, "There is no coarse class")]]
    if isinstance(members, str) or not isinstance(members, Iterable) or not list(members):
        raise EvidenceError(
            f"The hierarchy says that {name!r} includes {short(members)}: name at least one label "
            "in a list."
        )
    missing = f"The hierarchy says that {name!r} includes what is no label:"
    return sorted({place(member, labels, missing) for member in members})
