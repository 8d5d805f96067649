"""Lists of labels in every form that people have, and words that mean a label."""

import numpy as np
import pytest
import torch
from torch import nn

import feedback_adapter as fa
from feedback_adapter.errors import EvidenceError, ModelError
from feedback_adapter.names import find, label_list, place, singular


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["a", "b"], ("a", "b")),
        (np.array(["a", "b"]), ("a", "b")),
        (np.array(["a", "b"], dtype=object), ("a", "b")),
        (range(2), ("0", "1")),
        (np.arange(2), ("0", "1")),
        (torch.arange(2), ("0", "1")),
        ({1: "b", 0: "a"}, ("a", "b")),
        ({"1": "b", "0": "a"}, ("a", "b")),
        ({"b": 1, "a": 0}, ("a", "b")),
        ({np.int64(0): "a"}, ("a",)),
        ((name for name in "ab"), ("a", "b")),
    ],
)
def test_lists_of_labels(labels, expected):
    names = label_list(labels)
    assert names == expected
    assert all(type(name) is str for name in names)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("ab", "labels is a str"),
        ({"a", "b"}, "labels is a set.*in order"),
        (5, "labels is a int"),
        ([], "at least one label"),
        (["a", None], "Label 1 is None"),
        (["a", float("nan")], "Label 1 is nan"),
        ([["a"], ["b"]], r"Label 0 is \['a'\]"),
        (["a", "b", "a"], r"occur twice: \['a'\].*'a \(1\)' and 'a \(2\)'"),
        ({1: "a", 2: "b"}, "must be 0 to 1"),
        ({"a": "b"}, "a mapping"),
    ],
)
def test_what_is_no_list_of_labels(labels, message):
    with pytest.raises(ModelError, match=message):
        label_list(labels)


def test_labels_as_arrays_and_numbers():
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), torch.rand(1, 3, 2, 2)
    for labels, name in ((np.array(["a", "b", "c"]), "c"), (range(3), 2), (range(3), "2")):
        adapter = fa.wrap(model, labels=labels)
        known = adapter.refine(x, fa.Labels({name: 1}), pivots="1").known["output"]
        assert known.tolist() == [[False, False, True]]


def test_duplicates_are_found_in_linear_time():
    many = [str(i) for i in range(200_000)]
    assert len(label_list(many)) == len(many)
    with pytest.raises(ModelError, match="'199999'"):
        label_list([*many, "199999"])


LABELS = ("golden retriever", "Traffic_Light", "hot-dog", "glass", "glasses", "person",
          "pug, pug-dog", "crane (bird)", "crane (machine)", "us", "Us")  # fmt: skip


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("golden_retriever", [0]),
        ("Golden Retrievers", [0]),
        ("traffic lights", [1]),
        ("HOT DOG", [2]),
        ("glass", [3]),
        ("glasses", [4]),
        ("people", [5]),
        ("pug-dog", [6]),
        ("pugs", [6]),
        ("crane", [7, 8]),
        ("us", [9]),
        ("US", [9, 10]),
        ("", []),
        ("dog", []),
        (None, []),
    ],
)
def test_words(word, expected):
    assert find(word, LABELS) == expected


def test_a_word_that_is_not_clear_or_unknown_is_named():
    with pytest.raises(EvidenceError, match=r"'crane' isn't clear: .*'crane \(bird\)' or"):
        place("crane", LABELS)
    with pytest.raises(EvidenceError, match="no label 'Persn'. Did you mean 'person'"):
        place("Persn", LABELS)


@pytest.mark.parametrize(
    ("plural", "expected"),
    [
        ("Buses", "bus"), ("boxes", "box"), ("cherries", "cherry"), ("women", "woman"),
        ("grass", "grass"), ("bus", "bus"), ("tennis", "tennis"), ("horses", "horse"),
        ("benches", "bench"),
    ],
)  # fmt: skip
def test_singular(plural, expected):
    assert singular(plural) == expected


def test_accents_in_two_characters_mean_the_same_label():
    assert find("cafe\u0301", ["dog", "Caf\u00e9"]) == [1]
    assert find("caf\u00e9", ["dog", "CAFE\u0301"]) == [1]


def test_of_two_words_with_a_comma_none_is_left_out():
    assert find("dog, cow", ["dog", "cat"]) == [], "a cow is no label, and the dog isn't enough"
    assert find("dog,cat", ["dog", "cat"]) == [0, 1], "not clear, which place() says"
    assert find("pug, pug-dog", ["pug-dog, pug", "cat"]) == [0]
