"""The command line: what it prints, and that a mistake is one message and exit code 2."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from torch import nn

import feedback_adapter as fa
from feedback_adapter.plugins import scoped

LABELS = ("dog", "snow", "ball", "grass", "red", "water")

# ---- refine ----


def test_refine_json(command_line, checkpoint, photos, tmp_path):
    code, out, err = command_line(
        "refine", *photos, "-c", checkpoint, "--know", "dog", "--know-not", "snow", "--json",
        "--top", 3, "--save-plot", tmp_path / "why.png",
    )  # fmt: skip
    assert (code, err) == (0, "")
    said = json.loads(out)  # one object and nothing else
    assert said["checkpoint"] == str(checkpoint)
    assert (said["strategy"], said["pivots"]) == ("residual", ["layer3"])
    assert [image["file"] for image in said["images"]] == [str(photo) for photo in photos]
    adapter = fa.load(checkpoint)
    told = fa.Labels({"dog": 1, "snow": 0})
    result = adapter.refine(adapter.transform.open(*photos), told)
    for index, image in enumerate(said["images"]):
        assert set(image) == {
            "file", "losses", "steps", "status", "converged", "predictions", "strategy", "pivots",
        }  # fmt: skip
        assert (image["strategy"], image["pivots"]) == ("residual", ["layer3"])
        assert image["losses"] == pytest.approx(result.losses[:, index].tolist(), abs=1e-4)
        assert image["losses"][-1] < image["losses"][0]
        rows = {row["label"]: row for row in image["predictions"]}
        assert len(rows) == 2 + 3
        assert rows["dog"]["known"]
        assert rows["snow"]["known"]
        assert sum(row["known"] for row in rows.values()) == 2
        for label, row in rows.items():
            column = LABELS.index(label)
            assert row["before"] == pytest.approx(
                float(result.before[index, column].sigmoid()), abs=1e-4
            )
            assert row["after"] == pytest.approx(
                float(result.after[index, column].sigmoid()), abs=1e-4
            )
    for index in (1, 2):
        with Image.open(tmp_path / f"why-{index}.png") as picture:
            assert min(picture.size) > 200


def test_refine_options(command_line, checkpoint, photos):
    code, out, _ = command_line(
        "refine", photos[0], "-c", checkpoint, "--evidence", "labels=dog=0.9,-water", "--json",
        "--strategy", "layerwise", "--pivots", "layer1", "--pivots", "layer4", "--option",
        "steps=2", "--option", "solver=lbfgs", "--option", "patience=null",
    )  # fmt: skip
    said = json.loads(out)
    assert code == 0
    assert (said["strategy"], said["pivots"]) == ("layerwise", ["layer1", "layer4"])
    (image,) = said["images"]
    assert image["steps"] == 4
    assert len(image["losses"]) == 5
    assert {row["label"] for row in image["predictions"] if row["known"]} == {"dog", "water"}


def test_refine_table(command_line, checkpoint, photos):
    code, out, _ = command_line("refine", *photos, "-c", checkpoint, "--know", "dog", "--top", 1)
    assert code == 0
    assert out.count("known") == 2
    assert "second[red].jpg" in "".join(out.split())  # a long title may be wrapped


def test_what_the_words_say_is_said_of_every_photo(command_line, checkpoint, photos):
    told = ["--evidence", "coarse=wet", "--know-coarse", "wet"]
    folder = _with_coarse_classes(checkpoint, photos[0].parent / "coarse")
    code, out, err = command_line("refine", *photos, "-c", folder, *told, "--json")
    assert (code, err) == (0, "")
    for image in json.loads(out)["images"]:
        after = {row["label"]: row["after"] for row in image["predictions"]}
        assert after["snow"] + after["water"] == pytest.approx(1, abs=1e-3)


def test_pivots_auto(command_line, checkpoint, photos):
    words = ["refine", photos[0], "-c", checkpoint, "--know", "dog", "--json"]
    said = json.loads(command_line(*words, "--strategy", "newton", "--pivots", "auto")[1])
    adapter = fa.load(checkpoint)
    images = adapter.transform.open(photos[0])
    auto = adapter.refine(images, fa.Labels({"dog": 1}), strategy="newton", pivots="auto")
    assert said["pivots"] == list(auto.pivots)


def _with_coarse_classes(checkpoint: Path, folder: Path) -> Path:
    groups = {"wet": ["snow", "water"], "dry": ["dog", "ball", "grass", "red"]}
    adapter = fa.load(checkpoint)
    output = fa.Output(LABELS, "multiclass", hierarchy=groups)
    return fa.Adapter(
        adapter.model, {"output": output}, transform=adapter.transform, card=adapter.card
    ).save(folder)


# ---- lists ----


def test_labels(command_line, checkpoint, tmp_path):
    assert command_line("labels", checkpoint) == (0, "\n".join((*LABELS, "")), "")
    code, out, _ = command_line("labels", checkpoint, "--json")
    assert (code, json.loads(out)["labels"]) == (0, {"output": list(LABELS)})
    coarse = _with_coarse_classes(checkpoint, tmp_path / "coarse")
    assert command_line("labels", coarse, "--coarse") == (0, "wet\ndry\n", "")
    code, out, err = command_line("labels", checkpoint, "--coarse")
    assert (code, out) == (2, "")
    assert "has no coarse classes" in err


def test_labels_of_imagenet(command_line):
    pytest.importorskip("feedback_adapter_zoo", reason="the checkpoint is the zoo's")
    labels = command_line("labels", "imagenet-lite0")[1].splitlines()
    coarse = command_line("labels", "imagenet-lite0", "--coarse")[1].splitlines()
    assert (len(labels), labels[281]) == (1000, "tabby")
    assert {"dog", "vehicle", "bird"} <= set(coarse)
    assert not {"tabby", "entity"} & set(coarse) - {"entity"}


def test_the_version(command_line):
    assert command_line("--version") == (0, f"feedback-adapter {fa.__version__}\n", "")


def test_nothing_is_cut_off_at_80_columns(command_line, checkpoint):
    for words in (["zoo", "list"], ["plugins"], ["sites", "test_convnext3"]):
        code, out, _ = command_line(*words, columns=80)
        assert code == 0
        assert "…" not in out
        assert max(map(len, out.splitlines())) <= 80


def test_sites_of_a_timm_model(command_line):
    code, out, _ = command_line("sites", "test_resnet", "--size", 64, "--json")
    said = json.loads(out)
    assert (code, said["model"]) == (0, "test_resnet")
    sites = {site["name"]: site for site in said["sites"]}
    assert next(iter(sites)) == "input"
    assert sites["input"]["shape"] == [1, 3, 64, 64]
    assert sites["layer2"]["layout"] == "NCHW"
    assert 0 < sites["layer2"]["depth"] < sites["layer3"]["depth"] < 1
    for site in said["sites"]:
        assert set(site) == {"name", "shape", "layout", "depth", "tail_cost"}
        assert site["depth"] + site["tail_cost"] == pytest.approx(1)


def test_sites_of_a_checkpoint(command_line, checkpoint):
    code, out, _ = command_line("sites", checkpoint, "--json")
    assert code == 0
    assert json.loads(out)["sites"][0]["shape"] == [1, 3, 48, 64]
    code, out, _ = command_line("sites", checkpoint)
    assert code == 0
    assert "layer3" in out


@pytest.mark.parametrize("tell", [False, True])
def test_sites_of_a_model_that_takes_one_small_size(command_line, tmp_path, tell):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pool = nn.Conv2d(1, 4, 3, padding=1), nn.AvgPool2d(8)
            self.head = nn.Linear(4 * 16, 2)

        def forward(self, x):
            return self.head(self.pool(self.conv(x)).flatten(1))

    class Nets:
        @fa.hookimpl
        def feedback_adapter_architectures(self):
            return [fa.ArchitectureSpec("nets", lambda name, kwargs: Net(), "networks")]

    if tell:
        Net.image_size = 32
    with scoped(Nets()):
        folder = fa.wrap(Net(), labels=["a", "b"]).save(
            tmp_path / "net", architecture=fa.Architecture("nets", "net")
        )
        code, out, _ = command_line("sites", folder, "--json")
        said = json.loads(out)
        assert (code, said["image"]) == (0, [32, 32])
        assert said["sites"][0]["shape"] == [1, 1, 32, 32]
        code, out, err = command_line("sites", folder, "--size", 50)
        assert (code, out) == (2, "")
        assert "Say with --size what size of image it takes." in err


def test_zoo(command_line, checkpoint):
    class Zoo:
        @fa.hookimpl
        def feedback_adapter_checkpoints(self):
            return [fa.CheckpointSpec("tiny-words", checkpoint, "words of captions")]

    with scoped(Zoo()):
        code, out, _ = command_line("zoo", "list", "--json")
        listed = json.loads(out)["checkpoints"]
        assert code == 0
        assert listed == [
            {
                "name": "tiny-words",
                "summary": "words of captions",
                "photos": True,
                "path": str(checkpoint),
            }
        ]
        assert "words of captions" in command_line("zoo", "list")[1]
        code, out, _ = command_line("zoo", "show", "tiny-words")
        assert code == 0
        assert "It scores nothing." in out
        code, out, _ = command_line("zoo", "show", "tiny-words", "--json")
        assert json.loads(out) == json.loads((checkpoint / "feedback_adapter.json").read_text())
        code, _, err = command_line("zoo", "show", "tiny-word")
        assert code == 2
        assert "Did you mean 'tiny-words'?" in err


def test_an_empty_zoo(command_line):
    with scoped():
        assert json.loads(command_line("zoo", "list", "--json")[1]) == {"checkpoints": []}
        assert "Install the distribution feedback-adapter-zoo" in command_line("zoo", "list")[1]


def test_plugins(command_line):
    with scoped():
        code, out, _ = command_line("plugins", "--json")
    (info,) = json.loads(out)["plugins"]
    assert code == 0
    assert (info["name"], info["distribution"], info["status"]) == (
        "builtin", "feedback-adapter", "OK",
    )  # fmt: skip
    assert info["version"] == fa.__version__


# ---- mistakes ----


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--know", "dog", "--know-not", "dog"], "Contradiction: ['dog'] are said to be both"),
        (["--know", "dogg"], "no label 'dogg'. Did you mean 'dog'?"),
        ([], "Nothing is known: say something with --know"),
        (["--know", "dog", "--strategy", "residuals"], "Did you mean 'residual'?"),
        (["--know", "dog", "--pivots", "layer9"], "no site 'layer9'. Did you mean"),
        (["--know", "dog", "--option", "steps"], "--option 'steps' must be name=value"),
        (["--know", "dog", "--option", "step=3"], "no option 'step'. Did you mean 'steps'"),
        (["--know", "dog", "--option", "steps=-1"], "steps=-1 is out of range"),
        (["--know", "dog", "--option", "steps=[/many]"], "steps='[/many]'"),
        (["--know", "dog", "--option", "steps=2.5"], "steps=2.5"),
        (["--evidence", "label=dog"], "no evidence 'label'. Did you mean 'labels'"),
        (["--evidence", "labels"], "use --evidence labels=TEXT"),
        (["--evidence", "labels=dog=most"], "'most' in 'dog=most' isn't a number"),
        (["--evidence", "labels=dog,-dog"], "Contradiction: 'dog'"),
        (["--know", "dog", "-c", "no-such"], "There is no checkpoint or folder 'no-such'."),
    ],
)
def test_mistakes_in_refine(command_line, checkpoint, photos, words, message):
    if "-c" not in words:
        words = [*words, "-c", checkpoint]
    code, out, err = command_line("refine", photos[0], *words, "--json")
    assert code == 2
    assert out == ""
    assert err.startswith("Error: ")
    assert message in err
    assert "Traceback" not in err


def test_files_that_are_no_photos(command_line, checkpoint, photos, tmp_path):
    (tmp_path / "text.jpg").write_text("a thousand words")
    (tmp_path / "cut.png").write_bytes(photos[0].read_bytes()[:900])
    for name, message in [
        ("absent.jpg", "There is no image"),
        ("text.jpg", "is not an image that Pillow can read"),
        ("cut.png", "can't be read"),
        (".", "can't be read"),
    ]:
        code, _, err = command_line("refine", tmp_path / name, "-c", checkpoint, "--know", "dog")
        assert code == 2
        assert message in err
        assert "Traceback" not in err


def test_mistakes_elsewhere(command_line, tmp_path):
    for words, message in [
        (("sites", "resnet81"), "'resnet81' is neither a checkpoint nor a model of timm. Did you"),
        (("zoo", "show", tmp_path), "no feedback_adapter.json: it isn't a checkpoint"),
    ]:
        code, out, err = command_line(*words)
        assert (code, out) == (2, "")
        assert message in err
        assert "Traceback" not in err


def test_the_installed_program(photos, checkpoint):
    """The entry point itself, once, as a user runs it."""
    script = Path(sys.executable).with_name("feedback-adapter")
    done = subprocess.run(
        [script, "refine", photos[0], "-c", checkpoint, "--know", "dgo"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "Error: The model has no label 'dgo'. Did you mean 'dog'?\n"
    assert done.stdout == ""
