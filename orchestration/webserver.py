"""Dagster's webserver behind a guard: pages of other sites can change nothing through a browser that reaches it.

Dagster's own takes mutations by GET and in forms, which any page may send to 127.0.0.1. The UI itself sends JSON, from
its own origin.
"""

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from dagster_webserver import app
from dagster_webserver.cli import main
from dagster_webserver.webserver import DagsterWebserver
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse

HOSTS = "UPNEXT_UI_HOSTS"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_JSON = ("application/json", "application/graphql")
Message = MutableMapping[str, Any]


def refusal(method: str, path: str, headers: Headers, hosts: frozenset[str]) -> str | None:
    """Return why a request is refused; None where it may go on. `hosts` are names by which the UI may be asked."""
    asked = urlsplit(f"//{headers.get('host', '')}")
    is_graphql = path.rstrip("/").endswith("/graphql")
    is_reading = method in ("GET", "HEAD")
    reasons = {
        f"asked by a name that is not the UI's own; {HOSTS} lists others": asked.hostname not in hosts,
        "queries come by POST": is_reading and is_graphql and "text/html" not in headers.get("accept", ""),
        "sent by a page of another site": not is_reading and not _is_of_its_own_site(headers, asked.netloc),
        "queries come as JSON": (
            method == "POST" and is_graphql and not headers.get("content-type", "").startswith(_JSON)
        ),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _is_of_its_own_site(headers: Headers, asked: str) -> bool:
    """Whether a page of the UI sent it, or a program, which states neither header."""
    origin = headers.get("origin")
    return (origin is None or urlsplit(origin).netloc == asked) and (
        headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")
    )


class Guard:
    """Middleware that refuses what only another site's page would send."""

    def __init__(self, app: Callable[..., Awaitable[None]], hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Pass a request on, or answer 403."""
        if scope["type"] == "http":
            reason = refusal(scope["method"], scope["path"], Headers(scope=scope), self._hosts)
            if reason is not None:
                await PlainTextResponse(f"refused: {reason}\n", status_code=403)(scope, receive, send)
                return
        elif scope["type"] == "websocket":
            # A socket is opened by GET, and takes mutations: it is judged as what they are.
            reason = refusal("SOCKET", scope["path"], Headers(scope=scope), self._hosts)
            if reason is not None:
                await send({"type": "websocket.close", "code": 1008, "reason": reason})
                return
        await self._app(scope, receive, send)


def hosts(listed: str) -> frozenset[str]:
    """Return the names by which the UI may be asked: those of loopback, and those listed; in lower case, without ports.

    >>> "upnext.otto.example" in hosts("Upnext.Otto.example:8443, other.example")
    True
    """
    return _LOOPBACK | {urlsplit(f"//{name}").hostname or name for name in listed.replace(",", " ").split()}


class _Guarded(DagsterWebserver[Any, Any]):
    def build_middleware(self) -> list[Middleware]:
        return [Middleware(Guard, hosts=hosts(os.environ.get(HOSTS, ""))), *super().build_middleware()]


if __name__ == "__main__":
    # Dagster has no setting for middleware: its application is made of the class that this module names.
    app.DagsterWebserver = _Guarded  # type: ignore[attr-defined]
    main()  # type: ignore[no-untyped-call]
