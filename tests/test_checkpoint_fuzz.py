"""A config of any structure: loaded, or one named error that says where it is wrong."""

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import feedback_adapter as fa
from feedback_adapter.errors import CheckpointError, InputError, ModelError

LABELS = ("a", "b")
SCALARS = [
    None, True, 0, -1, 3, 10**30, 10**400, 0.5, 1e308, float("nan"), float("inf"), "", "a", "timm",
    "../x", "\ud800", "\0", "x" * 5000, "float16", "bfloat16", "auto",
]  # fmt: skip
VALUES = st.recursive(
    st.sampled_from(SCALARS),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["", "a", "file", "output", "kind", "name"]), inner, max_size=2
        )
    ),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=2).to(torch.float64).eval()
    defaults = fa.Defaults(
        "residual", ("layer2",), {"solver": fa.LBFGS(history=3)},
        others={"layerwise": {"steps": 3}}, reference={"residual": {"steps": 2}},
        calibration={"output": {"scale": 1.0, "bias": 0.0}},
    )  # fmt: skip
    output = fa.Output(LABELS, hierarchy={"both": LABELS})
    adapter = fa.Adapter(
        model, {"output": output}, transform=fa.Transform((32, 32)), defaults=defaults,
        card=fa.Card(name="fuzz", data={"images": 3}, metrics={"map": 0.5}, text="# Fuzz"),
    )  # fmt: skip
    adapter.fit_prior(torch.rand(9, 2), torch.rand(9, 2).round())
    return adapter.save(tmp_path_factory.mktemp("fuzz") / "saved")


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every part of a config."""
    items = (
        value.items() if isinstance(value, dict)
        else enumerate(value) if isinstance(value, list) else ()
    )  # fmt: skip
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


def attempt(folder: Path, text: str) -> bool:
    """Whether a config loads; any error must be ours."""
    file = folder / "feedback_adapter.json"
    good = file.read_bytes()
    try:
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        adapter = fa.load(folder)
        with contextlib.suppress(InputError, ModelError):  # another dtype or number of labels
            assert adapter.predict(torch.zeros(1, 3, 32, 32).double()).isfinite().all()
    except CheckpointError as error:
        said = str(error)
    else:
        said = ""
    finally:
        file.write_bytes(good)
    assert len(said) < 2_000
    return not said


@settings(
    max_examples=60, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(data=st.data())
def test_any_part_may_be_anything(saved, data):
    config = json.loads((saved / "feedback_adapter.json").read_text())
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(places(config)))
        if not path:
            continue
        place = config
        try:
            for key in path[:-1]:
                place = place[key]
        except (KeyError, IndexError, TypeError):
            continue
        what = data.draw(st.sampled_from(["replace", "replace", "delete", "add", "wrap"]))
        if not isinstance(place, dict | list) or (isinstance(place, list) and not place):
            continue
        if what == "delete":
            del place[path[-1]]
        elif what == "wrap":
            place[path[-1]] = [place[path[-1]]]
        elif what == "add" and isinstance(place, dict):
            place[data.draw(st.sampled_from(["", "x", "file", "steps", "weights"]))] = data.draw(
                VALUES
            )
        else:
            place[path[-1]] = data.draw(VALUES)
    attempt(saved, json.dumps(config))


def test_every_part_of_a_wrong_kind_or_missing_is_named_or_loads(saved):
    """Systematically: every part is left out, or exchanged."""
    good = json.loads((saved / "feedback_adapter.json").read_text())
    for index, path in enumerate(places(good)[1:]):
        config = copy.deepcopy(good)
        place = config
        for key in path[:-1]:
            place = place[key]
        if index % 3 == 0:
            del place[path[-1]]
        else:
            place[path[-1]] = 10**400 if index % 3 == 1 else [{}]
        attempt(saved, json.dumps(config))
    assert attempt(saved, json.dumps(good))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda saved: fa.load(5), "give the name of a checkpoint, or a folder"),
        (lambda saved: fa.load(None), "give the name of a checkpoint, or a folder"),
        (lambda saved: fa.load("x" * 5000), "can't be read: File name too long"),
        (lambda saved: fa.load("a\0b"), "There is no checkpoint or folder"),
        (lambda saved: fa.load(saved, device="nonsense"), "device='nonsense' can't be used"),
        (lambda saved: fa.load(saved, model=5), "model is a int: pass an nn.Module"),
    ],
)
def test_arguments_of_load(saved, call, said):
    with pytest.raises(fa.FeedbackAdapterError, match=said):
        call(saved)
