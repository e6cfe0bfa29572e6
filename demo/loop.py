"""The closed loop: each of Otto's days is a file and ends in a tick, and users next see what was really sent."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec
import sqlalchemy as sa

from demo.otto import DAYS, WARM_UP_DAYS, Message, Offer, Otto, Shown
from upnext.errors import UpnextError
from upnext.loop import tick
from upnext.operations.controls import start_all
from upnext.project import Project
from upnext.ticks.lifecycle import last_as_of
from upnext.whole_file import replacing

_OFFERS = sa.text("""
    select user_id, source, source_kind, variant, copy is not null as is_shown
    from experiences.live_ctas
    order by user_id, source
""")

_MESSAGES = sa.text("""
    select message_id, user_id, journey from journeys.messages
    where status = 'sent' and channel = 'email' and sent_at = :as_of
    order by user_id, message_id
""")


def end_of(project: Project, asked: datetime) -> datetime:
    """Return the end of the demo in this home. The first run fixes it, so that a later run can resume."""
    kept = project.settings.home / "demo" / "end"
    return datetime.fromisoformat(kept.read_text()) if kept.exists() else asked


def run(project: Project, otto: Otto, *, on_day: Callable[[int], None], days: int = DAYS) -> None:
    """Simulate every day; after the warm-up, tick at the end of each day.

    A journal keeps what was shown each day, so that a stopped run can resume.
    """
    journal = project.settings.home / "demo"
    if not journal.exists() and last_as_of(project.engine) is not None:
        raise UpnextError(f"{project.settings.home} holds other data; give the demo an UPNEXT_HOME of its own")
    journal.mkdir(parents=True, exist_ok=True)
    (journal / "end").write_text(otto.end.isoformat())
    start_all(project, by="make demo")
    landing = project.settings.landing / "segment"
    landing.mkdir(parents=True, exist_ok=True)
    shown = Shown()
    for day in range(days):
        path = landing / f"otto-{otto.date(day):%Y-%m-%d}.jsonl"
        _write(path, otto.day(day, shown))
        shown = Shown()
        if day >= WARM_UP_DAYS - 1:
            page = journal / f"shown-{otto.date(day):%Y-%m-%d}.json"
            if not page.exists():
                shown = _end_day(project, otto, day)
                _write(page, [msgspec.json.encode(shown)])
            shown = msgspec.json.decode(page.read_bytes(), type=Shown)
        on_day(day)


def _end_day(project: Project, otto: Otto, day: int) -> Shown:
    as_of = tick(project, otto.end_of(day), is_explicit=False).as_of
    with project.engine.connect() as connection:
        offers = tuple(Offer(**row) for row in connection.execute(_OFFERS).mappings())
        messages = tuple(Message(**row) for row in connection.execute(_MESSAGES, {"as_of": as_of}).mappings())
    return Shown(offers, messages)


def _write(path: Path, lines: list[bytes]) -> None:
    content = b"".join(line + b"\n" for line in lines)
    if path.exists() and path.read_bytes() == content:
        return
    with replacing(path) as beside:
        beside.write_bytes(content)
