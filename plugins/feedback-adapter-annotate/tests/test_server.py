"""What the server answers, and whom it doesn't answer."""

import base64
import io
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

import feedback_adapter as fa


@pytest.fixture(scope="module")
def photos(tmp_path_factory, draw):
    folder = tmp_path_factory.mktemp("photos")
    for number in range(12):
        draw(folder / f"photo{number + 1}.png", seed=number)
    turned = Image.open(draw(folder / "turned.png", size=(30, 10)))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "turned.jpg", exif=exif)
    (folder / "turned.png").unlink()
    (folder / "broken.jpg").write_bytes(b"no photo")
    return folder


@pytest.fixture(scope="module")
def server(serve, tiny_session, photos):
    return serve(tiny_session(photos))


def number(server, name):
    return server.session.photos.names.index(name)


def test_photos_are_sorted_as_people_count(server):
    _, _, told = server.ask("/api/session")
    assert [photo["name"] for photo in told["photos"][1:4]] == [
        "photo1.png", "photo2.png", "photo3.png",
    ]  # fmt: skip
    assert told["photos"][10]["name"] == "photo10.png"


def test_answers_refine_and_the_numbers_are_those_of_the_python_api(server, photos):
    image = number(server, "photo3.png")
    _, _, first = server.ask(f"/api/photos/{image}/state")
    assert first["answers"] == [None] * 4
    assert first["before"] == first["after"]
    status, _, state = server.answer(image, "label", "dog", 1)
    assert status == 200
    adapter = server.session.adapter
    pixels = adapter.transform.open(photos / "photo3.png")
    expected = adapter.refine(pixels, fa.Labels({"dog": 1})).probabilities[0]
    assert state["answers"] == [None, 1, None, None]
    assert torch.allclose(torch.tensor(state["after"]), expected, atol=1e-6)
    assert torch.allclose(
        torch.tensor(state["before"]), adapter.predict(pixels)[0].sigmoid(), atol=1e-6
    )
    assert "dog" not in [server.session.names[q["index"]] for q in state["questions"]]
    assert state["how"]["losses"][-1] <= state["how"]["losses"][0]


def test_text_and_labels_are_evidence_together(server, photos):
    image = number(server, "photo4.png")
    server.answer(image, "label", "cat", 0)
    _, _, state = server.answer(image, "text", "", "a dog in the snow")
    adapter = server.session.adapter
    told = fa.Labels({"cat": 0}) & fa.Text("a dog in the snow")
    expected = adapter.refine(adapter.transform.open(photos / "photo4.png"), told)
    assert torch.allclose(torch.tensor(state["after"]), expected.probabilities[0], atol=1e-6)
    _, _, state = server.answer(image, "text", "", None)
    assert state["text"] is None


def test_undo_takes_back_the_last_answer_about_the_photo(server):
    image = number(server, "photo5.png")
    _, _, before = server.answer(image, "label", "cat", 0)
    server.answer(image, "label", "cat", 1)
    body = {"session": server.session.id, "revision": server.session.answers.revision}
    _, _, state = server.tell(f"/api/photos/{image}/undo", body)
    assert state["undone"]
    assert state["answers"] == before["answers"] == [0, None, None, None]
    assert state["after"] == before["after"]


def test_a_window_that_has_missed_something_saves_nothing(server):
    image = number(server, "photo6.png")
    seen = server.session.answers.revision
    server.answer(image, "label", "cat", 1)
    for body in (
        {"session": server.session.id, "revision": seen},
        {"session": "of a program that was ended", "revision": seen + 1},
    ):
        body |= {"kind": "label", "name": "cat", "value": 0}
        status, _, told = server.tell(f"/api/photos/{image}/answers", body)
        assert status == 409
        assert "nothing was saved" in told["error"]
    assert server.session.answers.of("photo6.png").labels == {"cat": 1}


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "unicorn"},
        {"kind": "undo"},
        {"kind": "click", "value": [1, 2]},
        {"value": 0.5},
        {"value": True},
        {"revision": None},
        {"kind": "text", "value": 3},
    ],
)
def test_what_is_no_answer_is_refused_and_said(server, wrong):
    revision = server.session.answers.revision
    body = {"session": server.session.id, "revision": revision, "kind": "label", "name": "cat"}
    status, _, told = server.tell("/api/photos/1/answers", {**body, "value": 1, **wrong})
    assert status == 400
    assert told["error"]
    assert server.session.answers.revision == revision


def test_a_photo_that_cannot_be_read_is_said_and_the_others_go_on(server):
    image = number(server, "broken.jpg")
    status, _, told = server.ask(f"/api/photos/{image}/state")
    assert status == 400
    assert "'broken.jpg' is not an image" in told["error"]
    assert server.ask(f"/api/photos/{image + 1}/state")[0] == 200
    assert server.ask("/api/photos/999/state")[0] == 400


def test_photos_are_upright(server):
    image = number(server, "turned.jpg")
    _, _, state = server.ask(f"/api/photos/{image}/state")
    assert state["size"] == [30, 10]
    _, headers, content = server.ask(f"/api/photos/{image}.jpg")
    assert headers["Content-Type"] == "image/jpeg"
    assert content[:2] == b"\xff\xd8"


