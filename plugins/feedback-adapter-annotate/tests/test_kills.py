"""The server is killed twenty times while somebody answers: nothing is lost or there twice.

FEEDBACK_ADAPTER_KILLS says how often instead.
"""

import http.client
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

KILLS = int(os.environ.get("FEEDBACK_ADAPTER_KILLS", "20"))
HEADERS = {"Content-Type": "application/json"}


def ask(port, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        if body is None:
            connection.request("GET", path)
        else:
            connection.request("POST", path, json.dumps(body), HEADERS)
        response = connection.getresponse()
        content = json.loads(response.read())
    finally:
        connection.close()
    assert response.status == 200, content
    return content


def answer_until_killed(port, saved, counter, killer):
    """Answer as fast as the server does, and return what was in flight; `saved` gets the rest."""
    told = ask(port, "/api/session")
    revision = told["revision"]
    while True:
        text = f"answer {next(counter)}"
        body = {"session": told["session"], "revision": revision}
        body |= {"kind": "text", "name": "", "value": text}
        try:
            state = ask(port, "/api/photos/0/answers", body)
        except (OSError, http.client.HTTPException, ValueError):
            return text
        assert state["text"] == text
        assert state["revision"] == revision + 1
        revision = state["revision"]
        saved.append(text)
        if len(saved) == 1:
            killer.start()  # now that it is at work


@pytest.mark.slow
def test_no_kill_loses_more_than_the_answer_in_flight(tmp_path, draw):
    draw(tmp_path / "photo.png")
    script = Path(__file__).with_name("serving.py")
    parent = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(script), str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    chance, counter = random.Random(0), iter(range(10**9))
    expected: list[list[str]] = []  # what must be there, and what may be
    try:
        for _ in range(KILLS):
            parent.stdin.write("\n")
            parent.stdin.flush()
            child, port = map(int, parent.stdout.readline().split())
            ask(port, "/api/session")  # it is there
            killer = threading.Timer(chance.uniform(0, 0.25), os.kill, (child, signal.SIGKILL))
            saved: list[str] = []
            started = time.monotonic()
            flying = answer_until_killed(port, saved, counter, killer)
            killer.join()
            assert time.monotonic() - started < 30
            expected += [[text, True] for text in saved] + [[flying, False]]
    finally:
        parent.stdin.close()
        parent.wait(20)
        parent.stdout.close()
    lines = (tmp_path / "annotations.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines if line.endswith("}")]
    assert len(lines) - len(found) <= 1  # the very last may be torn; it is taken out when opened
    assert [answer["id"] for answer in found] == list(range(1, len(found) + 1))
    texts = [answer["value"] for answer in found]
    assert len(set(texts)) == len(texts)
    assert [text for text, must in expected if must or text in texts] == texts
    assert len(found) > 2 * KILLS, "the server hardly answered"
