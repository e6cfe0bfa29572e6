"""Look-ups of decisions: one for all who wait, and the last answer for a minute."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from upnext.edge.decisions import NEVER, NO_CTAS, Decisions, Live, LookUps, Shown
from upnext.edge.limits import Limits
from upnext.edge.refusal import Refused


def test_who_waits_is_looked_up_together_and_the_last_answer_holds_for_a_minute() -> None:
    now, is_away, asked = [100.0], [False], []

    async def ask(users: list[str]) -> list[Any]:
        asked.append(sorted(users))
        if is_away[0]:
            raise OSError
        return [SimpleNamespace(user_id=user, shown=f"for {user}") for user in users if user != "nobody"]

    async def scenario() -> None:
        look_ups = LookUps(ask, clock=lambda: now[0])
        found = await asyncio.gather(*(look_ups.of(user) for user in ("ann", "bob", "ann", "nobody")))
        assert [shown.text for shown in found] == ["for ann", "for bob", "for ann", NO_CTAS]
        assert asked == [["ann", "bob", "nobody"]]
        is_away[0] = True
        now[0] = 160.0
        assert (await look_ups.of("ann")).text == "for ann"
        assert (await look_ups.of("nobody")).text == NO_CTAS
        for user, at in (("stranger", 160.0), ("ann", 160.1)):
            now[0] = at
            with pytest.raises(Refused):
                await look_ups.of(user)

    asyncio.run(scenario())


def test_an_answer_holds_until_the_next_start_or_end() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    flags = {"web.banner": "banner", "web.footer": "banner"}
    decisions = Decisions(cast(LookUps, None), cast(Any, None), flags, Limits(), cast(Any, None))
    hour = timedelta(hours=1)

    def live(flag: str, starts_at: datetime, ends_at: datetime | None) -> Live:
        return Live(
            flag, "spring", "experience", "a", "Hello", "/", None, starts_at, ends_at, None, flag == "web.footer"
        )

    ctas = [live("web.banner", now - hour, now + 2 * hour), live("web.footer", now + hour, None)]
    seen = []
    at = now
    while at != NEVER:
        answer = decisions.answer("ann", ctas, True, at)
        shown = [flag["key"] for flag in json.loads(answer.content)["flags"] if flag["variant"] != "none"]
        seen.append((answer.since, shown))
        at = answer.until
    assert seen == [(now, ["web.banner"]), (now + hour, ["web.banner", "web.footer"]), (now + 2 * hour, ["web.footer"])]
    unsigned = json.loads(decisions.answer("ann", ctas, False, now + hour).content)["flags"]
    assert [flag["key"] for flag in unsigned if flag["variant"] != "none"] == ["web.footer"]
    assert Shown(NO_CTAS).live() == []
