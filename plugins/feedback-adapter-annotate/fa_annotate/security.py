"""Who may talk to the server: this machine's browser on our own page, or whoever has the token.

A page of another site can make a browser send requests to 127.0.0.1. So a request is answered only
if its `Host` is ours (a name that was rebound to this address isn't), and if it doesn't come from
another site's page, which browsers say in `Origin` and `Sec-Fetch-Site`.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hmac
import ipaddress
import socket
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["COOKIE", "Guard", "is_loopback"]

COOKIE = "feedback-adapter-token"

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""What every response says: nothing of another host is loaded, and no other page shows ours."""


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware that answers only requests that may be answered.

    Args:
        app: What it guards.
        host: The address that the server listens on. If others can reach it, IP addresses and
            this machine's own names are also good in `Host`: the token keeps strangers out.
        token: What a request must bring along, if any: as the cookie that `/?token=...` sets, as
            `Authorization: Bearer ...`, or as the password of basic authorization.
    """

    def __init__(self, app: ASGIApp, *, host: str, token: str | None = None) -> None:
        self.app, self.token = app, token
        self.open = not is_loopback(host)
        self.names = {"localhost", "127.0.0.1", "::1", host.lower()}
        if self.open:
            self.names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or say why not."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        app: ASGIApp = self.app if refusal is None else refusal
        await app(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_ours(host):
            return _said(f"This server isn't called {host!r:.100}.", 403)
        if self._foreign(headers, host, scope["path"]):
            return _said("A page of another site may not use this server.", 403)
        if self.token is None:
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and _same(given, self.token):
            answer = RedirectResponse("/", status_code=303)  # so that the token leaves the address
            answer.set_cookie(COOKIE, self.token, httponly=True, samesite="strict")
            return answer
        if any(_same(one, self.token) for one in _tokens(headers)):
            return None
        said = _said("A token is needed: open the address that the program printed.", 401)
        said.headers["WWW-Authenticate"] = 'Basic realm="feedback-adapter"'
        return said

    def _is_ours(self, host: str) -> bool:
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        name = name.strip("[]").lower()
        if name in self.names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.open

    @staticmethod
    def _foreign(headers: Headers, host: str, path: str) -> bool:
        """Whether a browser sent this for a page of another site."""
        origin = headers.get("origin")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            return True
        site = headers.get("sec-fetch-site", "none")
        linked = path == "/" and headers.get("sec-fetch-mode") == "navigate"
        return site not in ("same-origin", "none") and not linked


def _tokens(headers: Headers) -> list[str]:
    """Every token that a request brings along."""
    found: list[str] = []
    with contextlib.suppress(CookieError):
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        found += [cookie.value] if cookie is not None else []
    kind, _, rest = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        found.append(rest.strip())
    elif kind.lower() == "basic":
        with contextlib.suppress(binascii.Error, UnicodeDecodeError):
            found.append(base64.b64decode(rest, validate=True).decode().partition(":")[2])
    return found


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _said(message: str, status: int) -> JSONResponse:
    return JSONResponse({"error": message}, status_code=status)
