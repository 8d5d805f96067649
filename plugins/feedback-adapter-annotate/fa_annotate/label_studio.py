"""Label Studio's protocol of ML backends: what a task was annotated with is evidence.

Label Studio asks `/health` and `/setup` when a project is connected and before it asks `/predict`
for tasks, which bring their annotations along. Back come predictions of what wasn't annotated. In
the labelling configuration, `<Choices>` name labels: ticked ones are there, and in the control
`absent` they aren't (see `fa_annotate.exports.label_config`). A `<TextArea>` is a text about the
photo. A label that isn't ticked wasn't said.

Nothing is fetched: an address leads to a photo of the session's folder or is refused.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import secrets
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fa_annotate.answers import ImageAnswers
from fa_annotate.errors import AnnotateError, TooLargeError
from fa_annotate.evidence import evidence_of
from fa_annotate.exports import ABSENT
from fa_annotate.photos import Photos
from fa_annotate.response import JSONResponse
from fa_annotate.session import Session
from feedback_adapter.errors import FeedbackAdapterError
from feedback_adapter.names import find

__all__ = ["Config", "photo_of", "routes"]

MOST = 32 * 2**20
"""Bytes of a request at most: some thousand tasks with their annotations."""

_log = logging.getLogger(__name__)


def routes(session: Session) -> list[Route]:
    """The addresses that Label Studio asks, for the photos and the model of a session.

    Answers in Label Studio and those on the page know nothing of each other.
    """
    backend = _Backend(session)
    return [
        Route("/health", backend.health),
        Route("/setup", backend.setup, methods=["POST"]),
        Route("/predict", backend.predict, methods=["POST"]),
        Route("/versions", backend.versions, methods=["GET", "POST"]),
    ]


@dataclasses.dataclass(frozen=True)
class Control:
    """What annotators tick in or write to.

    Args:
        to_name: Which object of the configuration it is about.
        single: Whether one choice at most can be ticked.
        choices: The model's label by the name of its choice; `None` for a text.
    """

    to_name: str
    single: bool = False
    choices: Mapping[str, str] | None = None


@dataclasses.dataclass(frozen=True)
class Config:
    """What a labelling configuration says of a photo's labels. Make it with `of`.

    Args:
        key: In which entry of a task's data the photo's address is.
        controls: What is about that photo, by name.
    """

    key: str
    controls: Mapping[str, Control]

    @classmethod
    def of(cls, xml: str, labels: Sequence[str]) -> Config:
        """Read a labelling configuration.

        Args:
            xml: As Label Studio has it.
            labels: The model's.

        Raises:
            AnnotateError: It isn't XML, has no image, or none of the model's labels.
        """
        try:
            if "<!" in re.sub(r"<!--.*?-->", "", xml, flags=re.DOTALL):
                raise ValueError("it declares entities")
            root = ET.fromstring(xml)
        except (ET.ParseError, ValueError) as error:
            raise AnnotateError(f"The labelling configuration can't be read: {error}.") from error
        image = next(root.iter("Image"), None)
        if image is None or not image.get("value", "").startswith("$"):
            raise AnnotateError('The labelling configuration needs an <Image value="$image"/>.')
        controls: dict[str, Control] = {}
        for node in root.iter():
            name, to_name = node.get("name"), node.get("toName")
            if name is None or to_name != image.get("name"):
                continue
            if node.tag == "TextArea":
                controls[name] = Control(to_name)
            elif node.tag == "Choices":
                single = node.get("choice", "single") != "multiple"
                controls[name] = Control(to_name, single, _choices(node, labels))
        if not any(control.choices for control in controls.values()):
            raise AnnotateError(
                "No <Choice> of the labelling configuration is a label of this model. Its labels "
                f"are {', '.join(labels[:8])}{', ...' if len(labels) > 8 else ''}."
            )
        return cls(image.get("value", "")[1:], controls)

    def said(self, results: Sequence[Any]) -> ImageAnswers:
        """What the results of annotations say; later ones count.

        Args:
            results: Lists of items as Label Studio stores them. What isn't about a control of the
                configuration says nothing.
        """
        said = ImageAnswers()
        for item in (item for result in results for item in _list(result)):
            name, value = _dict(item).get("from_name"), _dict(_dict(item).get("value"))
            control = self.controls.get(name) if isinstance(name, str) else None
            if control is None:
                continue
            if control.choices is None:
                said.text = "\n".join(map(str, _list(value.get("text")))) or None
                continue
            for choice in _list(value.get("choices")):
                if isinstance(choice, str) and choice in control.choices:
                    said.labels[control.choices[choice]] = int(name != ABSENT)
        return said

    def prediction(self, said: ImageAnswers, probabilities: Mapping[str, float]) -> dict[str, Any]:
        """What is predicted of labels that weren't annotated, as Label Studio takes it.

        Of a control with several choices those are ticked that are more likely there than not, of
        one with a single choice the likeliest. What isn't there is never ticked.

        Args:
            said: What was annotated.
            probabilities: Of every label, knowing that.

        Returns:
            `result`, with the least probability of its choices as the score of each item; and
            `score`, how sure the model is of the labels that are left: the mean of max(p, 1 - p).
        """
        items: list[dict[str, Any]] = []
        left: dict[str, float] = {}
        for name, control in self.controls.items():
            if control.choices is None or name == ABSENT:
                continue
            own = {c: probabilities[k] for c, k in control.choices.items() if k not in said.labels}
            left |= {control.choices[choice]: p for choice, p in own.items()}
            if control.single:
                answered = 1 in (said.labels.get(label) for label in control.choices.values())
                picked = [] if answered or not own else [max(own, key=own.__getitem__)]
            else:
                picked = [choice for choice, p in own.items() if p > 0.5]
            if picked:
                items.append({
                    "from_name": name,
                    "to_name": control.to_name,
                    "type": "choices",
                    "value": {"choices": picked},
                    "score": min(own[choice] for choice in picked),
                })  # fmt: skip
        sure = [max(p, 1 - p) for p in left.values()]
        return {"result": items, "score": sum(sure) / len(sure) if sure else 1.0}


def photo_of(address: Any, photos: Photos) -> int:
    """The number of the photo that an address means.

    Local files (`/data/local-files/?d=...`) are found by their path in the folder, before which
    names of folders above it may stand; uploads (`/data/upload/...`) by their name alone, of which
    Label Studio has changed some characters. The host of an address isn't looked at.

    Args:
        address: As a task has it.
        photos: Those of the folder.

    Raises:
        AnnotateError: It means none of them, or several.
    """
    try:
        parts = urlsplit(address if isinstance(address, str) else "")
    except ValueError:
        parts = urlsplit("")
    if parts.path.startswith("/data/local-files"):
        local = parse_qs(parts.query, errors="surrogateescape").get("d", [""])[0]
        above = photos.folder.parts[1:]
        found = [
            photos.names.index(name)
            for depth in range(len(above) + 1)
            if (name := _without(local, above[len(above) - depth :])) in photos.names
        ][:1]
    elif parts.path.startswith("/data/upload/"):
        stored = PurePosixPath(unquote(parts.path)).name.partition("-")[2]
        found = [i for i, n in enumerate(photos.names) if _stored(n) == stored]
    else:
        found = []
    if len(found) != 1:
        what = "several photos" if found else "no photo"
        raise AnnotateError(
            f"{address!r:.200} means {what} of {str(photos.folder)!r}. Serve this folder to Label "
            "Studio as local files; other addresses aren't fetched."
        )
    return found[0]


class _Backend:
    """One method for each address.

    Args:
        session: Whose photos and model these are.
    """

    def __init__(self, session: Session) -> None:
        self.session = session

    def version(self) -> str:
        """A new one each time, since Label Studio doesn't ask again for a version that it has."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return f"{self.session.title} {now} {secrets.token_hex(4)}"

    async def health(self, _: Request) -> Response:
        return JSONResponse({"status": "UP", "model_class": self.session.title})

    async def versions(self, _: Request) -> Response:
        return JSONResponse({"versions": [self.version()], "message": self.session.title})

    async def setup(self, request: Request) -> Response:
        told = await _told(request)
        if schema := told.get("schema"):
            try:
                Config.of(str(schema), self.session.names)
            except AnnotateError as error:  # Label Studio shows that it was refused, but not why
                _log.warning("%s", error)
                raise
        return JSONResponse({"model_version": self.version()})

    async def predict(self, request: Request) -> Response:
        told = await _told(request)
        return JSONResponse(await run_in_threadpool(self._predict, told))

    def _predict(self, told: Mapping[str, Any]) -> dict[str, Any]:
        tasks = _list(told.get("tasks"))
        if not tasks:
            raise AnnotateError("There is no task to predict.")
        config = Config.of(str(told.get("label_config") or ""), self.session.names)
        context = _dict(_dict(told.get("params")).get("context") or told.get("context"))
        version = str(told.get("model_version") or self.version())
        results = [
            {**self._task(config, _dict(task), context.get("result")), "model_version": version}
            for task in tasks
        ]
        return {"results": results, "model_version": version}

    def _task(self, config: Config, task: Mapping[str, Any], context: Any) -> dict[str, Any]:
        """The prediction of a task; of one that can't be predicted an empty one, which says why."""
        try:
            index = photo_of(_dict(task.get("data")).get(config.key), self.session.photos)
            said = config.said([*_annotated(task), context])
            return config.prediction(said, self._probabilities(index, said))
        except FeedbackAdapterError as error:
            _log.warning("Task %s: %s", task.get("id"), error)
            return {"result": [], "score": 0.0, "error": str(error)}

    def _probabilities(self, index: int, said: ImageAnswers) -> dict[str, float]:
        session = self.session
        opened = session.open(index)
        evidence, _ = evidence_of(said, session.labels, opened.size)
        if evidence is None:
            outputs = session.adapter.unrefined(opened.prepared)
        else:
            result = session.adapter.refine(opened.prepared, evidence, strategy=session.strategy)
            outputs = result.outputs_after
        return {
            label.name: float(outputs.probabilities()[label.output][0, label.index])
            for label in session.labels
        }


