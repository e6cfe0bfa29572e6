"""The report, behind a login: a password, or the user whom a trusted proxy names."""

import gzip
import hashlib
from ipaddress import ip_address, ip_network
from secrets import compare_digest

import falcon
import psycopg
from falcon.asgi import Request, Response

from upnext.edge.config import REPORT_PASSWORD, Config
from upnext.edge.limits import Limits
from upnext.edge.refusal import Refused
from upnext.edge.requests import has_already, login_of, peer_of, takes_gzip
from upnext.edge.warehouse import Warehouse
from upnext.settings import Settings

USER = "upnext"
WRONG_A_SECOND = 1
"""Wrong passwords that a client may try in a second, four at once; then it waits, also with the right one."""
MOST_CLIENTS = 10_000
NOBODY = ("", "-", "(null)")
"""What proxies state for somebody who has not logged in."""
HEADERS = {
    "Cache-Control": "private, no-cache",
    "Vary": "Accept-Encoding, Authorization",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex",
}
_NONE_YET = (
    "<!doctype html><title>No report yet</title><p>No report yet. Dagster writes one after each analysis;"
    " <code>upnext report</code> writes one now.</p>"
)


def where_the_report_is(settings: Settings, origin: str) -> str:
    """Return in a line where the edge at an address serves the report, and where its password is."""
    password = "UPNEXT_REPORT_PASSWORD" if settings.report_password else str(settings.home / REPORT_PASSWORD)
    return f"The report: {origin}{settings.edge_prefix}/report (user {USER}, password in {password})"


class ReportPage:
    """Serves the newest report, as the warehouse has it."""

    def __init__(self, warehouse: Warehouse, config: Config) -> None:
        self._warehouse = warehouse
        self._config = config
        self._wrong: dict[str, Limits] = {}

    async def on_get(self, request: Request, response: Response) -> None:
        """Show the report to whoever may see it, or 304 where the browser has this one."""
        response.set_headers(HEADERS)
        if not self._is_let_in(request):
            response.set_header("WWW-Authenticate", 'Basic realm="The report of Upnext", charset="UTF-8"')
            raise Refused(401, "unauthorized", "the report needs its password")
        try:
            found = await self._warehouse.ask("report")
        except (psycopg.Error, OSError):
            raise Refused(503, "unavailable", "the report cannot be read now", retry_after=2) from None
        response.content_type = falcon.MEDIA_HTML
        if not found:
            response.status = 404
            response.text = _NONE_YET
            return
        (newest,) = found
        response.set_header("ETag", f'"{newest.hash}"')
        if has_already(request, f'"{newest.hash}"'):
            response.status = 304
            return
        page = bytes(newest.page)
        if takes_gzip(request):
            response.set_header("Content-Encoding", "gzip")
            response.data = page
        else:
            response.data = gzip.decompress(page)

    on_head = on_get

    def _is_let_in(self, request: Request) -> bool:
        config = self._config
        if config.user_header and config.is_trusted(peer_of(request)):
            # Two headers come as one, with a comma: a proxy that sets its own drops the client's.
            user = (request.get_header(config.user_header) or "").strip()
            if user not in NOBODY and "," not in user:
                return True
        login = login_of(request.get_header("Authorization"))
        if login is None or login[0] != USER:
            return False
        client = _neighbourhood(config.client_of(peer_of(request), request.get_header("X-Forwarded-For")))
        if client not in self._wrong and len(self._wrong) >= MOST_CLIENTS:
            del self._wrong[next(iter(self._wrong))]
        limits = self._wrong.setdefault(client, Limits())
        wait = limits.take(0, WRONG_A_SECOND, 1)
        if wait is not None:
            raise Refused(429, "too_many_requests", "too many wrong passwords", retry_after=wait)
        is_right = any(compare_digest(_digest(login[1]), _digest(one)) for one in config.report_passwords)
        if is_right:
            limits.take(0, WRONG_A_SECOND, -1)
        return is_right


def _neighbourhood(address: str) -> str:
    """Return what one client can be told by: who has one address of IPv6 has all that begin alike."""
    parsed = ip_address(address)
    return address if parsed.version == 4 else str(ip_network((int(parsed) >> 64 << 64, 64)))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
