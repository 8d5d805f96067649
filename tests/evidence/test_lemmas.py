"""Base forms of words."""

import sys

import pytest

from feedback_adapter.errors import DataError
from feedback_adapter.evidence import lemmas


@pytest.mark.parametrize(
    ("word", "expected"),
    [("dogs", "dog"), ("playing", "play"), ("poles", "pole"), ("snow", "snow")],
)
def test_base_form(word, expected):
    assert lemmas.lemma(word) == expected


def test_absent_simplemma_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "simplemma", None)
    lemmas._lemmatiser.cache_clear()
    with pytest.raises(DataError, match="pip install simplemma"):
        lemmas.lemma("dogs")
    monkeypatch.undo()
    lemmas._lemmatiser.cache_clear()
