"""The application: paths, what they answer, and what a process of the edge holds while it runs."""

import asyncio
import contextlib
import logging
import re
import traceback
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import falcon
import falcon.asgi
import msgspec
import psycopg
from falcon.asgi import Request, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from upnext.clock import utc_now
from upnext.edge import origins
from upnext.edge.collector import BATCHES, TYPES, Rules, is_bot, lines_of, read
from upnext.edge.config import Config
from upnext.edge.decisions import Decisions, LookUps
from upnext.edge.hooks import Hooks
from upnext.edge.inbox import Inbox
from upnext.edge.keys import Key, KeyRing, key_of_header
from upnext.edge.limits import Limits
from upnext.edge.links import Links
from upnext.edge.mail_page import MailPages
from upnext.edge.refusal import Refusals, Refused
from upnext.edge.report_page import ReportPage
from upnext.edge.requests import body_of, peer_of
from upnext.edge.script import Script
from upnext.edge.tokens import Tokens
from upnext.edge.warehouse import STATEMENTS, Warehouse
from upnext.garbage import collect_seldom

_HOST = re.compile(r"[A-Za-z0-9.-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")
CODES = {404: "not_found", 405: "method_not_allowed"}
_SUCCESS = b'{"success":true}'
_log = logging.getLogger("upnext.edge")


class Edge:
    """What one process holds: connections, the queue of the moment, and counts that are not written yet."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.rules = Rules(config.strips_queries, config.consent)
        self.refusals = Refusals()
        self.limits = Limits(processes=config.processes)
        self.warehouse = Warehouse(config.database)
        self.inbox = Inbox(self.warehouse.connect, self.refusals, STATEMENTS)
        self.keys = KeyRing(lambda: self.warehouse.ask("keys_in_use"))
        self.registry = CollectorRegistry()
        self.answers = Counter("upnext_edge_answers", "Answers by status.", ["status"], registry=self.registry)
        Gauge("upnext_edge_waiting_lines", "Lines that wait for a commit.", registry=self.registry).set_function(
            lambda: self.inbox.waiting
        )
        Gauge("upnext_edge_written_lines", "Lines written since the start.", registry=self.registry).set_function(
            lambda: self.inbox.written
        )
        self._counters: dict[int, Counter] = {}
        self._writer: asyncio.Task[None]

    def count(self, status: int) -> None:
        """Count an answer."""
        if status not in self._counters:
            self._counters[status] = self.answers.labels(status)
        self._counters[status].inc()

    async def start(self) -> None:
        """Begin to write; the warehouse may still be away."""
        await self.warehouse.open()
        self._writer = asyncio.create_task(self.inbox.run())

    async def stop(self) -> None:
        """Write what waits, and close the connections."""
        self.inbox.close()
        await self._writer
        await self.warehouse.close()

    async def key_for(self, request: Request, stated: str | None) -> Key:
        """Return the key of a request, from its header or else from its body. Raises `Refused` for none in use."""
        # A bearer may be a key or a user's token, which has two dots.
        header = key_of_header(request.get_header("Authorization"))
        named = (
            (header if header is None or "." not in header else None)
            or request.get_header("X-Write-Key")
            or request.get_header("X-API-Key")
            or request.get_param("writeKey")
            or stated
        )
        key = await self.find_key(named)
        origin = request.get_header("Origin")
        if origin is not None:
            listed = self.config.origins | set(key.origins)
            is_listed = origins.is_allowed(origin, host=self.asked_as(request)[1], listed=listed)
            if not is_listed or key.kind == "server":
                raise Refused(403, "forbidden_origin", "this origin may not use this key")
        request.context.key = key
        return key

    async def find_key(self, stated: str | None) -> Key:
        """Return the key in use that a client states. Raises `Refused` where there is none."""
        try:
            key = await self.keys.find(stated)
        except OSError:
            raise Refused(503, "unavailable", "keys cannot be checked now", retry_after=2) from None
        if key is None:
            raise Refused(401, "unauthorized", "no key, or one that is unknown or disabled")
        return key

    def asked_as(self, request: Request) -> tuple[str, str]:
        """Return the scheme and the host by which the client asks; those that a trusted proxy forwards win.

        Anybody can state these headers, and a cache would give the answer to others.
        """
        scheme, host = request.scheme, request.netloc
        if self.config.is_trusted(peer_of(request)):
            stated = _last(request.get_header("X-Forwarded-Proto"))
            scheme = stated if stated in ("http", "https") else scheme
            stated = _last(request.get_header("X-Forwarded-Host"))
            host = stated if _HOST.fullmatch(stated) else host
        return scheme, host

    async def is_allowed(self, origin: str, request: Request) -> bool:
        """Whether pages of an origin may read answers: the origin is listed for the edge, or for any key."""
        try:
            listed = self.config.origins | await self.keys.origins()
        except OSError:
            listed = self.config.origins
        return origins.is_allowed(origin, host=self.asked_as(request)[1], listed=listed)


class Process:
    """Starts and stops the edge with its process, and adds to answers what belongs to all of them."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def process_startup(self, _scope: Any, _event: Any) -> None:
        """Start."""
        await self._edge.start()

    async def process_shutdown(self, _scope: Any, _event: Any) -> None:
        """Stop."""
        await self._edge.stop()

    async def process_request(self, request: Request, response: Response) -> None:
        """Answer preflights, which ask for no path in particular."""
        request.context.key = None
        origin = request.get_header("Origin")
        if request.method == "OPTIONS" and origin is not None:
            response.status = 204
            if await self._edge.is_allowed(origin, request):
                response.set_headers(origins.headers_of(origin, is_preflight=True))
            response.complete = True

    async def process_response(self, request: Request, response: Response, resource: Any, _is_served: bool) -> None:
        """Let the pages of listed origins read the answer, whatever it is."""
        response.append_header("Vary", "Origin")
        response.set_header("X-Content-Type-Options", "nosniff")
        # Pages of other origins read events' answers and decisions, and never the report.
        is_for_all = request.method != "OPTIONS" and not isinstance(resource, ReportPage)
        origin = request.get_header("Origin") if is_for_all else None
        if origin is not None and await self._edge.is_allowed(origin, request):
            response.set_headers(origins.headers_of(origin, is_preflight=False))
        self._edge.count(response.status_code)