def _without(path: str, folders: Sequence[str]) -> str | None:
    """A path without the folders that it begins with; `None` if it doesn't begin with them."""
    parts = PurePosixPath(path.lstrip("/")).parts
    return "/".join(parts[len(folders) :]) if parts[: len(folders)] == tuple(folders) else None


def _choices(node: ET.Element, labels: Sequence[str]) -> dict[str, str]:
    """The model's label for each choice that is one, by what results call the choice."""
    found: dict[str, str] = {}
    for choice in node.iter("Choice"):
        value = choice.get("value", "")
        places = find(value, labels)
        if len(places) == 1:
            found[choice.get("alias") or value] = labels[places[0]]
    return found


def _annotated(task: Mapping[str, Any]) -> list[Any]:
    """The results of a task's annotations that hold, the newest at the end, then of its drafts."""
    annotations = [_dict(annotation) for annotation in _list(task.get("annotations"))]
    held = [annotation for annotation in annotations if not annotation.get("was_cancelled")]
    held.sort(key=lambda annotation: str(annotation.get("updated_at") or ""))
    drafts = [_dict(draft) for draft in _list(task.get("drafts"))]
    return [annotation.get("result") for annotation in (*held, *drafts)]


def _stored(name: str) -> str:
    """What Label Studio calls an uploaded photo, after the eight characters that it begins with."""
    return re.sub(r"[^-\w.]", "", PurePosixPath(name).name.strip().replace(" ", "_"))


def _dict(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


async def _told(request: Request) -> dict[str, Any]:
    """The object that a request brings along.

    Raises:
        AnnotateError: It brings none.
        TooLargeError: It is too large.
    """
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > MOST:
            raise TooLargeError(f"That is too large: {MOST // 2**20} MiB is the most.")
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise AnnotateError("A request of Label Studio must be a JSON object.")
    return cast("dict[str, Any]", told)
