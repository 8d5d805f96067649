"""How long it takes from an answer to the refined predictions, over HTTP, as the page asks.

    python clicks.py PHOTOS [coco80-lite0 caption-words-lite0] [--clicks 50]

PHOTOS is a folder. Each click answers the first question of a photo (yes and no in turn, and no
where one label of several holds), or says of a place on it which label is there, where a model
labels pixels. Five clicks go to a photo, the photos in their order. The answer is written to the
disk (fsync), the photo is refined with everything that was answered, and what the page shows comes
back. Photos that come next are looked at meanwhile, as always. A photo's first forward pass isn't
part of a click.
"""

from __future__ import annotations

import http.client
import itertools
import json
import platform
import random
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
import uvicorn

import feedback_adapter as fa
from fa_annotate.answers import Answers
from fa_annotate.app import make_app
from fa_annotate.desk import Folder
from fa_annotate.photos import Photos
from fa_annotate.session import Session

RESULTS = Path(__file__).parents[1] / "results"
PER_PHOTO = 5


def main(
    photos: Annotated[Path, typer.Argument(help="A folder with at least ten photos.")],
    checkpoints: Annotated[list[str] | None, typer.Argument()] = None,
    clicks: Annotated[int, typer.Option(help="How many.")] = 50,
    threads: Annotated[int, typer.Option(help="Of torch.")] = 2,
    out: Annotated[Path, typer.Option(help="JSON file.")] = RESULTS / "clicks.json",
) -> None:
    """Measure and write; print a line for each checkpoint."""
    torch.set_num_threads(threads)
    rows: list[dict[str, Any]] = []
    for name in checkpoints or ["coco80-lite0", "caption-words-lite0"]:
        with tempfile.TemporaryDirectory() as folder:
            for path in sorted(photos.iterdir())[: -(-clicks // PER_PHOTO)]:
                shutil.copyfile(path, Path(folder) / path.name)
            times = measure(name, Path(folder), clicks)
        spread = np.percentile(times, [50, 90, 100]).round(1).tolist()
        median, p90, most = spread
        rows.append({"checkpoint": name, "median": median, "p90": p90, "most": most})
        print(f"{name}: median of {clicks} clicks {median} ms, 9 of 10 below {p90} ms, all below "
              f"{most} ms", flush=True)  # fmt: skip
    where = f"{platform.machine()}, {threads} threads, torch {torch.__version__}"
    out.parent.mkdir(exist_ok=True)
    out.write_text(
        json.dumps({"clicks": clicks, "unit": "ms", "on": where, "rows": rows}, indent=1)
    )


def measure(checkpoint: str, folder: Path, clicks: int) -> list[float]:
    """Milliseconds of each click."""
    place = socket.socket()
    place.bind(("127.0.0.1", 0))
    session = Session(fa.load(checkpoint), checkpoint, Photos.of(folder), Answers.open(folder))
    config = uvicorn.Config(make_app(Folder(session)), log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [place]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    connection = http.client.HTTPConnection("127.0.0.1", place.getsockname()[1])

    def ask(path: str, body: dict[str, Any] | None = None) -> Any:
        told = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"}
        connection.request("GET" if body is None else "POST", path, told, headers)
        return json.loads(connection.getresponse().read())

    times: list[float] = []
    yes, chance = itertools.cycle([1, 0]), random.Random(0)
    while len(times) < clicks:
        image = len(times) // PER_PHOTO
        state = ask(f"/api/photos/{image}/state")
        for _ in range(min(PER_PHOTO, clicks - len(times))):
            time.sleep(0.3)  # nobody answers faster
            body = {"session": session.id, "revision": state["revision"]}
            body |= said(session, state, next(yes), chance)
            started = time.perf_counter()
            state = ask(f"/api/photos/{image}/answers", body)
            times.append(1000 * (time.perf_counter() - started))
            assert state["problem"] is None
    connection.close()
    server.should_exit = True
    thread.join()
    place.close()
    session.answers.close()
    return times


def said(session: Session, state: Any, yes: int, chance: random.Random) -> dict[str, Any]:
    """What the next click says."""
    if not state["questions"]:  # a map: that the commonest label is at a place
        height, width = state["size"]
        label = max(range(len(session.names)), key=lambda row: state["after"][row])
        place = [chance.randrange(width), chance.randrange(height), 1]
        return {"kind": "click", "name": session.names[label], "value": place}
    row = state["questions"][0]["index"]
    one_holds = session.adapter.outputs[session.labels[row].output].one_holds
    return {"kind": "label", "name": session.names[row], "value": 0 if one_holds else yes}


if __name__ == "__main__":
    typer.run(main)
