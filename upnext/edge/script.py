"""The browser script, as it was built; pages load it from anywhere."""

import gzip
import hashlib
import re
from pathlib import Path

from falcon.asgi import Request, Response

_BUILT = Path(__file__).parent / "web" / "built" / "u.js"


class Script:
    """The file, compressed once."""

    def __init__(self) -> None:
        self._content = _BUILT.read_bytes()
        self._compressed = gzip.compress(self._content, mtime=0)
        self._tag = f'"{hashlib.sha256(self._content).hexdigest()[:32]}"'

    async def on_head(self, request: Request, response: Response) -> None:
        """Answer as to a GET, without the script."""
        await self.on_get(request, response)

    async def on_get(self, request: Request, response: Response) -> None:
        """Serve the script, or 304 where the browser has this one."""
        response.set_headers({
            "ETag": self._tag,
            "Cache-Control": "public, max-age=300, stale-while-revalidate=86400",
            "Access-Control-Allow-Origin": "*",
            "Cross-Origin-Resource-Policy": "cross-origin",
            "Vary": "Accept-Encoding",
        })  # fmt: skip
        response.content_type = "text/javascript; charset=utf-8"
        if self._tag in (request.get_header("If-None-Match") or ""):
            response.status = 304
        elif _takes_gzip(request.get_header("Accept-Encoding") or ""):
            response.data = self._compressed
            response.set_header("Content-Encoding", "gzip")
        else:
            response.data = self._content


def _takes_gzip(accepted: str) -> bool:
    """Whether a client takes gzip, by its Accept-Encoding."""
    return re.search(r"\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))", accepted) is not None
