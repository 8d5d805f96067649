"""Names of labels: what can be a list of them, and which label a user's word means."""

from __future__ import annotations

import contextlib
import functools
import numbers
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from feedback_adapter.errors import EvidenceError, ModelError, did_you_mean

__all__ = ["find", "label_list", "normal", "place", "singular"]

_IRREGULAR = {
    "buses": "bus", "children": "child", "feet": "foot", "geese": "goose", "knives": "knife",
    "leaves": "leaf", "men": "man", "mice": "mouse", "people": "person", "sheep": "sheep",
    "teeth": "tooth", "wolves": "wolf", "women": "woman",
}  # fmt: skip


def label_list(labels: Any) -> tuple[str, ...]:
    """Make a tuple of names from whatever holds a name for each entry of an output.

    Args:
        labels: A list, an array or a column of a table of texts or numbers, in order; or a
            mapping `{id: name}` (or `{name: id}`) whose ids count from 0.

    Returns:
        The names. A number becomes its text.

    Raises:
        ModelError: There are none, one isn't a text or a number, two are the same, or the order
            isn't clear.

    Example:
        >>> label_list(range(3)), label_list({"1": "dog", "0": "cat"})
        (('0', '1', '2'), ('cat', 'dog'))
    """
    if isinstance(labels, Mapping):
        labels = _by_id(dict(labels))
    items: Any = None
    if not isinstance(labels, (str, bytes, set, frozenset)):
        with contextlib.suppress(TypeError, ValueError, RuntimeError):
            items = labels.tolist() if hasattr(labels, "tolist") else list(labels)
    if not isinstance(items, list):
        kind = type(labels).__name__
        raise ModelError(
            f"labels is a {kind}: give a list with a name for each entry of the output, in order."
        )
    for index, item in enumerate(items):
        if not isinstance(item, (str, numbers.Real)) or item != item:
            raise ModelError(f"Label {index} is {item!r}: each must be a text or a number.")
    names = tuple(str(item) for item in items)
    if not names:
        raise ModelError("An output needs at least one label.")
    twice = sorted(name[:60] for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ModelError(
            f"Labels must be unique; these occur twice: {twice[:5]}. Tell them apart, such as "
            f"{twice[0] + ' (1)'!r} and {twice[0] + ' (2)'!r}."
        )
    return names


def _by_id(labels: dict[Any, Any]) -> list[Any]:
    """The names of `{id: name}`, or of `{name: id}`, in the order of their ids."""
    for pairs in (list(labels.items()), [(value, key) for key, value in labels.items()]):
        if all(str(key).isdecimal() for key, _ in pairs):
            ids = {int(str(key)): name for key, name in pairs}
            if sorted(ids) != list(range(len(labels))):
                raise ModelError(
                    f"The ids of {len(labels)} labels must be 0 to {len(labels) - 1}, one for each "
                    f"entry of the output, not {sorted(ids)[:5]}, ..."
                )
            return [ids[index] for index in sorted(ids)]
    raise ModelError(f"labels={labels!r:.80} must be a list, or a mapping {{id: name}}.")


def normal(name: str) -> str:
    """A name in lower case, composed letters, and single spaces for spaces, `_` and `-`."""
    name = unicodedata.normalize("NFC", name)
    return " ".join(re.split(r"[\s_-]+", name.casefold().strip(" _-\t\n")))


def singular(name: str) -> str:
    """The normal form of a name, with each of its English words in the singular.

    Example:
        >>> singular("Traffic_Lights"), singular("glass")
        ('traffic light', 'glass')
    """
    return " ".join(_singular(word) for word in normal(name).split(" "))


def _singular(word: str) -> str:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if re.search(r"(ch|sh|ss|x|z)es$", word):
        return word[:-2]
    return word[:-1] if len(word) > 3 and re.search(r"[^sui]s$", word) else word


def _parts(name: str) -> list[str]:
    """What a label may be called: its synonyms between commas, and without what is in brackets."""
    return [singular(re.sub(r"\(.*?\)", "", part)) for part in (name, *name.split(","))]


@functools.lru_cache(maxsize=64)
def _index(labels: tuple[str, ...], form: int) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        for key in dict.fromkeys(_FORMS[form](label)):
            found.setdefault(key, []).append(place)
    return found


_FORMS: tuple[Callable[[str], list[str]], ...] = (
    lambda name: [name],
    lambda name: [normal(name)],
    lambda name: [singular(name)],
    _parts,
)
"""Forms in which a word and a label are compared, the closest first."""


def find(name: Any, labels: Sequence[str]) -> list[int]:
    """Find the labels that a user's word means.

    The word is compared as it is; then without case and with `_` and `-` as spaces; then in the
    singular; then with each synonym of a label ("pug, pug-dog") and without what is in brackets
    ("crane (bird)"). The first comparison that finds something decides.

    Args:
        name: The word, or a number where labels are numbers.
        labels: The names to choose from.

    Returns:
        Indices into `labels`, ascending: none if nothing fits, several if it isn't clear.

    Example:
        >>> find("Golden_Retrievers", ["cat", "golden retriever"])
        [1]
    """
    for form, forms in enumerate(_FORMS):
        index = _index(tuple(labels), form)
        whole, *parts = (set(index.get(key, ())) for key in forms(str(name)))
        if not whole and parts and all(parts):  # else a part would be left out silently
            whole = set[int]().union(*parts)
        if whole:
            return sorted(whole)
    return []


def place(name: Any, labels: Sequence[str], missing: str = "The model has no label") -> int:
    """Find the one label that a user's word means; see `find`.

    Raises:
        EvidenceError: There is none, or several. `missing` begins the sentence on the former.
    """
    found = find(name, labels)
    if not found:
        raise EvidenceError(f"{missing} {name!r:.80}. {did_you_mean(str(name), labels)}")
    if len(found) > 1:
        raise EvidenceError(
            f"{name!r} isn't clear: it could be {' or '.join(repr(labels[i]) for i in found[:5])}. "
            "Say which."
        )
    return found[0]
