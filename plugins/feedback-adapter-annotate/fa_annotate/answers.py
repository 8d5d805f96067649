"""What an annotator said, in a file that only grows: one line of JSON for each answer.

An answer is on the disk before anybody is told that it is saved. Taking one back is a line, too, so
the file says what was answered, in which order, and when.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import socket
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from fa_annotate.answer import Answer, Kind, fault_of, parsed
from fa_annotate.errors import AnnotateError

__all__ = ["Answer", "Answers", "ImageAnswers", "Kind"]

_BEGINS = b'{"id": '
"""How every line begins."""


@dataclasses.dataclass
class ImageAnswers:
    """What holds of one photo by now. The last answer counts.

    Args:
        labels: 1 or 0 by label; what isn't there wasn't answered.
        text: A text about the photo, or `None`.
        coarse: The coarse class, or some of which one holds, by the name of the answer.
        clicks: The answers that are clicks, in their order.
        skipped: Labels that were asked for and not answered.
    """

    labels: dict[str, int] = dataclasses.field(default_factory=dict[str, int])
    text: str | None = None
    coarse: dict[str, str | list[str]] = dataclasses.field(
        default_factory=dict[str, "str | list[str]"]
    )
    clicks: list[Answer] = dataclasses.field(default_factory=list[Answer])
    skipped: set[str] = dataclasses.field(default_factory=set[str])

    def add(self, answer: Answer) -> None:
        """Let one more answer count."""
        name, value = answer.name, answer.value
        if answer.kind in ("label", "skip"):
            self.labels.pop(name, None)
            self.skipped.discard(name)
            if answer.kind == "skip":
                self.skipped.add(name)
            elif value is not None:
                self.labels[name] = value
        elif answer.kind == "text":
            self.text = value
        elif answer.kind == "coarse":
            self.coarse.pop(name, None)
            if value is not None:
                self.coarse[name] = value
        else:
            self.clicks.append(answer)


class Answers:
    r"""The answers to one folder of photos. Make it with `open`; use it as a context or `close` it.

    It can be shared by threads. A second one for the same file is refused, in whichever process,
    as long as this one is open.

    Example:
        >>> import tempfile
        >>> with Answers.open(Path(tempfile.mkdtemp()) / "annotations.jsonl") as answers:
        ...     saved = answers.append("a.jpg", "label", "dog", 1)
        ...     print(answers.of("a.jpg").labels, answers.revision)
        ...     answers.undo().name, answers.of("a.jpg").labels, answers.revision
        {'dog': 1} 1
        ('dog', {}, 2)
    """

    def __init__(self, path: Path, lock: int, file: int) -> None:
        self.path = path
        self.torn: str | None = None
        """The end of a last line that a kill tore, and that was taken out when it was opened."""
        self._lock, self._file = lock, file
        self._size = 0
        self._lines = 0
        self._live: dict[int, Answer] = {}
        self._of: dict[str, dict[int, Answer]] = {}  # the same, by photo
        self._thread = threading.RLock()

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Read the answers so far, and be the only one who adds to them.

        Args:
            path: A folder, whose `annotations.jsonl` it is, or the file itself. A file that isn't
                there is made. Beside it a hidden file says who has it open.

        Raises:
            AnnotateError: Somebody else has it open; a line is broken, other than a last line
                without its end; or it can't be read or written.
        """
        path = Path(path)
        path = (path / "annotations.jsonl" if path.is_dir() else path).resolve()
        if path.exists() and not path.is_file():
            raise AnnotateError(
                f"Answers can't be saved in {str(path)!r}: it isn't a regular file. Name another."
            )
        lock = _exclusive(path)
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            os.close(lock)
            raise _unwritable(path, error) from error
        answers = cls(path, lock, file)
        try:
            answers._read()
            _sync_folder(path.parent)
        except BaseException:
            answers.close()
            raise
        return answers

    @property
    def revision(self) -> int:
        """Number of lines: it grows with every answer, and with every one taken back."""
        return self._lines

    def append(self, image: str, kind: Kind, name: str, value: Any) -> Answer:
        """Save an answer. It is on the disk when this returns.

        Args:
            image: Name of the photo.
            kind: What it is about; to take one back, call `undo`.
            name: See `Answer`.
            value: See `Answer`.

        Raises:
            AnnotateError: It isn't an answer, or can't be saved; then the file is as it was.
        """
        if kind == "undo":
            raise AnnotateError("An answer is taken back by undo(), not by append().")
        return self._append(image, kind, name, value)

    def undo(self, image: str | None = None) -> Answer | None:
        """Take back the last answer that holds, and save that.

        Args:
            image: The last one about this photo; by default about any.

        Returns:
            What was taken back; `None` if there was nothing.

        Raises:
            AnnotateError: That can't be saved.
        """
        with self._thread:
            own = self._live if image is None else self._of.get(image, {})
            answer = next(reversed(own.values()), None)
            if answer is not None:
                self._append(answer.image, "undo", answer.name, answer.id)
            return answer

    def of(self, image: str) -> ImageAnswers:
        """What holds of a photo; nothing, for one that wasn't answered."""
        found = ImageAnswers()
        with self._thread:
            for answer in self._of.get(image, {}).values():
                found.add(answer)
        return found

    def images(self) -> list[str]:
        """Names of the photos of which an answer holds, in the order of their first one."""
        with self._thread:
            return list(self._of)

    def close(self) -> None:
        """Let others have the file. Nothing is lost without it."""
        with self._thread:
            for number in (self._file, self._lock):
                if number >= 0:
                    os.close(number)
            self._file = self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, image: str, kind: Kind, name: str, value: Any) -> Answer:
        with self._thread:
            time = datetime.now(UTC).isoformat(timespec="milliseconds")
            answer = Answer(self._lines + 1, time, image, kind, name, value)
            if fault := fault_of(answer, self._live):
                raise AnnotateError(f"This isn't an answer: {fault}")
            line = json.dumps(dataclasses.asdict(answer)).encode() + b"\n"
            self._check()
            try:
                left = memoryview(line)
                while left:
                    left = left[os.pwrite(self._file, left, self._size + len(line) - len(left)) :]
                os.fsync(self._file)
            except BaseException as error:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, self._size)
                if isinstance(error, OSError):
                    raise _unwritable(self.path, error) from error
                raise
            self._take(answer, len(line))
            return answer

    def _take(self, answer: Answer, size: int) -> None:
        """Let an answer that is in the file count."""
        if answer.kind == "undo":
            image = self._live.pop(answer.value).image
            del self._of[image][answer.value]
            if not self._of[image]:
                del self._of[image]
        else:
            self._live[answer.id] = answer
            self._of.setdefault(answer.image, {})[answer.id] = answer
        self._lines, self._size = answer.id, self._size + size

    def _check(self) -> None:
        """Refuse to write into a file that isn't the one that was read."""
        if self._file < 0:
            raise AnnotateError(f"{str(self.path)!r} was closed; open it again.")
        own = os.fstat(self._file)
        try:
            there = self.path.stat()
        except OSError:
            there = None
        if there is None or not os.path.samestat(own, there) or own.st_size != self._size:
            raise AnnotateError(
                f"{str(self.path)!r} was changed, moved or removed by something else since it was "
                "opened, so nothing was saved. Start again: what it holds then is read anew."
            )

    def _read(self) -> None:
        try:
            with os.fdopen(os.dup(self._file), "rb") as file:
                content = file.read()
        except OSError as error:
            raise _unwritable(self.path, error) from error
        *lines, torn = content.split(b"\n")
        for number, line in enumerate(lines, 1):
            self._take(parsed(line, number, self.path, self._live), len(line) + 1)
        if torn:
            self._mend(torn, len(lines) + 1)

    def _mend(self, torn: bytes, number: int) -> None:
        """Take a last line whose end is missing; or take out one that a kill tore."""
        try:
            last = parsed(torn, number, self.path, self._live)
        except AnnotateError:
            if torn.strip(b"\0") and torn[: len(_BEGINS)] != _BEGINS[: len(torn)]:
                raise  # no kill tore it: somebody wrote it, or the file is another one
            last = None
        try:
            if last is None:
                self.torn = torn.decode(errors="replace")
                os.ftruncate(self._file, self._size)
            else:
                os.pwrite(self._file, b"\n", self._size + len(torn))
                self._take(last, len(torn) + 1)
            os.fsync(self._file)
        except OSError as error:
            raise _unwritable(self.path, error) from error


def _exclusive(path: Path) -> int:
    """Lock a hidden file beside `path`, and say in it who did.

    Raises:
        AnnotateError: Somebody else has locked it, or it can't be written.
    """
    file = path.with_name(f".{path.name}.lock")
    try:
        lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        who = f"process {os.getpid()} on {socket.gethostname()}, since {datetime.now():%c}"
        os.ftruncate(lock, 0)
        os.pwrite(lock, who.encode(), 0)
    except OSError as error:
        who = os.pread(lock, 500, 0).decode(errors="replace") or "another process"
        os.close(lock)
        if isinstance(error, BlockingIOError):
            raise AnnotateError(
                f"{str(path)!r} is open already, by {who}. Two at once would overwrite each "
                "other's answers: use that one's page, or end it first."
            ) from error
        raise _unwritable(path, error) from error
    return lock


def _sync_folder(folder: Path) -> None:
    """Make sure that a new file's name is on the disk, too."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _unwritable(path: Path, error: OSError) -> AnnotateError:
    return AnnotateError(
        f"Answers can't be saved in {str(path)!r}: {error.strerror or error}. Free some space, or "
        "choose a file where you may write."
    )
