"""The warm process: it ticks as soon as events wait, and dispatches as soon as steps fall due.

Python, dbt and the parsed project stay loaded from tick to tick. A change of the content is noticed at the next look.
"""

import gc
import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from upnext import dbt
from upnext.clock import utc_now
from upnext.errors import UpnextError, without_values
from upnext.events.files import find_landed
from upnext.events.ingest import drain
from upnext.events.ledger import has_lines_waiting, not_loaded
from upnext.events.source import OWN
from upnext.journeys.dispatch import journeys_with_work
from upnext.loop import dispatch_journeys, show_ctas, tick
from upnext.project import Project
from upnext.settings import Settings
from upnext.ticks.lifecycle import loads_to_take_in
from upnext.warehouse.locks import exclusive, is_held, taken

LOOKS_EVERY = 0.25
"""Seconds between two looks at what waits."""
LOCK = "live"
"""The lock of the process that works; the sensors leave events and steps to it."""
TICKS = "live tick"
"""The lock of a tick of that process, which ends with a dispatch."""
STANDS_BY = 1.0
"""Seconds between two tries to take the place of another process."""
LONGEST_WAIT = 60.0
"""Seconds to the next try after many failures."""


@dataclass(frozen=True)
class Did:
    """One piece of work: a tick or a dispatch, and what it changed."""

    what: str
    as_of: datetime
    changes: dict[str, int]


def live(
    settings: Settings,
    *,
    stop: threading.Event,
    on_failure: Callable[[str, int], None],
    on_look: Callable[[], None] = lambda: None,
    once: bool = False,
    leaves_files: bool = False,
) -> Iterator[Did]:
    """Yield each piece of work that was done, until told to stop; with `once`, until nothing waits any more.
    `on_look` is called at each look, whether or not something waits, and `on_failure` with how many failures there were
    in a row.

    With `leaves_files`, files of the landing folder are left to Dagster's sensor, whose runs people watch. A failure is
    told and tried again, after a wait that doubles. Of several such processes one works, by a lock, and the others
    stand by.
    """
    project, seen, failures = Project(settings), fingerprint(settings), 0
    seat: Connection | None = None
    while not stop.is_set():
        on_look()
        try:
            seat = seat or taken(project.engine, LOCK)
            if seat is not None:
                # Notices that the session that holds the lock is lost.
                seat.execute(sa.text("select 1"))
            elif not once:
                stop.wait(STANDS_BY)
                continue
            now = fingerprint(settings)
            if now != seen:
                project.engine.dispose()
                project, seen = Project(settings), now
                # What dbt parsed of the content before refers to itself, and is some megabytes.
                gc.collect()
            did = work(project, leaves_files=leaves_files)
        # A load speaks to the driver itself.
        except (UpnextError, DBAPIError, psycopg.Error, OSError) as error:
            if seat is not None and isinstance(error, DBAPIError):
                seat.invalidate()
                seat = None
            failures += 1
            on_failure(without_values(str(error)).splitlines()[0], failures)
            if once:
                raise
            stop.wait(wait_after(failures))
            continue
        failures = 0
        if did is not None:
            yield did
        elif once:
            break
        else:
            stop.wait(LOOKS_EVERY)
    if seat is not None:
        seat.close()
    project.engine.dispose()


def work(project: Project, *, leaves_files: bool) -> Did | None:
    """Do what waits: a tick for events, else a dispatch of what is due; None where nothing waits.

    While another process ticks or rebuilds, mails go on, to whoever has not said meanwhile that they are not wanted.
    """
    if is_held_by_others(project):
        drain(project.engine, sources=project.sources, clock=utc_now, keys=project.erasure_keys)
    elif has_lines(project) or has_drained(project) or (not leaves_files and has_files(project, utc_now())):
        with exclusive(project.engine, TICKS):
            ticked = tick(project, None)
        return Did("tick", ticked.as_of, {"events": ticked.ingest["stored"], **ticked.segments})
    now = utc_now()
    due = journeys_with_work(project.engine, set(project.journeys_at_work), now=now)
    if due:
        done = dispatch_journeys(project, now, only=due)
        show_ctas(project)
        return Did("dispatch", now, done.messages)
    return None


def is_held_by_others(project: Project) -> bool:
    """Whether a tick or a rebuild of another process is at work, which a tick would wait for."""
    with project.engine.connect() as connection:
        return is_held(connection, "tick")


def has_drained(project: Project) -> bool:
    """Whether lines of the inbox were loaded that no tick has taken in."""
    with project.engine.connect() as connection:
        return loads_to_take_in(connection, of_the_inbox=True) > 0


def has_lines(project: Project) -> bool:
    """Whether lines of the inbox wait."""
    with project.engine.connect() as connection:
        return has_lines_waiting(connection, [*project.sources, OWN])


def has_files(project: Project, now: datetime) -> bool:
    """Whether files wait, or loads that no tick has taken in."""
    landed = find_landed(project.settings.landing, project.sources)
    with project.engine.connect() as connection:
        return (bool(landed) and bool(not_loaded(connection, landed, now=now))) or loads_to_take_in(connection) > 0


def fingerprint(settings: Settings) -> str:
    """Return a hash that changes when a file of the content does."""
    found = hashlib.sha256()
    for folder in (settings.campaigns, settings.sources, settings.lists, dbt.own_models(settings)):
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                stated = path.stat()
                found.update(f"{path}\0{stated.st_mtime_ns}\0{stated.st_size}\0".encode())
    return found.hexdigest()


def wait_after(failures: int) -> float:
    """Return the seconds to wait after so many failures in a row.

    >>> [wait_after(failures) for failures in (1, 2, 3, 10)]
    [1.0, 2.0, 4.0, 60.0]
    """
    return float(min(2 ** (failures - 1), LONGEST_WAIT))