class Collect:
    """A path of the collector."""

    def __init__(self, edge: Edge, kind: str) -> None:
        self._edge = edge
        self._kind = kind

    async def on_post(self, request: Request, response: Response) -> None:
        """Store the events, and answer after the commit."""
        edge = self._edge
        received_at = utc_now()
        call = read(await body_of(request), self._kind)
        key = await edge.key_for(request, call.key)
        wait = edge.limits.take(key.key_id, key.events_per_second, max(1, len(call.items)))
        if wait is not None:
            raise Refused(429, "too_many_requests", "this key sends faster than it may", retry_after=wait)
        wants_privacy = "1" in (request.get_header("Sec-GPC"), request.get_header("DNT"))
        if edge.config.honours_privacy and wants_privacy and key.kind == "write":
            call = replace(call, items=[])
            edge.refusals.add(received_at, key.key_id, "no_consent")
        lines = lines_of(
            call, edge.rules, received_at=received_at, ids=_ids(), address=self._address(request),
            is_bot=key.kind == "write" and is_bot(request.user_agent), is_public=key.kind == "write",
        )  # fmt: skip
        for _ in range(len(call.items) - len(lines)):
            edge.refusals.add(received_at, key.key_id, "no_consent")
        await edge.inbox.put([(key.source, received_at, line) for line in lines])
        response.data = _SUCCESS
        response.content_type = falcon.MEDIA_JSON

    def _address(self, request: Request) -> str | None:
        config = self._edge.config
        if not config.keeps_ip:
            return None
        return config.client_of(peer_of(request), request.get_header("X-Forwarded-For"))


class ClientSettings:
    """What Segment's browser client asks for before it sends anything."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def on_get(self, request: Request, response: Response, key: str) -> None:
        """Point the client to this edge."""
        if (await self._edge.find_key(key)).kind != "write":
            raise Refused(401, "unauthorized", "this is a secret of servers; a page needs a write key")
        scheme, host = self._edge.asked_as(request)
        response.data = msgspec.json.encode({
            "integrations": {"Segment.io": {
                "apiKey": key, "apiHost": f"{host}{self._edge.config.prefix}/v1", "protocol": scheme,
            }},
            "plan": {"track": {"__default": {"enabled": True}}},
            "metrics": {"sampleRate": 0},
        })  # fmt: skip
        response.content_type = falcon.MEDIA_JSON
        response.cache_control = ["public", "max-age=300"]
        response.append_header("Vary", "X-Forwarded-Host, X-Forwarded-Proto")


class ClientMetrics:
    """Where a client tells about itself; nobody asks."""

    async def on_post(self, request: Request, response: Response) -> None:
        """Keep nothing."""
        await body_of(request)
        response.data = _SUCCESS
        response.content_type = falcon.MEDIA_JSON


class Health:
    """Whether the process lives, and whether it can store events."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def on_get(self, _request: Request, response: Response) -> None:
        """It lives."""
        response.media = {"status": "ok"}

    on_head = on_get

    async def on_get_ready(self, _request: Request, response: Response) -> None:
        """It can commit."""
        try:
            (row,) = await self._edge.warehouse.ask("is_ready")
            is_ready = row.can_commit
        except (psycopg.Error, OSError):
            is_ready = False
        if not is_ready:
            raise Refused(503, "unavailable", "the warehouse cannot be written to", retry_after=2)
        response.media = {"status": "ok"}

    on_head_ready = on_get_ready


