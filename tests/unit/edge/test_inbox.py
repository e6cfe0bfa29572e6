"""What waits for a commit always gets an answer."""

import asyncio
from typing import Any

import pytest

from upnext.clock import utc_now
from upnext.edge.inbox import MOST_BYTES, MOST_WAITING, Inbox
from upnext.edge.refusal import Refusals, Refused


class Broken:
    """A connection that fails in a way that nobody has thought of."""

    closed = False

    def transaction(self) -> Any:
        raise KeyError

    async def close(self) -> None:
        raise KeyError


async def _put(inbox: Inbox, count: int = 1, line: bytes = b"{}") -> Refused | None:
    try:
        await inbox.put([("web", utc_now(), line)] * count)
    except Refused as refused:
        return refused
    return None


@pytest.mark.parametrize("has_connection", [True, False])
def test_a_failure_of_any_kind_is_answered_and_the_next_one_is_tried(*, has_connection: bool) -> None:
    refusals = Refusals()
    refusals.add(utc_now(), 1, "unauthorized")

    async def connect() -> Any:
        if not has_connection:
            raise ValueError
        return Broken()

    async def scenario() -> list[Refused | None]:
        inbox = Inbox(connect, refusals, {})
        writer = asyncio.create_task(inbox.run())
        answers = [await _put(inbox), await _put(inbox), await _put(inbox, MOST_WAITING + 1)]
        answers.append(await _put(inbox, 3, b"x" * (MOST_BYTES // 2)))
        assert inbox.waiting == 0
        writer.cancel()
        return answers

    answers = asyncio.run(asyncio.wait_for(scenario(), 10))
    assert [answer.code for answer in answers if answer is not None] == ["unavailable", "unavailable", "busy", "busy"]
    assert [row["count"] for row in refusals.take()] == [1], "what could not be written is counted still"
