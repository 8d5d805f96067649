"""The base forms of English words, so that "dogs" in a text mentions the label "dog".

The dictionary is simplemma's, which is inside its package: nothing is downloaded.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable

from feedback_adapter.errors import DataError

# Frequent words that simplemma's English dictionary gets wrong ("playe", "swinge") or
# leaves as they are.
_CORRECTIONS = {
    "hanging": "hang",
    "playing": "play",
    "poles": "pole",
    "sitting": "sit",
    "swinging": "swing",
}


@functools.cache
def _lemmatiser() -> Callable[[str], str]:
    try:
        simplemma = importlib.import_module("simplemma")
    except ImportError as error:
        raise DataError(
            "Reading words from captions needs the package simplemma, which isn't "
            "installed: pip install simplemma"
        ) from error

    @functools.cache
    def lemmatise(token: str) -> str:
        return _CORRECTIONS.get(token) or simplemma.lemmatize(token, lang="en").lower()

    return lemmatise


def lemma(word: str) -> str:
    """The base form of a lower-case English word.

    Example:
        >>> lemma("dogs"), lemma("playing")
        ('dog', 'play')

    Raises:
        DataError: simplemma isn't installed.
    """
    return _lemmatiser()(word)
