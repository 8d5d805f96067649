"""The file of answers: what is acknowledged stays, whatever happens."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fa_annotate.answers import Answers
from fa_annotate.errors import AnnotateError

IMAGES = ["a.jpg", "b/ü\n2.jpg", "\udcff.png", "日本 🐶.jpg"]
NAMES = ["dog", "traffic light\n", "été"]
ACTIONS = st.one_of(
    st.tuples(st.just("label"), st.sampled_from(NAMES), st.sampled_from([0, 1, None])),
    st.tuples(st.just("skip"), st.sampled_from(NAMES), st.just(True)),
    st.tuples(st.just("text"), st.just(""), st.none() | st.text(max_size=5)),
    st.tuples(
        st.just("coarse"),
        st.sampled_from(["", "superclass"]),
        st.sampled_from(["animal", ["animal", "food"], None]),
    ),
    st.tuples(st.just("click"), st.just("road"), st.just([0.25, 1, 0])),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.sampled_from(IMAGES), ACTIONS),
        st.tuples(st.just("undo"), st.none() | st.sampled_from(IMAGES)),
        st.tuples(st.just("reopen")),
    ),
    max_size=25,
)


def state(said):
    """What holds, by a list of (image, (kind, name, value)) that weren't taken back."""
    found = {image: ({}, [None], {}, [], set()) for image in IMAGES}
    for image, (kind, name, value) in said:
        labels, text, coarse, clicks, skipped = found[image]
        match kind:
            case "label":
                labels[name] = value
                skipped -= {name}
            case "skip":
                labels[name] = None
                skipped |= {name}
            case "text":
                text[0] = value
            case "coarse":
                coarse[name] = value
            case "click":
                clicks.append((name, value))
    return {
        image: (
            {n: v for n, v in labels.items() if v is not None},
            text[0],
            {n: v for n, v in coarse.items() if v is not None},
            clicks,
            skipped,
        )
        for image, (labels, text, coarse, clicks, skipped) in found.items()
    }


