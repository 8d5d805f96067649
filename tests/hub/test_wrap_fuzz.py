"""Any part of a config of timm's may be anything: it loads, or the error is ours."""

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
from timm.models import save_for_hf

import feedback_adapter as fa
from feedback_adapter.errors import CheckpointError, ModelError

ODD = [None, True, -1, 0, 7, 1e308, 10**400, "", "x", "\ud800", [], [[]], [3, 64], {}, {"a": [1]}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("fuzz") / "net"
    model = timm.create_model("test_resnet", num_classes=3, output_stride=16)
    names = {"label_names": ["a", "b", "c"]}
    save_for_hf(model, place, model_config=names, safe_serialization=True)
    return place


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else ()
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


def test_every_part_may_be_anything(folder):
    file = folder / "config.json"
    good = json.loads(file.read_text())
    assert len(places(good)) > 15
    loaded, said = 0, []
    for number, path in enumerate(places(good)[1:]):
        for odd in (..., *ODD[number % 4 :: 4]):
            config = copy.deepcopy(good)
            place = config
            for key in path[:-1]:
                place = place[key]
            if odd is ...:
                del place[path[-1]]
            else:
                place[path[-1]] = odd
            file.write_text(json.dumps(config))
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    given = None if path[-1] == "label_names" else ["a", "b", "c"]
                    fa.wrap(f"local-dir:{folder}", labels=given)
                loaded += 1
            except (CheckpointError, ModelError) as error:
                said.append(str(error))
    file.write_text(json.dumps(good))
    assert min(loaded, len(said)) > 20
    assert all(20 < len(text) < 2_000 for text in said)
    assert fa.wrap(f"local-dir:{folder}").labels == ("a", "b", "c")
