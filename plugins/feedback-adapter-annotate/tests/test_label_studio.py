"""What Label Studio 1.23.2 sent was recorded: it gets refined predictions of what is left."""

import copy
import json
from pathlib import Path

import pytest

import feedback_adapter as fa
from fa_annotate.errors import AnnotateError
from fa_annotate.exports import label_config
from fa_annotate.label_studio import Config, photo_of, routes
from fa_annotate.photos import Photos

SENT = json.loads(Path(__file__).with_name("label_studio_requests.json").read_text("utf-8"))
LABELS = ["cat", "dog", "snow", "ball"]
PHOTOS = ["a photo (1).jpg", "c.jpg", "sub/ü.png"]


@pytest.fixture(scope="module")
def server(serve, tiny_session, draw, tmp_path_factory):
    folder = tmp_path_factory.mktemp("root") / "photos"
    for seed, name in enumerate(PHOTOS):
        draw(folder / name, seed=seed)
    desk = tiny_session(folder)
    return serve(desk, more=routes(desk.own))


def probabilities(server, name, **labels):
    """What the library itself says of a photo."""
    session = server.session
    images = session.adapter.transform.open(session.photos.open(session.photos.names.index(name)))
    if not labels:
        (found,) = session.adapter.unrefined(images).probabilities().values()
    else:
        found = session.adapter.refine(images, fa.Labels(labels)).probabilities
    return dict(zip(LABELS, found[0].tolist(), strict=True))


def predicted(server, body):
    status, _, answer = server.tell("/predict", body)
    assert status == 200
    return answer["results"]


def check(result, probabilities, left):
    """A prediction has the likely ones of the labels that are left, and says how sure that is."""
    own = {label: probabilities[label] for label in left}
    picked = [label for label in LABELS if own.get(label, 0) > 0.5]
    assert len(result["result"]) == bool(picked)
    for item in result["result"]:
        assert item["value"] == {"choices": picked}
        assert (item["from_name"], item["to_name"], item["type"]) == ("present", "image", "choices")
        assert item["score"] == pytest.approx(min(own[label] for label in picked), abs=1e-5)
    sure = sum(max(p, 1 - p) for p in own.values()) / len(own)
    assert result["score"] == pytest.approx(sure, abs=1e-5)


def test_it_is_up_and_has_a_version(server):
    status, _, health = server.ask("/health")
    assert (status, health["status"]) == (200, "UP")
    for method in ("GET", "POST"):
        status, _, found = server.ask("/versions", method)
        assert status == 200
        assert len(found["versions"]) == 1


def test_each_setup_gets_a_new_version(server):
    """Label Studio doesn't ask again for predictions of a version that it has some of."""
    versions = [server.tell("/setup", SENT["setup"])[2]["model_version"] for _ in range(3)]
    assert all(version.startswith("tiny ") for version in versions)
    assert len(set(versions)) == 3


def test_a_project_with_other_labels_is_refused(server, caplog):
    body = {**SENT["setup"], "schema": label_config(["c4t", "d0g"])}
    status, _, answer = server.tell("/setup", body)
    assert status == 400
    assert "No <Choice> of the labelling configuration is a label of this model" in answer["error"]
    assert answer["error"] in caplog.text


def test_what_is_not_annotated_is_predicted_by_the_model(server):
    results = predicted(server, SENT["predict"])
    names = [PHOTOS[0], PHOTOS[1], PHOTOS[2], PHOTOS[0], PHOTOS[2]]  # two were uploaded, too
    assert len(results) == len(names) == len(SENT["predict"]["tasks"])
    for result, name in zip(results, names, strict=True):
        check(result, probabilities(server, name), LABELS)


def test_after_a_submit_the_rest_is_refined(server):
    (result,) = predicted(server, SENT["predict after a submit"])
    check(result, probabilities(server, PHOTOS[0], dog=1, snow=0), ["cat", "ball"])


def test_while_somebody_annotates_what_is_ticked_counts(server):
    (result,) = predicted(server, SENT["predict while annotating"])
    check(result, probabilities(server, PHOTOS[0], dog=1, snow=0, cat=1), ["ball"])
    body = copy.deepcopy(SENT["predict while annotating"])
    body["tasks"][0]["drafts"] = [{"result": body["params"].pop("context")["result"]}]
    assert predicted(server, body)[0]["result"] == result["result"]


def test_newer_annotations_win_and_cancelled_ones_say_nothing(server):
    body = copy.deepcopy(SENT["predict after a submit"])
    annotation = body["tasks"][0]["annotations"][0]
    older, cancelled = copy.deepcopy([annotation, annotation])
    older["updated_at"] = "2020-01-01T00:00:00Z"
    older["result"][0]["value"]["choices"] = ["snow"]
    cancelled |= {"was_cancelled": True, "updated_at": "2030-01-01T00:00:00Z"}
    cancelled["result"][0]["value"]["choices"] = ["cat"]
    body["tasks"][0]["annotations"] = [annotation, cancelled, older]
    (result,) = predicted(server, body)
    check(result, probabilities(server, PHOTOS[0], dog=1, snow=0), ["cat", "ball"])