def held(answers):
    found = {image: answers.of(image) for image in IMAGES}
    return {
        image: (a.labels, a.text, a.coarse, [(c.name, c.value) for c in a.clicks], a.skipped)
        for image, a in found.items()
    }


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_any_steps_mean_the_same_as_a_list_of_answers(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("answers") / "answers.jsonl"
    answers, said, lines = Answers.open(path), [], 0
    for step, *arguments in steps:
        match step, *arguments:
            case "append", image, action:
                answer = answers.append(image, *action)
                said.append((image, action))
                lines += 1
                assert (answer.image, answer.kind, answer.name, answer.value) == (image, *action)
                assert answer.id == lines
            case "undo", image:
                own = [i for i, (other, _) in enumerate(said) if image in (None, other)]
                taken = answers.undo(image)
                if own:
                    other, action = said.pop(own[-1])
                    assert (taken.image, taken.kind, taken.name, taken.value) == (other, *action)
                    lines += 1
                else:
                    assert taken is None
            case _:
                answers.close()
                answers = Answers.open(path)
        assert held(answers) == state(said)
        assert answers.revision == lines
        assert answers.images() == list(dict.fromkeys(image for image, _ in said))
    answers.close()


def test_a_folder_has_its_file_and_its_lines_are_plain_json(tmp_path):
    with Answers.open(tmp_path) as answers:
        answers.append(os.fsdecode(b"caf\xe9\n.jpg"), "label", "dog", 1)
    (line,) = (tmp_path / "annotations.jsonl").read_text().splitlines()
    found = json.loads(line)
    assert os.fsencode(found["image"]) == b"caf\xe9\n.jpg"
    assert list(found) == ["id", "time", "image", "kind", "name", "value"]
    assert found["time"].endswith("+00:00")


def test_wherever_a_kill_tears_the_last_line_it_is_dropped_and_said(tmp_path):
    path = tmp_path / "a.jsonl"
    with Answers.open(path) as answers:
        answers.append("a.jpg", "label", "dog", 1)
        first = path.read_bytes()
        answers.append("ü", "skip", "dög\n", True)
    whole = path.read_bytes()
    for size in range(len(first), len(whole) - 1):
        path.write_bytes(whole[:size])
        with Answers.open(path) as answers:
            assert (answers.torn or "").encode() == whole[len(first) : size]
            assert answers.revision == 1
            assert path.read_bytes() == first
            assert answers.append("b.jpg", "label", "cat", 0).id == 2
        with Answers.open(path) as answers:
            assert answers.torn is None
            assert answers.images() == ["a.jpg", "b.jpg"]


def test_a_last_line_without_its_end_counts(tmp_path):
    """As an editor saves it, or a kill tears off nothing but the end."""
    path = tmp_path / "a.jsonl"
    with Answers.open(path) as answers:
        answers.append("a.jpg", "label", "dog", 1)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with Answers.open(path) as answers:
        assert (answers.torn, answers.revision) == (None, 1)
        assert answers.of("a.jpg").labels == {"dog": 1}
        assert path.read_bytes() == whole
        assert answers.append("a.jpg", "label", "cat", 1).id == 2


@pytest.mark.parametrize("content", [b"my notes", b'{"dog": 1}', b"\xff", b"[", b'{"id":1'])
def test_a_file_of_something_else_stays_as_it_is(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(AnnotateError, match="Line 1 of .*notes.txt.* isn't an answer"):
        Answers.open(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "value", [None, 1, [1], [1, 2, 3], ["a", "b", 1], [1, float("nan"), 1], [True, 1, 1], {}]
)
def test_a_click_is_a_place_and_yes_or_no(tmp_path, value):
    with Answers.open(tmp_path) as answers:
        with pytest.raises(AnnotateError, match="a click is"):
            answers.append("a.jpg", "click", "dog", value)
        assert answers.revision == 0
        answers.append("a.jpg", "click", "dog", [1, 2.5, 0])


GOOD = '{"id": 1, "time": "", "image": "a", "kind": "label", "name": "dog", "value": 1}'
BROKEN = {
    "no JSON": "dog: yes",
    "empty": "",
    "no object": "[1, 2]",
    "deep": "[" * 100_000,
    "bytes": b"\xff\xfe",
    "a number for a name": GOOD.replace("1,", "2,", 1).replace('"a"', "3"),
    "a key too few": '{"id": 2, "time": "", "image": "a", "kind": "label", "name": "dog"}',
    "a key too many": GOOD.replace("1,", "2,", 1).replace("}", ', "by": "me"}'),
    "twice": GOOD,
    "another kind": GOOD.replace("1,", "2,", 1).replace("label", "lable"),
    "a label with doubt": GOOD.replace("1,", "2,", 1).replace("1}", "0.5}"),
    "true": GOOD.replace("1,", "2,", 1).replace("1}", "true}"),
    "NaN": GOOD.replace("1,", "2,", 1).replace("label", "click").replace("1}", "NaN}"),
    "takes back what isn't there": GOOD.replace("1,", "2,", 1)
    .replace("label", "undo")
    .replace("1}", "2}"),
}  # fmt: skip


@pytest.mark.parametrize("line", BROKEN.values(), ids=BROKEN)
def test_another_broken_line_is_named_and_the_file_is_left_alone(tmp_path, line):
    path = tmp_path / "a.jsonl"
    line = line if isinstance(line, bytes) else line.encode()
    content = b"\n".join([GOOD.encode(), line, b'{"id": 3']) + b"\n"
    path.write_bytes(content)
    for _ in range(2):  # the lock is free again after the error
        with pytest.raises(AnnotateError, match=r"Line 2 of .*a\.jsonl.* isn't an answer"):
            Answers.open(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("line", ["{}", "[]", '{"photo": 1}'])
def test_a_line_with_other_keys_is_told_which_there_are(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text(line + "\n")
    keys = "must be an object with the keys id, image, kind, name, time, value"
    with pytest.raises(AnnotateError, match=keys):
        Answers.open(path)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("", "label", "dog", 1), "image can't be empty"),
        (("a", "label", "", 1), "needs the label's name"),
        (("a", "label", "dog", 0.5), "must be 1, 0 or None"),
        (("a", "label", "dog", True), "must be 1, 0 or None"),
        (("a", "lable", "dog", 1), "must be one of"),
        (("a", "text", "", 5), "must be a text"),
        (("a", "coarse", "", ["animal", 5]), "a list of classes"),
        (("a", "click", "road", [float("nan"), 1, 1]), "a click is"),
        (("a", "skip", "road", {"x": float("nan")}), "JSON can't hold"),
        (("a", "skip", "road", (1, 2)), "JSON can't hold"),
        (("a", "undo", "dog", 1), "undo()"),
    ],
)
def test_what_is_no_answer_is_not_saved(tmp_path, arguments, says):
    with Answers.open(tmp_path) as answers:
        with pytest.raises(AnnotateError, match=says.replace("(", r"\(").replace(")", r"\)")):
            answers.append(*arguments)
        assert answers.revision == 0
        assert (tmp_path / "annotations.jsonl").read_bytes() == b""


def test_a_second_one_is_told_who_has_the_file(tmp_path):
    link = tmp_path / "link.jsonl"
    link.symlink_to("annotations.jsonl")
    with Answers.open(tmp_path) as answers:
        for same in (tmp_path, tmp_path / "annotations.jsonl", link):
            with pytest.raises(AnnotateError, match=f"is open already, by process {os.getpid()} "):
                Answers.open(same)
        answers.append("a.jpg", "label", "dog", 1)
    with Answers.open(tmp_path) as answers:
        assert answers.of("a.jpg").labels == {"dog": 1}


def test_what_others_do_to_the_file_is_noticed_before_it_is_lost(tmp_path):
    path = tmp_path / "a.jsonl"
    with Answers.open(path) as answers:
        answers.append("a.jpg", "label", "dog", 1)
        content = path.read_bytes()
        for change in (
            lambda: path.write_bytes(content + b"more"),
            path.unlink,
            lambda: (path.unlink(missing_ok=True), path.write_bytes(content)),
        ):
            change()
            with pytest.raises(AnnotateError, match="was changed, moved or removed"):
                answers.append("a.jpg", "label", "cat", 1)
            assert answers.revision == 1
            assert not path.exists() or path.read_bytes().startswith(content)


def test_where_nobody_can_write_is_named(tmp_path):
    (tmp_path / "folder.jsonl").mkdir()
    for path in (tmp_path / "missing" / "a.jsonl", Path("/proc/a.jsonl")):
        with pytest.raises(AnnotateError, match=r"can't be saved in '.*a\.jsonl'"):
            Answers.open(path)
    answers = Answers.open(tmp_path)
    answers.close()
    with pytest.raises(AnnotateError, match="was closed"):
        answers.append("a.jpg", "label", "dog", 1)


FULL = """
import resource, signal, sys
from fa_annotate.answers import Answers
from fa_annotate.errors import AnnotateError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
with Answers.open(sys.argv[1]) as answers:
    saved = 0
    try:
        while True:
            saved = answers.append("a.jpg", "label", "dog", 1).id
    except AnnotateError as error:
        print(saved, answers.revision, error)
"""


def test_a_full_disk_leaves_whole_lines(tmp_path):
    """A limit on the size of files stands for the disk: it cuts a line in the middle, too."""
    path = tmp_path / "a.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", FULL, path], capture_output=True, text=True, check=True, timeout=60
    )
    saved, revision, error = done.stdout.split(maxsplit=2)
    assert saved == revision
    assert "File too large" in error
    with Answers.open(path) as answers:
        assert answers.torn is None
        assert answers.revision == int(saved) == 1000 // (len(path.read_bytes()) // int(saved))