def test_why_a_label_moved_is_what_the_api_says_and_adds_up(server, photos):
    image = number(server, "photo8.png")
    status, _, told = server.ask(f"/api/photos/{image}/why/1")
    assert status == 400
    assert "Nothing was answered" in told["error"]
    server.answer(image, "label", "cat", 1)
    server.answer(image, "label", "snow", 0)
    status, _, told = server.ask(f"/api/photos/{image}/why/1")
    assert status == 200, told
    adapter = server.session.adapter
    pixels = adapter.transform.open(photos / "photo8.png")
    result = adapter.refine(pixels, fa.Labels({"cat": 1, "snow": 0}), explainable=True)
    rows = result.explain("dog").contributions
    assert [row["evidence"] for row in told["rows"]] == [row.evidence for row in rows]
    shares = [row["share"] for row in told["rows"]]
    assert shares == pytest.approx([row.probability for row in rows], abs=1e-5)
    assert sum(shares) == pytest.approx(told["after"] - told["before"], abs=1e-5)
    status, _, told = server.ask(f"/api/photos/{image}/why/0")
    assert status == 400  # it is known
    assert server.ask(f"/api/photos/{image}/why/99")[0] == 400


def test_the_heat_map_is_of_the_activation_that_changed(server, photos):
    image = number(server, "photo9.png")
    server.answer(image, "label", "dog", 1)
    _, _, told = server.ask(f"/api/photos/{image}/heat")
    adapter = server.session.adapter
    pixels = adapter.transform.open(photos / "photo9.png")
    result = adapter.refine(pixels, fa.Labels({"dog": 1}), explainable=True)
    assert [told["pivot"]] == list(result.pivots)
    content = base64.b64decode(told["heat"].partition(",")[2])
    alpha = np.asarray(Image.open(io.BytesIO(content)).getchannel("A"))
    assert alpha.shape == tuple(result.activations[told["pivot"]].shape[-2:])
    assert alpha.max() == 230
    status, _, told = server.ask(f"/api/photos/{image}/heat?strategy=clamp")
    assert status == 400
    assert "moves no activation" in told["error"]


@pytest.mark.parametrize("format", ["csv", "coco", "label-studio", "imagefolder"])
def test_exports_are_downloads(server, format):
    server.answer(number(server, "photo7.png"), "label", "snow", 1)
    status, headers, content = server.ask(f"/api/export/{format}")
    assert status == 200, content
    assert "attachment" in headers["Content-Disposition"]
    if format == "csv":
        assert "photo7.png,,,1," in content.decode()
    elif format == "imagefolder":
        assert content[:2] == b"PK"
    else:
        assert "photo7.png" in json.dumps(content)


def test_an_unknown_export_is_said(server):
    status, _, told = server.ask("/api/export/doc")
    assert status == 400
    assert "csv" in told["error"]


def test_useful_photos_come_first_where_asked(server):
    session = server.session
    for image in range(1, 5):
        session.open(image)
    answered = set(session.answers.images())
    left = {i: u for i, u in session._worth.items() if session.photos.names[i] not in answered}
    wanted = max((i for i in left if i != 1), key=left.get)
    assert server.ask("/api/photos/1/next?order=useful")[2] == {"image": wanted}


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"two\nlines.png", "☕ ünï.png".encode()])
def test_photos_can_have_any_name(tmp_path, draw, serve, tiny_session, name):
    photo = draw(tmp_path / "own.png")
    photo.rename(tmp_path / os.fsdecode(name))
    server = serve(tiny_session(tmp_path))
    status, _, told = server.ask("/api/session")
    assert status == 200
    assert os.fsencode(told["photos"][0]["name"]) == name
    assert server.answer(0, "label", "cat", 1)[0] == 200
    assert server.ask("/api/export/csv")[0] == 200


def test_a_second_program_on_the_folder_is_told(server, photos, command_line):
    code, _, error = command_line("annotate", photos, "--port", 0)
    assert code == 2
    assert "is open already, by process" in error


def test_contradictions_are_said_and_kept_for_undo(tmp_path, draw, serve, tiny_session):
    draw(tmp_path / "own.png")
    server = serve(tiny_session(tmp_path, "multiclass"))
    server.answer(0, "label", "cat", 1)
    status, _, state = server.answer(0, "label", "dog", 1)
    assert status == 200
    assert "ontradiction" in state["problem"]
    assert state["after"] == state["before"]


def test_clicks_are_evidence_for_maps(tmp_path, draw, serve, tiny_session):
    draw(tmp_path / "own.png", size=(32, 32))
    server = serve(tiny_session(tmp_path, "map"))
    _, _, first = server.ask("/api/photos/0/state")
    assert first["questions"] == []
    assert first["overlays"][0]["after"].startswith("data:image/png;base64,")
    for x in range(4, 30, 6):
        status, _, state = server.answer(0, "click", "ball", [x, 8, 1])
        assert status == 200, state
    assert state["problem"] is None
    adapter = server.session.adapter
    clicks = [(x, 8, "ball", 1.0) for x in range(4, 30, 6)]
    told = fa.Pixels(clicks=clicks, radius=0.015 * 32, size=(32, 32))
    result = adapter.refine(adapter.transform.open(tmp_path / "own.png"), told)
    shares = [change.after for change in sorted(result.changes(0), key=lambda c: c.label)]
    shown = dict(zip(server.session.names, state["after"], strict=True))
    assert [shown[name] for name in sorted(shown)] == pytest.approx(shares)
    _, _, state = server.answer(0, "click", "ball", [2.5, 3, 0])
    assert len(state["clicks"]) == 6


def test_names_that_are_no_text_are_shown_and_answered(serve, tiny_session, draw, tmp_path):
    """A file's name is bytes, which needn't be UTF-8; and it may have a line break."""
    names = [os.fsdecode(b"caf\xe9.png"), "new\nline.png"]
    for name in names:
        draw(tmp_path / "photos" / name)
    server = serve(tiny_session(tmp_path / "photos"))
    status, _, overview = server.ask("/api/session")
    assert status == 200
    assert [photo["name"] for photo in overview["photos"]] == names
    for image, name in enumerate(names):
        status, _, state = server.answer(image, "label", "dog", 1)
        assert (status, state["name"]) == (200, name)
    assert server.session.answers.images() == names
