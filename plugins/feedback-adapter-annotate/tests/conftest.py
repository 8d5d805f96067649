"""A server that runs in a thread, and requests to it."""

import dataclasses
import http.client
import json
import socket
import threading
import time

import numpy as np
import pytest
import uvicorn
from PIL import Image

from fa_annotate.answers import Answers
from fa_annotate.app import make_app
from fa_annotate.desk import Desk, Folder
from fa_annotate.photos import Photos
from fa_annotate.session import Session
from feedback_adapter.testing import tiny_adapter
from feedback_adapter.transform import Transform


@dataclasses.dataclass
class Served:
    """A server, and its address."""

    desk: Desk
    port: int

    @property
    def session(self) -> Session:
        return self.desk.session(None)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def ask(self, path, method="GET", body=None, headers=None):
        """Status, headers, content (JSON as it is meant)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if response.headers.get_content_type() == "application/json":
            content = json.loads(content)
        return response.status, response.headers, content

    def tell(self, path, body, headers=None):
        headers = {"Content-Type": "application/json", **(headers or {})}
        return self.ask(path, "POST", json.dumps(body), headers)

    def answer(self, image, kind, name, value):
        """An answer as the page sends it."""
        body = {"session": self.session.id, "revision": self.session.answers.revision}
        body |= {"kind": kind, "name": name, "value": value}
        return self.tell(f"/api/photos/{image}/answers", body)


@pytest.fixture(scope="module")
def serve():
    """`serve(desk, host=..., token=...)`: a server until the module's tests are done."""
    running = []

    def start(desk, **arguments) -> Served:
        place = socket.socket()
        place.bind(("127.0.0.1", 0))
        app = make_app(desk, **arguments)
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]})
        thread.start()
        running.append((server, thread, place, desk))
        while not server.started:
            time.sleep(0.01)
        return Served(desk, place.getsockname()[1])

    yield start
    for server, thread, place, desk in running:
        server.should_exit = True
        thread.join(20)
        place.close()
        desk.close()


@pytest.fixture(scope="session")
def draw():
    """`draw(path, size)`: a photo of random colours."""

    def made(path, size=(24, 16), seed=0):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return made


@pytest.fixture(scope="session")
def tiny_session():
    """`tiny_session(folder)`: a tiny model with the photos of a folder."""

    def made(folder, kind="multilabel", **arguments) -> Folder:
        adapter = tiny_adapter(kind, **arguments)
        adapter.transform = Transform((16, 16))
        photos = Photos.of(folder)
        return Folder(Session(adapter, "tiny", photos, Answers.open(photos.folder)))

    return made
