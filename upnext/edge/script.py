"""The browser script, as it was built; pages load it from anywhere."""

import gzip
import hashlib
from pathlib import Path

from falcon.asgi import Request, Response

from upnext.edge.refusal import Refused
from upnext.edge.requests import has_already, takes_gzip

_BUILT = Path(__file__).parent / "web" / "built"
ENTRY = "u.js"
"""What pages name. It loads the other files, whose names have the hash of what they are."""


class Script:
    """The files, compressed once."""

    def __init__(self) -> None:
        self._files = {path.name: path.read_bytes() for path in sorted(_BUILT.glob("*.js"))}
        self._compressed = {name: gzip.compress(content, mtime=0) for name, content in self._files.items()}
        self._tags = {name: f'"{hashlib.sha256(content).hexdigest()[:32]}"' for name, content in self._files.items()}

    async def on_head(self, request: Request, response: Response, file: str) -> None:
        """Answer as to a GET, without the script."""
        await self.on_get(request, response, file)

    async def on_get(self, request: Request, response: Response, file: str) -> None:
        """Serve a file, or 304 where the browser has this one."""
        if file not in self._files:
            raise Refused(404, "not_found", "there is no such file")
        response.set_headers({
            "ETag": self._tags[file],
            "Cache-Control": (
                "public, max-age=300, stale-while-revalidate=86400" if file == ENTRY
                else "public, max-age=31536000, immutable"
            ),
            "Access-Control-Allow-Origin": "*",
            "Cross-Origin-Resource-Policy": "cross-origin",
            "Vary": "Accept-Encoding",
        })  # fmt: skip
        response.content_type = "text/javascript; charset=utf-8"
        if has_already(request, self._tags[file]):
            response.status = 304
        elif takes_gzip(request):
            response.data = self._compressed[file]
            response.set_header("Content-Encoding", "gzip")
        else:
            response.data = self._files[file]
