"""What pictures write: labels as they are, whatever they hold and however long they are."""

import torch
from matplotlib.figure import Figure

from feedback_adapter.changes import Change
from feedback_adapter.plotting import draw_bars, plot_changes, written

LONG = ["a long label " * 20, "x" * 200]
LABELS = ["dog", "costs $5 and $6", "$\\foo$", *LONG, "ケーキ", "חתול", "🐕"]
CHANGES = [Change("output", label, 0.4, 0.6, label == "dog", None) for label in LABELS]


def test_labels_are_no_formulas_and_nothing_is_cut_off(tmp_path):
    figure = Figure(figsize=(10, 20), layout="tight")
    axis = figure.subplots(1, 2)[1]
    draw_bars(axis, CHANGES[:5], several=False)
    figure.canvas.draw()
    for text, label in zip(axis.get_yticklabels(), LABELS, strict=False):
        assert "".join(text.get_text().replace("\\$", "$").split()) == "".join(label.split())
        assert text.get_window_extent().x0 > figure.bbox.width * 0.3, "beside the photo, not on it"


def test_letters_that_the_font_lacks_and_no_formula_are_no_error(tmp_path):
    path = plot_changes(
        CHANGES, tmp_path / "p.png", photo=torch.rand(3, 9, 9), top=8, title=None, several=True
    )
    assert path.stat().st_size > 0


def test_a_text_has_ten_lines_at_most():
    assert written("$a$", 9) == r"\$a\$"
    assert written("one two three", 8) == "one two\nthree"
    assert written("x" * 95, 10).splitlines() == ["x" * 10] * 9 + ["x" * 5]
    assert written("x" * 101, 10).splitlines() == ["x" * 10] * 10 + ["…"]
