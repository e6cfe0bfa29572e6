"""A mail as a page, for readers whose mail client shows it badly."""

import asyncio
import logging
from collections.abc import Sequence

import falcon
import psycopg
from falcon.asgi import Request, Response

from upnext.edge.refusal import Refused
from upnext.edge.warehouse import Warehouse
from upnext.errors import UpnextError
from upnext.journeys.copy.links import follow
from upnext.journeys.copy.message import Rendered, Sender, request_of
from upnext.journeys.copy.message import Request as Wanted
from upnext.journeys.copy.render_process import RenderProcess
from upnext.journeys.copy.samples import parts

_log = logging.getLogger("upnext.edge")
HEADERS = {
    # A mail has styles of its own and pictures from anywhere, and nothing that acts.
    "Content-Security-Policy": (
        "default-src 'none'; img-src https: http: data:; style-src 'unsafe-inline' https:; font-src https:;"
        " form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store, private",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex",
}


class MailPages:
    """Writes the mail again, as it was for its reader when it was sent, in the process that has limits."""

    def __init__(self, warehouse: Warehouse, sender: Sender, keys: Sequence[str]) -> None:
        self._warehouse = warehouse
        self._process = RenderProcess(sender)
        self._keys = list(keys)
        self._one_at_a_time = asyncio.Lock()

    async def on_get(self, _request: Request, response: Response, token: str) -> None:
        """Show the mail that a signed link names."""
        named = follow("v", token, self._keys)
        unknown = Refused(404, "unknown_link", "this link is not known")
        if named is None:
            raise unknown
        try:
            found = await self._warehouse.ask("mail", message_id=named.message_id)
        except (psycopg.Error, OSError):
            raise Refused(503, "unavailable", "the mail cannot be looked up now", retry_after=2) from None
        if not found:
            raise unknown
        (mail,) = found
        rendered = await self._render(request_of(mail, mail.sent_at))
        response.text = dict(parts(rendered)).get("html", "")
        response.content_type = falcon.MEDIA_HTML
        response.set_headers(HEADERS)

    on_head = on_get

    async def _render(self, wanted: Wanted) -> Rendered:
        try:
            async with self._one_at_a_time:
                rendered = await asyncio.to_thread(self._process.render, wanted)
        except UpnextError:
            rendered = None
        if rendered is None:
            raise Refused(503, "unavailable", "the mail cannot be written now", retry_after=2)
        if rendered.reason is not None:
            _log.warning("a mail cannot be shown: %s", rendered.reason)
            raise Refused(410, "gone", "this mail cannot be shown any more")
        return rendered
