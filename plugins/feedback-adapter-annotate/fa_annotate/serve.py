"""Listening on a port, and serving until Ctrl-C."""

from __future__ import annotations

import secrets
import socket
import webbrowser
from collections.abc import Sequence

import uvicorn
from starlette.routing import BaseRoute

from fa_annotate.app import make_app
from fa_annotate.desk import Desk
from fa_annotate.errors import AnnotateError
from fa_annotate.security import is_loopback
from feedback_adapter.cli.common import console

__all__ = ["listen", "serve"]

_SHORTEST = 16


def listen(host: str, port: int) -> socket.socket:
    """A socket that nobody is answered at yet.

    Raises:
        AnnotateError: The port is taken, or the address isn't this machine's.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        place = socket.socket(family, socket.SOCK_STREAM)
        try:
            place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            place.bind(address)
            place.listen()
        except BaseException:
            place.close()
            raise
    except OSError as error:
        raise AnnotateError(
            f"The page can't be served at {host}, port {port}: {error.strerror}. Choose another "
            "--port, or 0 for any that is free."
        ) from error
    return place


def serve(
    desk: Desk,
    place: socket.socket,
    host: str,
    token: str | None,
    *,
    more: Sequence[BaseRoute] = (),
    open_page: bool,
) -> None:
    """Serve the page until somebody ends the program.

    Args:
        desk: What is shown.
        place: Where; see `listen`.
        host: The address, as it was asked for.
        token: What requests must bring along. If other machines can reach the address, one is
            made up where none is given.
        more: Routes of other programs' protocols.
        open_page: Whether to open a browser.

    Raises:
        AnnotateError: The token is too short.
    """
    if token is None and not is_loopback(host):
        token = secrets.token_urlsafe(24)
    if token is not None and len(token) < _SHORTEST:
        raise AnnotateError(f"The token must have at least {_SHORTEST} characters.")
    name = f"[{host}]" if ":" in host else host
    address = f"http://{name}:{place.getsockname()[1]}/"
    address += "" if token is None else f"?token={token}"
    app = make_app(desk, host=host, token=token, more=more)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, proxy_headers=False,
        lifespan="off", timeout_graceful_shutdown=2,
    )  # fmt: skip
    console.print(f"Open {address} in a browser. Ctrl-C ends it.", highlight=False, soft_wrap=True)
    if open_page:
        webbrowser.open(address)
    server = uvicorn.Server(config)
    server.run(sockets=[place])
    if server.should_exit:  # Ctrl-C; uvicorn raises that itself most of the time, but not always
        raise KeyboardInterrupt
