"""What an annotator said, in a file that only grows: one line of JSON for each answer.

An answer is on the disk before anybody is told that it is saved. Taking one back is a line, too, so
the file says what was answered, in which order, and when.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import math
import os
import socket
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, cast, get_args

from fa_annotate.errors import AnnotateError

__all__ = ["Answer", "Answers", "ImageAnswers", "Kind"]

Kind: TypeAlias = Literal["label", "text", "coarse", "click", "skip", "undo"]
"""What an answer is about."""

_KINDS = get_args(Kind)


@dataclasses.dataclass(frozen=True)
class Answer:
    """One answer, as one line of the file holds it.

    Args:
        id: The number of its line, from 1 on.
        time: When it was saved, in UTC, as ISO 8601.
        image: Name of the photo, as its folder has it.
        kind: What it is about.
        name: The label of a `"label"`, `"skip"` or `"click"`; which classes a `"coarse"` is of; of
            an `"undo"`, the name of the answer that it takes back.
        value: 1 (yes), 0 (no) or `None` (not asked, after all) for a label; the text; the coarse
            class or a list of some; where a click is; for an undo the id of the answer that it
            takes back. `None` for a text or a coarse class means that there is none any more.
    """

    id: int
    time: str
    image: str
    kind: Kind
    name: str
    value: Any


_KEYS = {field.name for field in dataclasses.fields(Answer)}


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
            if fault := _fault(answer, self._live):
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
            self._take(_parsed(line, number, self.path, self._live), len(line) + 1)
        if torn:
            self.torn = torn.decode(errors="replace")
            os.ftruncate(self._file, self._size)
            os.fsync(self._file)


def _parsed(line: bytes, number: int, path: Path, live: Mapping[int, Answer]) -> Answer:
    """The answer of a line.

    Raises:
        AnnotateError: It holds none; names the line.
    """
    try:
        said = json.loads(line)
        if not isinstance(said, dict) or set(said) != _KEYS:
            raise ValueError(f"it must be an object with the keys {', '.join(sorted(_KEYS))}")
        answer = Answer(**cast("dict[str, Any]", said))
        fault = _fault(answer, live)
        if answer.id != number:
            fault = f"its id is {answer.id!r}, but it is line {number}."
    except (ValueError, TypeError, RecursionError) as error:
        fault, answer = f"{error}.", None
    if fault or answer is None:
        shown = line.decode(errors="replace")
        raise AnnotateError(
            f"Line {number} of {str(path)!r} isn't an answer: {fault} It reads {shown!r:.120}. "
            "Mend the line; or move it and those after it to another file."
        )
    return answer


def _fault(answer: Answer, live: Mapping[int, Answer]) -> str:
    """What is wrong with an answer, as a sentence; empty if nothing is."""
    kind, value = answer.kind, answer.value
    texts = (answer.time, answer.image, answer.kind, answer.name)
    if type(answer.id) is not int or not all(isinstance(text, str) for text in texts):
        return "id must be a whole number; time, image, kind and name must be texts."
    if not answer.image or kind not in _KINDS:
        return f"image can't be empty, and kind is {kind!r}: it must be one of {_KINDS}."
    if kind in ("label", "skip") and not answer.name:
        return f"a {kind} needs the label's name."
    if kind == "label" and value is not None and (type(value) is not int or value not in (0, 1)):
        return f"value of the label {answer.name!r} is {value!r:.80}: it must be 1, 0 or None."
    if kind == "text" and not (value is None or isinstance(value, str)):
        return f"value is {value!r:.80}: it must be a text or None."
    if kind == "coarse" and not (value is None or isinstance(value, str) or _texts(value)):
        return f"value is {value!r:.80}: it must be a class, a list of classes, or None."
    if kind == "undo" and (type(value) is not int or value not in live):
        return f"it takes back answer {value!r:.80}, which there isn't (any more)."
    if not _is_json(value):
        return f"value is {value!r:.80}, which JSON can't hold."
    return ""


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in cast("list[Any]", value))


def _is_json(value: Any) -> bool:
    """Whether it comes back the same from JSON: no tuples, NaN or keys that aren't texts."""
    if isinstance(value, dict):
        return all(
            isinstance(k, str) and _is_json(v) for k, v in cast("dict[Any, Any]", value).items()
        )
    if isinstance(value, list):
        return all(map(_is_json, cast("list[Any]", value)))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, (str, int))


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
