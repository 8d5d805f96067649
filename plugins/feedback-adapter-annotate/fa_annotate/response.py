"""JSON for a browser, in ASCII: names of files needn't be text, and then UTF-8 can't hold them."""

from __future__ import annotations

import json
from typing import Any

from starlette import responses

__all__ = ["JSONResponse"]


class JSONResponse(responses.JSONResponse):
    """Starlette's, with everything escaped that isn't ASCII."""

    def render(self, content: Any) -> bytes:
        """The body of a response."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")
