"""The routes of the page: what a browser asks for, and how it is answered."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from fa_annotate.desk import Desk
from fa_annotate.errors import AnnotateError, StaleError, TooLargeError
from fa_annotate.photos import MOST_BYTES, as_jpeg
from fa_annotate.response import JSONResponse
from fa_annotate.security import Guard
from fa_annotate.session import Session
from feedback_adapter.errors import FeedbackAdapterError

__all__ = ["make_app"]

STATIC = Path(__file__).parent / "static"

MOST_TOLD = 64 * 2**10
"""Bytes of an answer at most."""

SMALL = 160
"""Pixels of the longer side of the pictures to choose from."""


def make_app(
    desk: Desk, *, host: str = "127.0.0.1", token: str | None = None, more: Sequence[BaseRoute] = ()
) -> Starlette:
    """The application that a server runs.

    Args:
        desk: The sessions that it shows.
        host: The address that the server listens on; see `Guard`.
        token: What a request must bring along, if any.
        more: Routes of other programs' protocols.
    """
    routes = _Routes(desk)
    own = [
        Route("/", _page),
        Route("/api/session", routes.session),
        Route("/api/photos", routes.upload, methods=["POST"]),
        Route("/api/photos/{image:int}.jpg", routes.photo),
        Route("/api/photos/{image:int}/state", routes.state),
        Route("/api/photos/{image:int}/heat", routes.heat),
        Route("/api/photos/{image:int}/why/{label:int}", routes.why),
        Route("/api/photos/{image:int}/answers", routes.answer, methods=["POST"]),
        Route("/api/photos/{image:int}/undo", routes.undo, methods=["POST"]),
        Route("/api/photos/{image:int}/next", routes.next),
        Route("/api/export/{format}", routes.export),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    guard = Middleware(Guard, host=host, token=token)
    failures: Mapping[Any, Any] = {FeedbackAdapterError: _mistake, OSError: _mistake}
    return Starlette(routes=[*own, *more], middleware=[guard], exception_handlers=failures)


class _Routes:
    """One method for each route.

    Args:
        desk: The sessions.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    async def session(self, request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self._overview, request))

    def _overview(self, request: Request) -> dict[str, Any]:
        session = self._session(request)
        return {**self.desk.overview(), **session.overview()}

    async def photo(self, request: Request) -> Response:
        jpeg = await run_in_threadpool(self._jpeg, request)
        return Response(jpeg, media_type="image/jpeg")

    def _jpeg(self, request: Request) -> bytes:
        session, image = self._session(request), request.path_params["image"]
        if "small" in request.query_params:
            return as_jpeg(session.photos.open(image), SMALL)
        return session.open(image).jpeg

    async def state(self, request: Request) -> Response:
        return await run_in_threadpool(self._state, request)

    def _state(self, request: Request) -> Response:
        session, image = self._session(request), request.path_params["image"]
        shown = session.state(image, request.query_params.get("strategy"))
        return JSONResponse(shown, background=BackgroundTask(session.look_ahead, image))

    async def heat(self, request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self._heat, request))

    def _heat(self, request: Request) -> dict[str, Any]:
        session, image = self._session(request), request.path_params["image"]
        return session.heat(image, request.query_params.get("strategy"))

    async def why(self, request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self._why, request))

    def _why(self, request: Request) -> dict[str, Any]:
        session, image = self._session(request), request.path_params["image"]
        strategy = request.query_params.get("strategy")
        return session.why(image, request.path_params["label"], strategy)

    async def answer(self, request: Request) -> Response:
        told = await _told(request)
        return await run_in_threadpool(self._answer, request, told)

    def _answer(self, request: Request, told: Mapping[str, Any]) -> Response:
        session, image = self._addressed(request, told), request.path_params["image"]
        kind, name = told.get("kind"), told.get("name", "")
        if kind not in ("label", "text", "coarse", "click", "skip") or not isinstance(name, str):
            raise AnnotateError(f"kind={kind!r:.80}, name={name!r:.80} isn't an answer.")
        session.answer(image, kind, name, told.get("value"), told["revision"])
        return JSONResponse(session.state(image, request.query_params.get("strategy")))

    async def undo(self, request: Request) -> Response:
        told = await _told(request)
        return await run_in_threadpool(self._undo, request, told)

    def _undo(self, request: Request, told: Mapping[str, Any]) -> Response:
        session, image = self._addressed(request, told), request.path_params["image"]
        undone = session.undo(image, told["revision"])
        shown = session.state(image, request.query_params.get("strategy"))
        return JSONResponse({**shown, "undone": undone})

    async def next(self, request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self._next, request))

    def _next(self, request: Request) -> dict[str, Any]:
        session, image = self._session(request), request.path_params["image"]
        return {"image": session.next(image, useful=request.query_params.get("order") == "useful")}

    async def export(self, request: Request) -> Response:
        return await run_in_threadpool(self._export, request)

    def _export(self, request: Request) -> Response:
        session = self._session(request)
        folder = tempfile.TemporaryDirectory(prefix="feedback-adapter-export-")
        try:
            file = session.export(request.path_params["format"], Path(folder.name))
        except BaseException:
            folder.cleanup()
            raise
        after = BackgroundTask(folder.cleanup)
        return FileResponse(file, filename=file.name, background=after)

    async def upload(self, request: Request) -> Response:
        name = request.query_params.get("name", "photo")
        content = await _body(request, MOST_BYTES)
        image = await run_in_threadpool(self.desk.add_photo, name, content)
        return JSONResponse({"image": image})

    def _session(self, request: Request) -> Session:
        return self.desk.session(request.query_params.get("checkpoint"))

    def _addressed(self, request: Request, told: Mapping[str, Any]) -> Session:
        """The session that an answer is for, which must be the one that the page has seen."""
        session = self._session(request)
        if type(told.get("revision")) is not int:
            raise AnnotateError("An answer needs the revision that its page has seen, a number.")
        if told.get("session") != session.id:
            raise StaleError("The program was started again since, so nothing was saved here.")
        return session


async def _page(_: Request) -> Response:
    return FileResponse(STATIC / "index.html")


async def _told(request: Request) -> Mapping[str, Any]:
    """The object that a request brings along.

    Raises:
        AnnotateError: It brings none.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise AnnotateError("The content type of an answer must be application/json.")
    content = await _body(request, MOST_TOLD)
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise AnnotateError("An answer must be a JSON object.")
    return told


async def _body(request: Request, most: int) -> bytes:
    """What a request brings along, which isn't taken in further than allowed.

    Raises:
        TooLargeError: It is larger.
    """
    content, size = bytearray(), 0
    async for part in request.stream():
        size += len(part)
        if size <= most:
            content += part
        elif size > 8 * most:  # a browser doesn't listen before it has sent everything: let it
            break
    if size > most:
        raise TooLargeError(f"That is too large: {most / 2**20:g} MiB is the most.")
    return bytes(content)


async def _mistake(_: Request, error: Exception) -> Response:
    """What went wrong, for the page to say."""
    status = 409 if isinstance(error, StaleError) else 400
    if isinstance(error, TooLargeError):
        status = 413
    elif isinstance(error, OSError):
        status = 507
    return JSONResponse({"error": str(error)}, status_code=status)
