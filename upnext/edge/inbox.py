"""The inbox: lines are written by one connection, together with all that wait, and answered after the commit.

There is no timer. Whoever waits while a commit is under way goes with the next one.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from upnext.edge.refusal import Refusals, Refused

MOST_WAITING = 20_000
"""Lines that may wait for a commit in one process."""
MOST_BYTES = 64 * 1024 * 1024
"""Bytes of such lines."""
COMMIT_WITHIN = 15.0
"""Seconds after which a commit counts as failed."""
_COPY = "copy edge.inbox (source, received_at, line) from stdin (format binary)"
_log = logging.getLogger("upnext.edge")

Line = tuple[str, datetime, bytes]


class Inbox:
    """Writes lines to the inbox, and counts of refusals with them."""

    def __init__(
        self, connect: Callable[[], Any], refusals: Refusals, statements: Mapping[str, str], *, flush_after: float = 5.0
    ) -> None:
        self._connect = connect
        self._refusals = refusals
        self._statements = statements
        self._flush_after = flush_after
        self._waiting: list[tuple[list[Line], asyncio.Future[None]]] = []
        self._lines = 0
        self._bytes = 0
        self._has_work = asyncio.Event()
        self._is_closing = False
        self.written = 0

    @property
    def waiting(self) -> int:
        """The lines that wait for a commit."""
        return self._lines

    async def put(self, lines: Sequence[Line]) -> None:
        """Return when the lines are committed. Raises `Refused` where they are not, or too many wait."""
        if not lines:
            return
        size = sum(len(line) for _, _, line in lines)
        if self._lines + len(lines) > MOST_WAITING or self._bytes + size > MOST_BYTES:
            raise Refused(503, "busy", "too many events wait to be stored", retry_after=1)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((list(lines), done))
        self._lines += len(lines)
        self._bytes += size
        self._has_work.set()
        await done

    async def run(self) -> None:
        """Write what waits, until `close`."""
        connection: Any = None
        while not (self._is_closing and not self._waiting):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._has_work.wait(), self._flush_after)
            self._has_work.clear()
            taken, self._waiting = self._waiting, []
            lines = [line for each, _ in taken for line in each]
            counts = self._refusals.take()
            if not lines and not counts:
                continue
            try:
                async with asyncio.timeout(COMMIT_WITHIN):
                    if connection is None or connection.closed:
                        connection = await self._connect()
                    await self._write(connection, lines, counts)
            except Exception as error:
                _log.warning("cannot store events: %s", type(error).__name__)
                self._refusals.put_back(counts)
                if connection is not None:
                    await _abandon(connection)
                    connection = None
                self._answer(taken, Refused(503, "unavailable", "events cannot be stored now", retry_after=2))
                # What waits meanwhile gets its answer now too, instead of one after the other.
                continue
            self.written += len(lines)
            self._answer(taken, None)
        if connection is not None:
            await connection.close()

    def close(self) -> None:
        """Let `run` end after what waits now."""
        self._is_closing = True
        self._has_work.set()

    async def _write(self, connection: Any, lines: list[Line], counts: list[dict[str, object]]) -> None:
        async with connection.transaction():
            cursor = connection.cursor()
            if lines:
                async with cursor.copy(_COPY) as copy:
                    copy.set_types(["text", "timestamptz", "bytea"])
                    for line in lines:
                        await copy.write_row(line)
            if counts:
                await cursor.executemany(self._statements["count_refusals"], counts)

    def _answer(self, taken: list[tuple[list[Line], asyncio.Future[None]]], refused: Refused | None) -> None:
        for lines, done in taken:
            self._lines -= len(lines)
            self._bytes -= sum(len(line) for _, _, line in lines)
            if done.cancelled():
                continue
            if refused is None:
                done.set_result(None)
            else:
                done.set_exception(refused)


async def _abandon(connection: Any) -> None:
    """Close a connection that may hang, without waiting for the other side."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(1):
            await connection.close()
