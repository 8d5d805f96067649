"""The question that is asked first is the one that gains most, by sums done another way."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fa_annotate.errors import AnnotateError
from fa_annotate.questions import next_image, next_label


def cost(p, t):
    return min(p * (1 - t), (1 - p) * t)


def by_hand(p, asked, k, t):
    """The formula of the module, label by label."""
    found = {}
    for j in range(len(p)):
        if j in asked:
            continue
        found[j] = cost(p[j], t)
        for i in range(len(p)):
            if i == j or i in asked:
                continue
            d = p[i] * (1 - p[i]) * k[i][j] / (1 + k[j][j] * p[j] * (1 - p[j]))
            yes = min(max(p[i] + d * (1 - p[j]), 0), 1)
            no = min(max(p[i] - d * p[j], 0), 1)
            now = p[j] * cost(yes, t) + (1 - p[j]) * cost(no, t)
            found[j] += max(cost(p[i], t) - now, 0)
    return found


PROBABILITIES = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=6)


@settings(max_examples=100, deadline=None)
@given(PROBABILITIES, st.floats(0.05, 0.95), st.integers(0, 99), st.data())
def test_gains_are_those_of_the_formula(p, t, seed, data):
    n = len(p)
    root = torch.randn(n, n, generator=torch.Generator().manual_seed(seed))
    k = root @ root.T
    asked = data.draw(st.sets(st.integers(0, n - 1)))
    found = next_label(torch.tensor(p), asked, couplings=k, threshold=t)
    expected = by_hand(p, asked, k.tolist(), t)
    assert dict(found) == pytest.approx(expected, abs=1e-5)
    assert [gain for _, gain in found] == sorted((gain for _, gain in found), reverse=True)
    alone = dict(next_label(torch.tensor(p), asked, threshold=t))
    assert alone == pytest.approx({j: cost(p[j], t) for j in expected}, abs=1e-6)
    assert all(gain >= alone[j] - 1e-6 for j, gain in found)


def test_a_label_that_decides_others_comes_before_one_as_doubtful():
    k = torch.zeros(4, 4)
    k[0, 1] = k[1, 0] = k[0, 2] = k[2, 0] = 3.0
    k[range(4), range(4)] = 4.0
    p = torch.full((4,), 0.5)
    assert [label for label, _ in next_label(p, set(), couplings=k)] == [0, 1, 2, 3]
    assert next_label(p, {1, 2}, couplings=k)[0][1] == next_label(p, {1, 2})[0][1] == 0.25


def test_the_gain_is_what_answers_save_on_average():
    """Two labels with a joint distribution that the first order has exactly."""
    p, d = torch.tensor([0.5, 0.4]), 0.8
    k = torch.tensor([[0.0, 0.8 / 0.24], [0.8 / 0.24, 0.0]])  # no noise: d = p (1 - p) K
    joint = {
        (a, b): 0.5 * (q if b else 1 - q)
        for a in (0, 1)
        for q in [0.4 + d * (a - 0.5)]
        for b in (0, 1)
    }
    wrong_before = min(0.4, 0.6) + 0.5
    wrong_after = sum(
        min(sum(v for (a, b), v in joint.items() if a == said and b == other) for other in (0, 1))
        for said in (0, 1)
    )
    first = dict(next_label(p, set(), couplings=k))[0]
    assert 2 * first == pytest.approx(wrong_before - wrong_after, abs=1e-6)


def test_the_threshold_says_where_doubt_is_worst():
    p = torch.tensor([0.9, 0.5, 0.2, 0.01])
    first = [next_label(p, set(), threshold=t)[0][0] for t in (0.85, 0.5, 0.2)]
    assert first == [0, 1, 2]


def test_images_come_by_the_gains_of_their_best_questions():
    p = torch.tensor([[0.5, 0.0, 0.0], [0.3, 0.3, 0.3], [0.5, 0.5, 0.0]])
    order = {n: [i for i, _ in next_image(p, questions=n)] for n in (1, 3)}
    assert order == {1: [0, 2, 1], 3: [2, 1, 0]}
    assert next_image(p, [{0}, set(), {0, 1, 2}])[-1] == (2, 0.0)
    assert dict(next_image(p, questions=9)) == pytest.approx({0: 0.25, 1: 0.45, 2: 0.5})


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((torch.zeros(2, 2), set()), "of one photo"),
        ((torch.tensor([0.5, 1.5]), set()), r"in \[0, 1\]"),
        ((torch.tensor([0.5, float("nan")]), set()), r"in \[0, 1\]"),
    ],
)
def test_what_are_no_probabilities_is_said(arguments, says):
    with pytest.raises(AnnotateError, match=says):
        next_label(*arguments)
    with pytest.raises(AnnotateError, match="there are 2 labels"):
        next_label(torch.zeros(2), set(), couplings=torch.zeros(3, 3))
    with pytest.raises(AnnotateError, match="threshold=1"):
        next_label(torch.zeros(2), set(), threshold=1)
    with pytest.raises(AnnotateError, match="not for 1"):
        next_image(torch.zeros(2, 2), [set()])
