"""Look-ups of decisions: one for all who wait, and the last answer for a minute."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from upnext.edge.decisions import LookUps
from upnext.edge.refusal import Refused


def test_who_waits_is_looked_up_together_and_the_last_answer_holds_for_a_minute() -> None:
    now, is_away, asked = [100.0], [False], []

    async def ask(users: list[str]) -> list[Any]:
        asked.append(sorted(users))
        if is_away[0]:
            raise OSError
        return [SimpleNamespace(user_id=user, copy=f"for {user}") for user in users if user != "nobody"]

    async def scenario() -> None:
        look_ups = LookUps(ask, clock=lambda: now[0])
        found = await asyncio.gather(*(look_ups.of(user) for user in ("ann", "bob", "ann", "nobody")))
        assert [[row.copy for row in rows] for rows in found] == [["for ann"], ["for bob"], ["for ann"], []]
        assert asked == [["ann", "bob", "nobody"]]
        is_away[0] = True
        now[0] = 160.0
        assert [row.copy for row in await look_ups.of("ann")] == ["for ann"]
        assert await look_ups.of("nobody") == []
        for user, at in (("stranger", 160.0), ("ann", 160.1)):
            now[0] = at
            with pytest.raises(Refused):
                await look_ups.of(user)

    asyncio.run(scenario())
