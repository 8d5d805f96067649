"""Whatever words the command line is given, it works, or says one line and exits with 2."""

import io
import json
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feedback_adapter.cli import main

ODD = st.sampled_from([
    "", " ", "dgo", "Dog", "²", "🐕", "\udcff", "[red]", "[/]", "a" * 3000, "\x1b[31m", "\n", "--",
    "nan", "1e999", "-1", "0", "null", "{}", "[", "|", "=", "dog=1", "dog,snow", ".", "/dev/null",
])  # fmt: skip
OPTIONS = ["steps=2", "steps=NaN", "steps=x", "steps=[1]", "images=x", "self=1", "=", "steps=1e9"]
VALUES = {
    "--know": ["dog", "snow"], "--know-not": ["ball"], "--know-coarse": ["dog"], "--text": ["dog"],
    "--evidence": ["labels=-ball", "text=dog", "coarse=x", "labels=dog=nan", "labels", "x=1"],
    "--strategy": ["newton", "residual", "clamp", "Newton"], "--option": OPTIONS,
    "--pivots": ["layer1", "auto", "layer1#1", "layer1#²", "layer9", "#", ":"],
    "--top": ["1", "0", "x"], "--batch": ["1", "99999999999999999999"],
    "--click": ["1,1=dog", "1,1"], "--radius": ["1", "inf"], "--weights": ["x.safetensors"],
    "--evidence-file": ["known.csv", "missing.csv"], "--save-plot": ["x.png", "x.zzz", "/no/x.png"],
}  # fmt: skip


@st.composite
def words(draw) -> list[str]:
    """A call of some command, mostly of one that could have worked."""
    odd = draw(st.integers(0, 3)) == 0
    command = draw(st.sampled_from(["refine"] * 5 + ["labels", "sites", "zoo", "other"]))
    if command == "other":
        return draw(st.lists(ODD, min_size=1, max_size=3))
    if command == "zoo":
        return ["zoo", draw(st.sampled_from(["list", "show"])), *draw(st.lists(ODD, max_size=1))]
    name = draw(ODD) if odd else "CHECKPOINT"
    json_too = draw(st.lists(st.just("--json"), max_size=1))
    if command == "labels":
        return ["labels", name, *json_too]
    if command == "sites":
        return ["sites", name, "--size", draw(st.one_of(ODD, st.just("40"))), *json_too]
    call = ["refine", "PHOTO", "-c", name, "--know", "dog", *json_too]
    for option in draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=3)):
        usual = st.sampled_from(VALUES[option])
        call += [option, draw(st.one_of(usual, usual, ODD))]
    return call


@settings(max_examples=50, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(words(), st.sampled_from(["utf-8", "ascii", "cp1252"]))
def test_it_works_or_says_one_line(checkpoint, photos, tmp_path, words, encoding):
    (tmp_path / "known.csv").write_text(f"file,snow\n{photos[0]},1\n")
    places = {"CHECKPOINT": str(checkpoint), "PHOTO": str(photos[0])}
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2))
    code = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setattr(sys, "argv", ["feedback-adapter", *(places.get(w, w) for w in words)])
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        try:
            main()
        except SystemExit as error:
            code = error.code
    out.flush()
    err.flush()
    said, complaint = out.buffer.getvalue(), err.buffer.getvalue()
    if code == 0:
        assert said, "silence"
        assert not complaint
        if "--json" in words:
            json.loads(said, parse_constant=pytest.fail)
    else:
        assert code == 2
        assert complaint.startswith(b"Error: ")
        assert complaint.count(b"\n") == 1