class Metrics:
    """Counts for Prometheus, for this machine alone."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def on_get(self, request: Request, response: Response) -> None:
        """Write the counts of this process."""
        is_forwarded = request.get_header("X-Forwarded-For") is not None
        if is_forwarded or not ip_address(peer_of(request)).is_loopback:
            raise Refused(404, "not_found", "there is nothing here")
        response.data = generate_latest(self._edge.registry)
        response.content_type = "text/plain; version=0.0.4; charset=utf-8"


class Robots:
    """What search engines may read: nothing."""

    async def on_get(self, _request: Request, response: Response) -> None:
        """Disallow all."""
        response.text = "User-agent: *\nDisallow: /\n"
        response.content_type = falcon.MEDIA_TEXT


class App(falcon.asgi.App[Request, Response]):
    """Falcon's application, asked by HTTP/1.0 too, as many proxies do: granian calls it `1`, and falcon knows `1.0`."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # type: ignore[override]
        """Serve a request."""
        if scope.get("http_version") == "1":
            scope["http_version"] = "1.0"
        await super().__call__(scope, receive, send)


def _last(header: str | None) -> str:
    return (header or "").rpartition(",")[2].strip()


def _ids() -> Iterator[str]:
    while True:
        yield f"edge-{uuid.uuid4()}"


def create(config: Config | None = None) -> App:
    """Return the application of one process."""
    collect_seldom()
    config = config or Config.from_environment()
    edge = Edge(config)
    app = App(middleware=[Process(edge)])
    app.req_options.strip_url_path_trailing_slash = True
    prefix = config.prefix
    for kind in (*TYPES, *BATCHES):
        for path in (f"/v1/{kind}", f"/{kind}"):
            app.add_route(prefix + path, Collect(edge, kind))
    app.add_route(prefix + "/v1/projects/{key}/settings", ClientSettings(edge))
    app.add_route(prefix + "/v1/m", ClientMetrics())
    health = Health(edge)
    app.add_route(prefix + "/healthz", health)
    app.add_route(prefix + "/readyz", health, suffix="ready")
    app.add_route(prefix + "/metrics", Metrics(edge))
    app.add_route(prefix + "/robots.txt", Robots())
    decisions = Decisions(
        LookUps(lambda users: edge.warehouse.ask("decide", users=users)), Tokens(config.token_keys), config.flags,
        Limits(processes=config.processes), edge.key_for,
    )  # fmt: skip
    app.add_route(prefix + "/ofrep/v1/evaluate/flags", decisions)
    app.add_route(prefix + "/ofrep/v1/evaluate/flags/{key}", decisions, suffix="one")
    app.add_route(prefix + "/js/{file}", Script())
    app.add_route(prefix + "/hooks/mail/{provider}", Hooks(edge.warehouse, config.hooks))
    if config.sender is not None:
        app.add_route(prefix + "/v/{token}", MailPages(edge.warehouse, config.sender, config.signing_keys))
    app.add_route(prefix + "/report", ReportPage(edge.warehouse, config))
    links = Links(edge.warehouse, edge.inbox, config.signing_keys, config.topics)
    for path, suffix in (("o", "open"), ("c", "click"), ("u", "unsubscribe"), ("p", "preferences")):
        app.add_route(f"{prefix}/{path}/{{token}}", links, suffix=suffix)

    async def refuse(request: Request, response: Response, refused: Refused, _params: Any, **_: Any) -> None:
        key = getattr(request.context, "key", None)
        edge.refusals.add(utc_now(), key.key_id if key is not None else 0, refused.code)
        _answer(response, refused.status, refused.body)
        if refused.retry_after is not None:
            response.set_header("Retry-After", f"{refused.retry_after}")

    async def refuse_path(request: Request, response: Response, error: falcon.HTTPError, params: Any, **_: Any) -> None:
        code = CODES.get(error.status_code, "bad_request")
        await refuse(request, response, Refused(error.status_code, code, error.title or ""), params)
        response.set_headers(error.headers or {})

    async def fail(_request: Request, response: Response, error: Exception, _params: Any, **_: Any) -> None:
        # The message of an error may hold what the client has sent.
        _log.error("%s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
        _answer(response, 500, {"code": "internal", "message": "the edge has a bug"})

    app.add_error_handler(Exception, fail)
    app.add_error_handler(falcon.HTTPError, refuse_path)
    app.add_error_handler(Refused, refuse)
    return app


def _answer(response: Response, status: int, body: Mapping[str, str]) -> None:
    response.status = status
    response.data = msgspec.json.encode(body)
    response.content_type = falcon.MEDIA_JSON
    with contextlib.suppress(AttributeError):
        response.text = None
