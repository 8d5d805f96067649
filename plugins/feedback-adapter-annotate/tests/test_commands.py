"""The commands as they are called: what they serve, how they end, and what they refuse."""

import re
import signal
import subprocess
import sys
import urllib.request

import pytest
import safetensors.torch
import timm

PROGRAM = [sys.executable, "-c", "from feedback_adapter.cli import main; main()"]


def start(*words):
    words = [*PROGRAM, *map(str, words), "--port", "0"]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def address_of(process):
    """Where it says that it serves."""
    for line in process.stdout:
        if found := re.search(r"http://[^ ]+", line):
            return found[0]
    pytest.fail(process.stderr.read())


@pytest.mark.slow
def test_both_commands_serve_until_they_are_ended(tmp_path, draw):
    draw(tmp_path / "photos" / "one.png")
    net = timm.create_model("resnet18", num_classes=2)
    safetensors.torch.save_file(net.state_dict(), tmp_path / "net.safetensors")
    (tmp_path / "labels.txt").write_text("dog\ncat\n")
    own = ["--model", "resnet18", "--labels", tmp_path / "labels.txt"]
    own += ["--weights", tmp_path / "net.safetensors"]
    served = {
        b'"playground":true': start("playground"),
        b'"labels":["dog","cat"]': start("annotate", tmp_path / "photos", *own),
    }
    try:
        for said, program in served.items():
            address = address_of(program)
            with urllib.request.urlopen(address) as page:
                assert b"<title>" in page.read()
            with urllib.request.urlopen(address + "api/session") as session:
                assert said in session.read()
            program.send_signal(signal.SIGINT)
            assert program.wait(20) == 130
    finally:
        for program in served.values():
            program.kill()
            program.communicate()
    assert (tmp_path / "photos" / "annotations.jsonl").read_text() == ""


def test_mistakes_are_one_line(command_line, tmp_path, draw):
    draw(tmp_path / "photos" / "one.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "labels.txt").write_text("dog\n")
    photos, labels = tmp_path / "photos", tmp_path / "labels.txt"
    twice = tmp_path / "twice.txt"
    twice.write_text("dog\ncat\ndog\n")
    for words, said in [
        ([tmp_path / "nowhere"], "isn't there: name a folder with photos"),
        ([tmp_path / "empty"], "There is no photo in"),
        ([photos, "-c", "coco80-lite1"], "coco80-lite0"),
        ([photos, "--labels", labels], "--labels needs --model"),
        ([photos, "-c", "coco80-lite0", "--model", "resnet18"], "only one of them"),
        ([photos, "--model", "resnet81", "--labels", labels], "timm has no model 'resnet81'"),
        ([photos, "--model", "resnet18", "--labels", tmp_path / "no"], "can't be read"),
        ([photos, "--model", "resnet18", "--labels", labels, "--weights", labels], "be loaded"),
        ([photos, "-c", "triangles-clicks-dfm"], "has no transform"),
        ([photos, "--host", "203.0.113.9"], "can't be served"),
        ([photos, "-c", "coco80-lite0", "--strategy", "newtn"], "Did you mean 'newton'?"),
        ([photos, "-c", "coco80-lite0", "--answers", "/dev/null"], "it isn't a regular file."),
        ([photos, "--model", "resnet18", "--labels", twice], "names 'dog' twice"),
        ([photos, "--token", "short"], "at least 16 characters"),
    ]:  # fmt: skip
        code, _, error = command_line("annotate", *words, "--port", 0)
        assert (code, error.count("\n")) == (2, 1), error
        assert said in error