def test_a_task_that_cannot_be_predicted_says_why_and_spoils_no_other(server, caplog):
    body = copy.deepcopy(SENT["predict"])
    addresses = ["https://example.com/data/c.jpg", "/data/local-files/?d=photos/../../c.jpg", None]
    for task, address in zip(body["tasks"], addresses, strict=False):
        task["data"]["image"] = address
    results = predicted(server, body)
    for result in results[:3]:
        assert result["result"] == []
        assert "means no photo of" in result["error"]
        assert result["error"] in caplog.text
    check(results[3], probabilities(server, PHOTOS[0]), LABELS)


@pytest.mark.parametrize(
    ("path", "content", "status", "says"),
    [
        ("/predict", b"{", 400, "must be a JSON object"),
        ("/setup", b"[]", 400, "must be a JSON object"),
        ("/predict", b"[" * 100_000, 400, "must be a JSON object"),
        ("/predict", b"{}", 400, "no task"),
        ("/predict", b'{"tasks": [5]}', 400, "can't be read"),
        ("/setup", b'{"schema": "<View>"}', 400, "can't be read"),
        ("/setup", b'{"schema": "<View/>"}', 400, "needs an <Image"),
        ("/setup", b'{"schema": "<!DOCTYPE x [<!ENTITY a \\"b\\">]><View/>"}', 400, "entities"),
        ("/setup", b" " * (2**25 + 1), 413, "too large"),
    ],
)
def test_what_is_no_request_of_label_studio_is_told_so(server, path, content, status, says):
    found, _, answer = server.ask(path, "POST", content, {"Content-Type": "application/json"})
    assert found == status
    assert says in answer["error"]


def test_odd_requests_say_nothing_and_break_nothing(server):
    body = copy.deepcopy(SENT["predict after a submit"])
    value = {"choices": ["dog", 5, None, "unheard of", {}]}
    body["tasks"][0]["annotations"] = [
        5, {"result": 5}, {"result": [5, {}, {"from_name": []}, {"from_name": "present"}]},
        {"result": [{"from_name": "present", "value": value}, {"from_name": "other"}]},
    ]  # fmt: skip
    body["params"] = None
    (result,) = predicted(server, body)
    check(result, probabilities(server, PHOTOS[0], dog=1), ["cat", "snow", "ball"])


CONFIG = """
<View>
  <!-- <Choices name="old" toName="image"/> -->
  <Image name="image" value="$photo"/>
  <Choices name="animal" toName="image">
    <Choice value="Cats" alias="c"/><Choice value="DOG"/>
  </Choices>
  <Choices name="more" toName="image" choice="multiple"><Choice value="ball"/></Choices>
  <Choices name="other" toName="text"><Choice value="snow"/></Choices>
  <TextArea name="note" toName="image"/>
</View>
"""


def item(control, **value):
    return {"from_name": control, "to_name": "image", "value": value}


def test_a_project_of_ones_own_can_name_its_controls_and_choices():
    config = Config.of(CONFIG, LABELS)
    assert config.key == "photo"
    p = {"cat": 0.2, "dog": 0.4, "snow": 0.9, "ball": 0.6}
    first = config.prediction(config.said([]), p)
    picked = {part["from_name"]: part["value"]["choices"] for part in first["result"]}
    assert picked == {"animal": ["DOG"], "more": ["ball"]}
    assert first["score"] == pytest.approx((0.8 + 0.6 + 0.6) / 3)
    said = config.said([[item("animal", choices=["c"]), item("note", text=["a", "b"])]])
    assert (said.labels, said.text) == ({"cat": 1}, "a\nb")
    (part,) = config.prediction(said, p)["result"]
    assert part["from_name"] == "more"


def test_addresses_lead_to_photos_of_the_folder_and_nowhere_else(tmp_path):
    folder = tmp_path / "up" / "photos"
    photos = Photos(folder, [*PHOTOS, "photos/c.jpg", "x/ü.png", "plus+%41.jpg"])
    found = {
        "/data/local-files/?d=c.jpg": "c.jpg",
        "/data/local-files/?d=photos/c.jpg": "photos/c.jpg",
        "/data/local-files/?d=up/photos/c.jpg": "c.jpg",
        f"/data/local-files/?d={folder}/c.jpg": "c.jpg",
        "/data/local-files/?d=photos/sub/%C3%BC.png": "sub/ü.png",
        "/data/local-files/?d=plus%2B%2541.jpg": "plus+%41.jpg",
        "http://localhost:8080/data/local-files/?d=c.jpg": "c.jpg",
        "/data/upload/1/14074b58-a_photo_1.jpg": "a photo (1).jpg",
        "http://localhost:8080/data/upload/1/14074b58-a_photo_1.jpg": "a photo (1).jpg",
    }
    for address, name in found.items():
        assert photos.names[photo_of(address, photos)] == name, address
    for address in (
        "/data/local-files/?d=hotos/c.jpg", "/data/local-files/?d=other/c.jpg",
        "/data/local-files/?d=../photos/c.jpg", "/data/local-files/?d=sub/../c.jpg",
        "/data/local-files/", "/data/upload/1/c.jpg", "https://example.com/c.jpg",
        "file:///etc/passwd", "s3://bucket/c.jpg", "c.jpg", "", None, 5, ["c.jpg"],
        "http://[", "/data/upload/1/14074b58-c.jpg",
    ):  # fmt: skip
        with pytest.raises(AnnotateError, match="means (no|several) photo"):
            photo_of(address, photos)