def test_threads_lose_nothing(tmp_path):
    with Answers.open(tmp_path) as answers:

        def answer(number):
            for step in range(20):
                answers.append(f"{number}.jpg", "label", str(step), step % 2)

        threads = [threading.Thread(target=answer, args=[number]) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with Answers.open(tmp_path) as answers:
        assert answers.revision == 80
        for number in range(4):
            labels = answers.of(f"{number}.jpg").labels
            assert labels == {str(step): step % 2 for step in range(20)}


LOOP = """
import sys
from fa_annotate.answers import Answers

answers = Answers.open(sys.argv[1])
while True:
    number = answers.revision + 1
    answers.append(f"{number}.jpg", "label", "dög " * (number % 40 + 1), number % 2)
    print(number, flush=True)
"""


def test_twenty_kills_lose_nothing_and_repeat_nothing(tmp_path):
    """A process is killed while it appends. What it said is saved must be there, once."""
    path, random_ = tmp_path / "a.jsonl", random.Random(0)
    acknowledged = 0
    for _ in range(20):
        process = subprocess.Popen(
            [sys.executable, "-c", LOOP, path], stdout=subprocess.PIPE, text=True
        )
        first = process.stdout.readline()
        assert acknowledged <= int(first) - 1 <= acknowledged + 1, "it goes on where it was"
        time.sleep(random_.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        said = [first, *process.communicate(timeout=60)[0].splitlines()]
        acknowledged = int(said[-1])
        with Answers.open(path) as answers:
            assert acknowledged <= answers.revision <= acknowledged + 1
            acknowledged = answers.revision
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["id"] for line in found] == list(range(1, acknowledged + 1))
    for line in found:
        number = line["id"]
        assert line["image"] == f"{number}.jpg"
        assert (line["name"], line["value"]) == ("dög " * (number % 40 + 1), number % 2)
