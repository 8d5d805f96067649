"""What a server shows: one folder with one model, or the playground with any of them."""

from __future__ import annotations

import io
import re
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

import feedback_adapter as fa
from fa_annotate.answers import Answers
from fa_annotate.errors import AnnotateError
from fa_annotate.examples import examples
from fa_annotate.photos import Photos, check_size
from fa_annotate.session import Session
from feedback_adapter.checkpoint import read_config
from feedback_adapter.errors import CheckpointError, FeedbackAdapterError, did_you_mean
from feedback_adapter.photos import read_photo
from feedback_adapter.plugins import plugins

__all__ = ["Desk", "Folder", "Playground"]

_FIRST = ("coco80-lite0", "caption-words-lite0", "imagenet-lite0")
"""Checkpoints that are listed before others: they know something of any photo."""


class Desk:
    """The sessions of a server, by the name of their checkpoint."""

    def session(self, checkpoint: str | None) -> Session:
        """The session of a checkpoint; without a name the first one."""
        raise NotImplementedError

    def overview(self) -> dict[str, Any]:
        """What the page can choose from."""
        raise NotImplementedError

    def add_photo(self, name: str, content: bytes) -> int:
        """Take a photo in, and say which number it has.

        Raises:
            AnnotateError: This isn't a place for that.
        """
        raise AnnotateError(
            f"{name!r:.80} ({len(content)} bytes) isn't taken in: put photos into the folder, and "
            "start the program again."
        )

    def close(self) -> None:
        """Let go of what it holds."""
        raise NotImplementedError


class Folder(Desk):
    """One folder with one model.

    Args:
        own: Its session.
    """

    def __init__(self, own: Session) -> None:
        self.own = own

    def session(self, checkpoint: str | None) -> Session:
        """The only session."""
        if checkpoint not in (None, self.own.title):
            raise AnnotateError(f"This page is about {self.own.title!r} alone.")
        return self.own

    def overview(self) -> dict[str, Any]:
        """There is nothing to choose from."""
        return {"playground": False, "checkpoints": [], "strategies": []}

    def close(self) -> None:
        """Let others have the file of answers."""
        self.own.answers.close()


class Playground(Desk):
    """Example photos, photos that are dropped in, and every checkpoint. Make it with `open`.

    What is answered is forgotten at the end.

    Args:
        folder: Where the photos are, and below it the answers; it is removed at the end.
        photos: The photos.
        first: The checkpoint that is shown first.
    """

    def __init__(self, folder: Path, photos: Photos, first: str | None) -> None:
        self.folder, self.photos = folder, photos
        self.checkpoints = _checkpoints()
        if first is not None:
            self.checkpoints = {first: "", **self.checkpoints}
        if not self.checkpoints:
            raise CheckpointError(
                "There is no checkpoint to play with: pip install feedback-adapter-zoo."
            )
        self.sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(cls, first: str | None = None) -> Playground:
        """A playground with copies of the example photos.

        Raises:
            CheckpointError: There is no checkpoint.
        """
        folder = Path(tempfile.mkdtemp(prefix="feedback-adapter-playground-"))
        try:
            files = {f"{name}{path.suffix}": path for name, path in examples().items()}
            for name, path in files.items():
                shutil.copyfile(path, folder / name)
            desk = cls(folder.resolve(), Photos(folder.resolve(), list(files)), first)
            desk.session(None)
        except BaseException:
            shutil.rmtree(folder)
            raise
        return desk

    def session(self, checkpoint: str | None) -> Session:
        """The session of a checkpoint, which is loaded the first time.

        Raises:
            CheckpointError: There is no such checkpoint.
        """
        name = next(iter(self.checkpoints)) if checkpoint is None else checkpoint
        if name not in self.checkpoints:
            raise CheckpointError(
                f"There is no checkpoint {name!r:.80}. {did_you_mean(name, self.checkpoints)}"
            )
        with self._lock:
            if name not in self.sessions:
                number = len(self.sessions)
                answers = Answers.open(self.folder / f"answers-{number}.jsonl")
                self.sessions[name] = Session(fa.load(name), name, self.photos, answers)
            return self.sessions[name]

    def overview(self) -> dict[str, Any]:
        """Checkpoints and strategies to choose from."""
        return {
            "playground": True,
            "checkpoints": [{"name": n, "summary": s} for n, s in self.checkpoints.items()],
            "strategies": [
                {"name": spec.name, "summary": spec.summary} for spec in plugins().all("strategies")
            ],
        }

    def add_photo(self, name: str, content: bytes) -> int:
        """Keep a photo for as long as the playground is open.

        Args:
            name: What to call it.
            content: The picture file.

        Raises:
            AnnotateError: It has too many pixels.
            InputError: It isn't a photo.
        """
        check_size(io.BytesIO(content), name)
        photo = read_photo(io.BytesIO(content), name)
        plain = re.sub(r"[^\w-]+", " ", Path(name).stem).strip()[:60] or "photo"
        with self._lock:
            count = len(self.photos)
            file = f"{count + 1} {plain}.png"
            photo.save(self.folder / file)
            self.photos.names.append(file)
            return count

    def close(self) -> None:
        """Forget everything."""
        for session in self.sessions.values():
            session.answers.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _checkpoints() -> dict[str, str]:
    """Every checkpoint that can be shown photos, with its summary."""
    found: dict[str, str] = {}
    for spec in plugins().all("checkpoints"):
        try:
            fits = read_config(spec.path)["transform"] is not None
        except FeedbackAdapterError:
            continue
        if fits:
            found[spec.name] = spec.summary
    order = {name: place for place, name in enumerate(_FIRST)}
    return dict(sorted(found.items(), key=lambda item: order.get(item[0], len(order))))
