"""One model, one folder of photos, and what was answered: what a page needs to know of a photo."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from fa_annotate.answer import Kind
from fa_annotate.answers import Answers, ImageAnswers
from fa_annotate.errors import AnnotateError, StaleError
from fa_annotate.evidence import coarse_classes, evidence_of, labels_of
from fa_annotate.exports import export
from fa_annotate.maps import colour_of
from fa_annotate.photos import Photos, as_jpeg
from fa_annotate.questions import next_image, next_label
from fa_annotate.reasons import heat, why
from fa_annotate.views import described
from feedback_adapter.adapter import Adapter
from feedback_adapter.errors import FeedbackAdapterError, ModelError
from feedback_adapter.evidence import Evidence, Labels
from feedback_adapter.prepared import Prepared
from feedback_adapter.refinement import Refinement

__all__ = ["Opened", "Session"]

KEPT, KEPT_BYTES = 24, 2**30
"""Photos whose recorded forward pass is kept, at most, and the bytes of all these passes."""


@dataclasses.dataclass(frozen=True)
class Opened:
    """A photo that was looked at.

    Args:
        size: Its height and width, as a viewer shows it.
        jpeg: What a browser shows.
        prepared: Its recorded forward pass.
    """

    size: tuple[int, int]
    jpeg: bytes
    prepared: Prepared


class Session:
    """Answers about the photos of a folder, and what a model makes of them. Threads can share it.

    Args:
        adapter: The model.
        title: What the page calls it.
        photos: The photos.
        answers: What was answered, and who keeps what will be.
        strategy: How to refine; by default the library's choice.

    Raises:
        ModelError: The model doesn't say how photos become its input.
    """

    def __init__(
        self,
        adapter: Adapter,
        title: str,
        photos: Photos,
        answers: Answers,
        *,
        strategy: str | None = None,
    ) -> None:
        if adapter.transform is None:
            raise ModelError(
                f"{title!r} doesn't say how photos become its input (it has no transform), so it "
                "can't be shown photos. Choose another checkpoint."
            )
        self.adapter, self.title, self.photos, self.answers = adapter, title, photos, answers
        self.strategy = strategy
        self.labels = labels_of(adapter.outputs)
        self.names = [label.name for label in self.labels]
        self._rows = {
            name: [row for row, label in enumerate(self.labels) if label.output == name]
            for name, spec in adapter.outputs.items()
            if spec.kind in ("multilabel", "multiclass")
        }
        """Which labels can be asked for, by output."""
        self.id = secrets.token_hex(8)
        self._opened: OrderedDict[int, Opened] = OrderedDict()
        self._worth: dict[int, float] = {}
        self._waiting = 0
        self._warm = False
        self._model = threading.Lock()  # one pass at a time: two would only slow each other down
        self._writing = threading.Lock()

    def overview(self) -> dict[str, Any]:
        """What holds for every photo."""
        specs = self.adapter.outputs
        answered = self.answers.images()
        last = answered[-1] if answered else None
        return {
            "session": self.id,
            "revision": self.answers.revision,
            "title": self.title,
            "summary": self.adapter.card.summary,
            "resume": self.photos.names.index(last) if last in self.photos.names else 0,
            "folder": self.photos.folder.name,
            "labels": [label.name for label in self.labels],
            "one_holds": [specs[label.output].one_holds for label in self.labels],
            "maps": [
                {"index": row, "colour": colour_of(label.index)}
                for row, label in enumerate(self.labels)
                if specs[label.output].kind == "map"
            ],
            "coarse": coarse_classes(specs),
            "text": any(spec.kind in ("multilabel", "multiclass") for spec in specs.values()),
            "photos": [{"name": n, "answered": n in answered} for n in self.photos.names],
        }

    def open(self, index: int, *, waits: bool = True) -> Opened:
        """A photo with its recorded forward pass, which is kept for a while.

        Args:
            index: Which photo.
            waits: Whether somebody waits for it.

        Raises:
            AnnotateError: There is no such photo.
            InputError: It can't be read.
        """
        with self._alone(waits=waits):
            if index in self._opened:
                self._opened.move_to_end(index)
                return self._opened[index]
            photo = self.photos.open(index)
            opened = Opened((photo.height, photo.width), as_jpeg(photo), self._prepare(photo))
            self._opened[index] = opened
            self._worth[index] = self._worth_of(opened.prepared)
            while len(self._opened) > KEPT or (
                len(self._opened) > 1
                and sum(one.prepared.nbytes for one in self._opened.values()) > KEPT_BYTES
            ):
                self._opened.popitem(last=False)
            return opened

    def refine(
        self, index: int, strategy: str | None = None, *, explainable: bool = False
    ) -> Refinement | None:
        """What the model says of a photo, knowing what was answered; `None` if nothing was.

        Args:
            index: Which photo.
            strategy: How; by default the session's.
            explainable: Whether the result keeps what it takes to explain it.

        Raises:
            FeedbackAdapterError: What was answered can't be, or the strategy doesn't fit.
        """
        opened = self.open(index)
        evidence, _ = self.evidence(index, opened.size)
        if evidence is None:
            return None
        with self._alone():
            return self.adapter.refine(
                opened.prepared,
                evidence,
                strategy=strategy or self.strategy,
                explainable=explainable,
            )

    def explained(self, index: int, strategy: str | None = None) -> Refinement:
        """The same as `refine`, with what it takes to explain it.

        Raises:
            AnnotateError: Nothing was answered.
        """
        result = self.refine(index, strategy, explainable=True)
        if result is None:
            raise AnnotateError("Nothing was answered about this photo, so nothing has moved.")
        return result

    def why(self, index: int, row: int, strategy: str | None = None) -> dict[str, Any]:
        """Which answers moved a label, and where in the photo; see `Refinement.explain`.

        Args:
            index: Which photo.
            row: Which label.
            strategy: How to refine; by default the session's.

        Raises:
            AnnotateError: There is no such label, or nothing was answered.
            FeedbackAdapterError: There is nothing to explain, or captum isn't installed.
        """
        if not 0 <= row < len(self.labels):
            raise AnnotateError(f"There is no label {row}: there are {len(self.labels)}.")
        label = self.labels[row]
        result = self.explained(index, strategy)  # not alone, for it can take long
        return why(result.explain(label.label, output=label.output))

    def heat(self, index: int, strategy: str | None = None) -> dict[str, Any]:
        """Where the network's activation changed; see `heat`."""
        opened = self.open(index)
        return heat(self.explained(index, strategy), opened.prepared)

    def evidence(self, index: int, size: tuple[int, int]) -> tuple[Evidence | None, list[str]]:
        """What was answered of a photo; see `evidence_of`."""
        return evidence_of(self.answers.of(self.photos.name(index)), self.labels, size)

    def state(self, index: int, strategy: str | None = None) -> dict[str, Any]:
        """Everything that the page shows of a photo.

        Args:
            index: Which photo.
            strategy: How to refine; by default the session's.

        Raises:
            AnnotateError: There is no such photo.
            InputError: It can't be read.
        """
        opened = self.open(index)
        started = time.perf_counter()
        revision = self.answers.revision
        given = self.answers.of(self.photos.name(index))
        problem, result = None, None
        try:
            result = self.refine(index, strategy)
        except FeedbackAdapterError as error:
            problem = str(error)
        seconds = time.perf_counter() - started
        with self._alone():
            before = self.adapter.unrefined(opened.prepared)
        after = before if result is None else result.outputs_after
        shown = described(before, after, result, self.labels)
        _, unknown = self.evidence(index, opened.size)
        return {
            "session": self.id,
            "revision": revision,
            "image": index,
            "name": self.photos.name(index),
            "size": opened.size,
            "answers": [given.labels.get(name) for name in self.names],
            "skipped": [row for row, name in enumerate(self.names) if name in given.skipped],
            "text": given.text,
            "coarse": next(iter(given.coarse.values()), None),
            "clicks": [{"label": a.name, "at": a.value} for a in given.clicks],
            "unknown": unknown,
            "problem": problem,
            "seconds": seconds,
            "questions": self.questions(given, shown["after"]),
            **shown,
        }

    def questions(self, given: ImageAnswers, probabilities: list[float]) -> list[dict[str, Any]]:
        """The labels that weren't asked yet, the most useful one first.

        Args:
            given: What was answered.
            probabilities: Of every label, knowing that.
        """
        asked = given.labels.keys() | given.skipped
        found: list[dict[str, Any]] = []
        for output, rows in self._rows.items():
            known = {place for place, row in enumerate(rows) if self.names[row] in asked}
            now = torch.tensor([probabilities[row] for row in rows])
            best = next_label(now, known, couplings=self._couplings(output))
            found += [{"index": rows[place], "gain": gain} for place, gain in best]
        return sorted(found, key=lambda question: -question["gain"])

    def answer(self, index: int, kind: Kind, name: str, value: Any, revision: int) -> None:
        """Save an answer. It is on the disk when this returns.

        Args:
            index: Which photo.
            kind: What it is about.
            name: The label, where it is about one.
            value: See `Answer`.
            revision: What the page has seen: it must be the newest.

        Raises:
            StaleError: Another window has answered meanwhile.
            AnnotateError: It isn't an answer, or can't be saved.
        """
        image = self.photos.name(index)
        if kind in ("label", "skip", "click") and name not in self.names:
            raise AnnotateError(f"{self.title!r} has no label {name!r:.80}.")
        with self._writing:
            self._check(revision)
            self.answers.append(image, kind, name, value)

    def undo(self, index: int, revision: int) -> bool:
        """Take the last answer about a photo back, and say whether there was one.

        Raises:
            StaleError: Another window has answered meanwhile.
        """
        with self._writing:
            self._check(revision)
            return self.answers.undo(self.photos.name(index)) is not None

    def next(self, index: int, *, useful: bool) -> int | None:
        """The photo after this one that has no answer; `None` if all others have one.

        Args:
            index: This one.
            useful: Whether the one whose questions gain most comes first, among those that the
                model has seen, rather than the next by name.
        """
        answered = set(self.answers.images())
        count = len(self.photos)
        order = [(index + step) % count for step in range(1, count)]
        left = [i for i in order if self.photos.names[i] not in answered]
        seen = [i for i in left if i in self._worth]
        if useful and seen:
            return max(seen, key=lambda i: self._worth[i])
        return next(iter(left), None)

    def look_ahead(self, index: int, most: int = 4) -> None:
        """Look at photos that may come next, as long as nobody waits."""
        count = len(self.photos)
        if not self._warm and self._rows:  # the first refinement of a program is a slow one
            self._warm = True
            told = Labels({self.labels[0].label: 1}, output=self.labels[0].output)
            opened = self.open(index)
            with self._alone(waits=False), contextlib.suppress(FeedbackAdapterError):
                self.adapter.refine(opened.prepared, told, strategy=self.strategy)
        for step in range(1, min(most, count - 1) + 1):
            if self._waiting:
                return
            with contextlib.suppress(FeedbackAdapterError, OSError):
                self.open((index + step) % count, waits=False)

    def export(self, format: str, folder: Path) -> Path:
        """Write the answers in another program's format; an image folder is zipped.

        Args:
            format: See `fa_annotate.exports.export`.
            folder: An empty one.

        Returns:
            The file.
        """
        endings = {"coco": ".coco.json", "csv": ".csv", "label-studio": ".label-studio.json"}
        out = folder / f"annotations{endings.get(format, '')}"
        export(self.answers, self.names, format, self.photos.folder, out)
        if not out.is_dir():
            return out
        return Path(shutil.make_archive(str(folder / "imagefolder"), "zip", out))

    def _check(self, revision: int) -> None:
        if revision != self.answers.revision:
            raise StaleError("Something was answered in another window, so nothing was saved here.")

    @contextlib.contextmanager
    def _alone(self, *, waits: bool = True) -> Generator[None]:
        """Use the model; others wait."""
        self._waiting += waits
        try:
            with self._model:
                yield
        finally:
            self._waiting -= waits

    def _couplings(self, output: str) -> Tensor | None:
        prior = self.adapter.priors.get(output)
        return None if prior is None else prior.couplings

    def _worth_of(self, prepared: Prepared) -> float:
        """What the best questions about a photo gain, if nothing is known; see `next_image`."""
        found = self.adapter.unrefined(prepared).probabilities()
        return sum(
            next_image(found[output], couplings=self._couplings(output))[0][1]
            for output in self._rows
        )

    def _prepare(self, photo: Image.Image) -> Prepared:
        assert self.adapter.transform is not None, "checked when it was made"
        return self.adapter.prepare(self.adapter.transform.open(photo))
