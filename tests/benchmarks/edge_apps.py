"""What the edge is held against, on the same server: an answer that is always the same, and an INSERT for each request.

python -m tests.benchmarks.edge_apps constant PORT
python -m tests.benchmarks.edge_apps insert PORT DATABASE
"""

import os
import sys
from typing import Any

from granian.constants import HTTPModes, Interfaces
from granian.server import Server
from psycopg_pool import AsyncConnectionPool

ANSWER = b'{"success":true}'
INSERT = "insert into edge.inbox (source, received_at, line) values ('segment', now(), %s)"
DATABASE = "UPNEXT_BENCH_DATABASE"


async def _answer(send: Any) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})


async def _body(receive: Any) -> bytes:
    parts = b""
    while True:
        message = await receive()
        parts += message.get("body", b"")
        if not message.get("more_body"):
            return parts


async def constant(scope: Any, receive: Any, send: Any) -> None:
    """Read a body and answer."""
    if scope["type"] == "http":
        await _body(receive)
        await _answer(send)


_pools: list[AsyncConnectionPool[Any]] = []


async def insert(scope: Any, receive: Any, send: Any) -> None:
    """Store a body by a statement of its own, and answer."""
    if scope["type"] != "http":
        return
    body = await _body(receive)
    if not _pools:
        # Before the pool opens, so that there is one.
        _pools.append(AsyncConnectionPool(os.environ[DATABASE], min_size=16, max_size=16, open=False))
        await _pools[0].open()
    async with _pools[0].connection() as connection:
        await connection.execute(INSERT, (body,))
    await _answer(send)


if __name__ == "__main__":
    name, port, *database = sys.argv[1:]
    os.environ[DATABASE] = database[0] if database else ""
    Server(
        f"tests.benchmarks.edge_apps:{name}", address="127.0.0.1", port=int(port), interface=Interfaces.ASGI,
        http=HTTPModes.http1, log_enabled=False,
    ).serve()  # fmt: skip
