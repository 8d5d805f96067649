"""Every mistake that can be expected is one line on standard error and exit code 2."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from feedback_adapter.cli import common

SCRIPT = Path(sys.executable).with_name("feedback-adapter")


def refused(ran: tuple[int, str, str]) -> str:
    """The message of a command that was refused, after checking how it was."""
    code, out, err = ran
    assert (code, out) == (2, ""), (out, err)
    assert err.startswith("Error: ")
    assert err.count("\n") == 1, "one line"
    assert err.endswith("\n")
    return err.removeprefix("Error: ").rstrip("\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--save-plot", "/nope/x.png"], "--save-plot '/nope/x.png' can't be written: No such"),
        (["--save-plot", "x.zzz"], "The picture 'x.zzz' has the ending '.zzz', which says its"),
        (["--save-plot", "x.raw"], "Possible: "),
        (["--save-plot", "."], "The picture '.' has no ending"),
        (["--save-plot", "/dev/full"], "The picture '/dev/full' has no ending"),
        (["--option", "strategy=newton"], "'strategy' is no option of a strategy. Photos, what"),
        (["--option", "images=x"], "'images' is no option of a strategy"),
        (["--option", "self=1"], "'self' is no option of a strategy"),
        (["--option", "=3"], "--option '=3' must be name=value"),
        (["--option", "steps=1", "--option", "steps=2"], "--option steps=... is said twice"),
        (["--option", "steps=" + "[" * 9000], "is out of range"),
        (["--option", "step_size=NaN"], "step_size=nan is out of range"),
        (["--pivots", ""], "--pivots '' names no site"),
        (["--pivots", "conv1#²"], "no site 'conv1#²'"),
        (["--top", "-1"], "Invalid value for '--top'"),
        (["--top", "-1"], "-1"),
        (["--top", "many"], "Invalid value for '--top'"),
        (["--top", "many"], "'many'"),
        (["--evidence", "labels=dog=nan"], "'nan' in 'dog=nan' isn't a number in [0, 1]."),
        (["--evidence", "labels=dog="], "'' in 'dog=' isn't a number in [0, 1]."),
        (["--evidence", "labels=-dog=1"], "'-dog=1' isn't clear: leave out the minus, or"),
        (["--model", "resnet18"], "only one of them can be used"),
        (["--weights", "x.safetensors"], "--weights 'x.safetensors' needs --model"),
        (["--knw", "dog"], "No such option: --knw"),
        (["--know"], "--know"),
    ],
)
def test_refine(command_line, checkpoint, photos, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = [] if words[0] == "--weights" else ["-c", checkpoint]
    ran = command_line("refine", photos[0], *own, "--know", "dog", *words)
    assert message in refused(ran)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["demo", "--out", "file"], "'file' can't be used: File exists."),
        (["demo", "--out", "file/inside"], "'file/inside' can't be used: Not a directory."),
        (["sites", "test_vit", "--size", "-3"], "Invalid value for '--size'"),
        (["sites", "test_vit", "--size", "0"], "Invalid value for '--size'"),
        (["sites", "test_vit", "--size", "99999999"], "Invalid value for '--size'"),
        (["sites", "test_vit", "--size", "7"], "on images (1, 3, 7, 7)"),
        (["sites", "Test_ViT"], "Did you mean 'test_vit'"),
        (["sites", "broken"], "no feedback_adapter.json"),
        (["labels", "nowhere"], "There is no checkpoint or folder 'nowhere'."),
        (["labels"], "Missing argument 'checkpoint'. See "),
        (["zoo", "show", "Caption-Words-Lite0"], "Did you mean 'caption-words-lite0'"),
        (["zoo", "lst"], "No such command 'lst'. Did you mean 'list'? See feedback-adapter zoo"),
        (["Refine"], "No such command 'Refine'. Did you mean 'refine'? See feedback-adapter --"),
        (["labels", ""], "There is no name: give that of a checkpoint, or a folder."),
        (["labels", "made/feedback_adapter.json"], "a file of one: name its folder, 'made'."),
        (
            ["refine", "--know", "dog"],
            "There is no photo: name at least one, or an --evidence-file.",
        ),
    ],
)
def test_other_commands(command_line, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("not a folder")
    Path("broken").mkdir()
    Path("made").mkdir()
    Path("made/feedback_adapter.json").write_text("{}")
    assert message in refused(command_line(*words))


@pytest.mark.parametrize(
    ("photo", "message"),
    [
        (
            "photos",
            "'photos' can't be read: it is a folder. Name the photos in it, as in photos/*.",
        ),
        ("photos/Dog.PNG", "There is no image 'photos/Dog.PNG'. Did you mean 'dog.png'?"),
        ("photos/~", "There is no image 'photos/~'. Look what is in 'photos'."),
        ("phtos/dog.png", "There is no image 'phtos/dog.png', nor its folder."),
        ("https://example.com/dog.png", "photos aren't fetched. Download it, and name the file."),
        ("link.png", "it is a link that leads nowhere. Name the photo itself."),
        ("/dev/null", "it isn't a regular file. Save the photo as a file."),
    ],
)
def test_photos_that_are_none(command_line, checkpoint, photo, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Path("photos/dog.png").write_bytes(b"")
    Path("link.png").symlink_to("gone.png")
    ran = command_line("refine", photo, "-c", checkpoint, "--know", "dog")
    assert message in refused(ran)


def test_more_photos_at_a_time_than_any_machine_has(command_line, checkpoint, photos):
    words = ["-c", checkpoint, "--know", "dog", "--batch", str(10**20)]
    code, out, _ = command_line("refine", photos[0], *words)
    assert code == 0
    assert "dog" in out


@pytest.mark.parametrize("width", [1, 20, 40, 80])
def test_nothing_is_cut_off_in_a_narrow_terminal(command_line, checkpoint, photos, width):
    words = ["-c", checkpoint, "--know", "dog", "--know-not", "snow"]
    for command in (["refine", photos[0], *words], ["sites", checkpoint], ["zoo", "list"]):
        code, out, _ = command_line(*command, columns=width)
        assert code == 0
        assert "…" not in out
        assert max(map(len, out.splitlines())) <= max(width, 36), "a terminal breaks the rest"
    table = command_line("refine", photos[0], *words, columns=width)[1]
    for text in ("dog", "snow", "ball", "grass", "100.0%", "before", "after", "change"):
        assert text in table


def test_pivots_of_a_strategy_that_has_none(command_line, tmp_path, checkpoint, photos):
    words = ["--know", "dog", "--strategy", "posterior", "--pivots", "layer3"]
    ran = command_line("refine", photos[0], "-c", _with_prior(checkpoint, tmp_path), *words)
    assert "says nothing to the strategy 'posterior'" in refused(ran)


def test_numbers_that_json_cannot_say():
    from feedback_adapter.cli.common import print_json
    from feedback_adapter.errors import DataError

    with pytest.raises(DataError, match="aren't finite"):
        print_json({"before": float("nan")})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only some systems have a full disk")
@pytest.mark.parametrize("word", ["--version", "--help"])
def test_a_full_disk(word):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [SCRIPT, word], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_picture_on_a_full_disk(command_line, checkpoint, photos, tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("only some systems have a full disk")
    (tmp_path / "x.png").symlink_to("/dev/full")
    words = ["-c", checkpoint, "--know", "dog", "--save-plot", tmp_path / "x.png"]
    code, _, err = command_line("refine", photos[0], *words)
    assert code == 2
    assert "x.png' can't be written: No space left on device." in err


def test_a_folder_that_is_read_only(command_line, checkpoint, photos, tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("root may write anywhere")
    words = ["-c", checkpoint, "--know", "dog", "--save-plot", tmp_path / "x.png"]
    assert "Permission denied" in refused(command_line("refine", photos[0], *words))


def test_whoever_reads_has_seen_enough():
    with subprocess.Popen(
        [SCRIPT, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as ran:
        ran.stdout.close()
        assert ran.stderr.read() == b""
    assert ran.returncode == 1


@pytest.mark.skipif(os.name == "nt", reason="a shell of Unix")
def test_a_closed_output():
    for words, code in (("--version >&-", 0), ("nope >&-", 2), ("nope 2>&-", 2)):
        done = subprocess.run(
            f"'{SCRIPT}' {words}", shell=True, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == code
        assert done.stderr.count("\n") == (words == "nope >&-")


@pytest.mark.parametrize("code", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_that_cannot_show_a_character(code):
    env = {**os.environ, "PYTHONIOENCODING": code}
    words = {"capture_output": True, "env": env, "timeout": 60, "check": False}
    done = subprocess.run([SCRIPT, "Ж²"], **words)
    assert done.returncode == 2
    shown = {"ascii": "\\u0416\\xb2", "latin-1": "\\u0416²", "utf-8": "Ж²"}[code]
    assert f"No such command '{shown}'" in done.stderr.decode(code)
    done = subprocess.run([SCRIPT, "--help"], **words)
    assert (done.returncode, done.stderr) == (0, b"")


def test_tables_without_lines_of_their_own(command_line, checkpoint, monkeypatch):
    """Where there are only ASCII characters, a table is drawn with those."""
    monkeypatch.setattr(type(common.console), "encoding", "ascii")
    code, out, _ = command_line("sites", checkpoint)
    assert code == 0
    assert out.isascii()
    assert "+--" in out


def _with_prior(checkpoint: Path, folder: Path) -> Path:
    import torch

    import feedback_adapter as fa

    adapter = fa.load(checkpoint)
    count = len(adapter.labels)
    adapter.fit_prior(torch.rand(20, count), torch.rand(20, count).round())
    return adapter.save(folder / "with-prior")


def test_what_pillow_warns_of_is_no_second_line(checkpoint, tmp_path):
    """Such a warning is printed only by a program of its own: pytest makes it an error."""
    import struct
    import zlib

    def chunk(name: bytes, content: bytes) -> bytes:
        check = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", 13_000, 7_000, 8, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    (tmp_path / "large.png").write_bytes(start + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    words = [SCRIPT, "refine", tmp_path / "large.png", "-c", checkpoint, "--know", "dog"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "large.png' can't be read: image file is truncated" in done.stderr


def test_evidence_without_a_text_says_nothing(command_line, checkpoint, photos):
    ran = command_line("refine", photos[0], "-c", checkpoint, "--evidence", "labels=")
    assert "--evidence 'labels=' says nothing: write labels=TEXT." in refused(ran)
