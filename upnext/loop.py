"""The loop: the stages of a tick as plain functions, which the command line and Dagster's assets call in turn."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from upnext import dbt
from upnext.analytics.programme import record
from upnext.analytics.results import Analysed, analyse
from upnext.clock import utc_now
from upnext.errors import UpnextError
from upnext.events.files import find_landed
from upnext.events.ingest import Ingested, drain, ingest
from upnext.events.ledger import not_loaded
from upnext.experiences.assign import Shown, assign, show
from upnext.journeys.channels.connections import channels
from upnext.journeys.channels.outbox import send_due
from upnext.journeys.dispatch import (
    DispatchResult,
    complete,
    dispatch,
    end_removed,
    expire_leases,
    groups,
)
from upnext.origin import adopt, check_origin
from upnext.project import Project
from upnext.retention.archive import archive
from upnext.retention.prune import prune
from upnext.segments.by_row import store_conditions
from upnext.segments.lists import store_lists
from upnext.segments.membership import check_content
from upnext.ticks.instants import check_explicit
from upnext.ticks.lifecycle import Tick, last_as_of, last_published_as_of, published
from upnext.warehouse.locks import exclusive, transaction

LEAP = timedelta(days=7)


def ingest_landing(project: Project) -> Ingested:
    """Load the lines that wait in the inbox, and the landed files that are not loaded yet."""
    waited = drain(project.engine, sources=project.sources, clock=utc_now, keys=project.erasure_keys)
    landed, now = find_landed(project.settings.landing, project.sources), utc_now()
    with project.engine.connect() as connection:
        arrived = not_loaded(connection, landed, now=now)
    return waited + ingest(project.engine, arrived, sources=project.sources, loaded_at=now, keys=project.erasure_keys)


@contextmanager
def open_tick(project: Project, asked: datetime, *, is_explicit: bool) -> Iterator[Tick]:
    """Yield a tick to build in; it is published if the body succeeds."""
    check_content(project.engine, project.segments)
    with published(project.engine, asked, segments=project.segments, is_explicit=is_explicit, clock=utc_now) as tick:
        store_lists(project.engine, project.lists)
        tick.together = store_conditions(project.engine, project.conditions)
        yield tick


def build_arguments(project: Project, tick: Tick) -> list[str]:
    """Return dbt's arguments for a tick."""
    return dbt.build_arguments(
        as_of=tick.as_of, tick_id=tick.tick_id, row_local=project.row_local_segments, left_out=tick.together
    )


def build(project: Project, asked: datetime, *, is_explicit: bool) -> Tick:
    """Build events, features, segments and the views of analytics with dbt, and publish the tick."""
    with open_tick(project, asked, is_explicit=is_explicit) as tick, exclusive(project.engine, "dbt"):
        project.dbt.invoke(build_arguments(project, tick))
    return tick


def prune_old(project: Project, now: datetime, *, on_stage: Callable[[str], None] = lambda _: None) -> dict[str, int]:
    """Delete and archive what is older than the policy keeps it; return rows by table, and files."""
    settings, policy = project.settings, project.policy
    files = archive(
        project.engine, settings.landing, settings.archive, project.sources, policy.landed, now=now, on_file=on_stage
    )
    rows = prune(project.engine, policy.kept, as_of=now, on_stage=on_stage)
    return {**rows, **{f"files {what}": count for what, count in files.items() if count}}


_KEPT_UP_TO_DATE = ("config.materialized:identity", "upnext.features", dbt.ANALYTICS)


def rebuild(project: Project) -> dict[str, int]:
    """Recompute identities, all features and the users of experiments at the current state, and repair differences.

    Returns the number of wrong rows per table; a number above 0 means that the incremental update has a bug. The next
    tick evaluates the repaired rows.
    """
    with exclusive(project.engine, "tick"), exclusive(project.engine, "dbt"):
        with project.engine.connect() as connection:
            started_at = connection.scalar(sa.text("select now()"))
        project.dbt.invoke(["run", "--full-refresh", "--select", *_KEPT_UP_TO_DATE])
        return last_drift(project, since=started_at)


def last_drift(project: Project, *, since: datetime | None = None) -> dict[str, int]:
    """Return the rows that the last rebuild of each table found wrong, by table; of rebuilds since an instant alone."""
    statement = (
        "select distinct on (model) model, coalesce(drift, 0) as drift from features.rebuilds"
        " where cast(:since as timestamptz) is null or rebuilt_at > :since order by model, rebuilt_at desc"
    )
    with project.engine.connect() as connection:
        return {row.model: row.drift for row in connection.execute(sa.text(statement), {"since": since})}


def dispatch_journeys(
    project: Project, as_of: datetime, *, only: set[str] | None = None, is_replay: bool = False
) -> DispatchResult:
    """Move people along the journeys that are started (or `only` these and their exclusive groups); send what is due.

    Raises `UpnextError` where the warehouse is a copy of another; and where a channel cannot be used, after all other
    work: due messages of that channel wait. What users see in the product does not wait for it.
    """
    engine, journeys = project.engine, project.journeys_at_work
    if not is_replay:
        check_origin(engine, at=as_of)
    _record_programme(project, as_of)
    live = {name for name, journey in project.journeys.items() if journey.state == "live"}
    removed = end_removed(engine, {*live, *project.experiences}, at=as_of)
    chosen = set(journeys) if only is None else only & set(journeys)
    done = dispatch(engine, project.policy, journeys, only=chosen, as_of=as_of, is_replay=is_replay)
    done.left += removed
    moved = [name for names in groups(journeys, chosen) for name in names]
    failures = []
    if not is_replay:
        expire_leases(engine, moved)
        for channel, connections in channels(engine, project.settings, project.policy, clock=utc_now).items():
            try:
                sent = send_due(
                    engine, project.policy, project.sender, connections,
                    channel=channel, journeys=moved, as_of=as_of,
                    is_told="message sent" in project.catalogue.events,
                    keys=project.erasure_keys,
                )  # fmt: skip
            except UpnextError as error:
                failures.append(error)
            else:
                done.messages = dict(Counter(done.messages) + sent)
    complete(engine, moved, as_of=as_of, done=done)
    if failures:
        show_ctas(project)
        raise failures[0]
    return done


def assign_experiences(project: Project, as_of: datetime) -> int:
    """Assign members who have no variant yet, and return how many."""
    _record_programme(project, as_of)
    return assign(
        project.engine,
        project.experiences,
        as_of=as_of,
        global_holdout=project.policy.global_holdout,
    )


def _record_programme(project: Project, as_of: datetime) -> None:
    declared = project.policy.programme
    values = None
    if declared is not None:
        goal = msgspec.json.encode(declared.goal).decode()
        values = {"goal": goal, "minimum_lift": declared.minimum_lift, "revenue": declared.revenue}
    record(project.engine, values, share=project.policy.global_holdout, as_of=as_of)


def show_ctas(project: Project) -> Shown:
    """Bring what each user sees up to the newest published tick."""
    as_of = last_published_as_of(project.engine)
    return Shown(0, 0) if as_of is None else show(project.engine, as_of=as_of)


def analyse_results(project: Project, as_of: datetime) -> Analysed:
    """Bring the users of experiments up to the newest published tick, and write the results at `as_of`."""
    return analyse(project.engine, as_of=as_of)


def leap(engine: Engine, asked: datetime) -> str | None:
    """Return a warning before a tick more than a week after the last one; None before any other tick."""
    last = last_published_as_of(engine)
    if last is None or asked - last <= LEAP:
        return None
    return (
        f"as_of leaps {(asked - last).days} days, from {last:%Y-%m-%d %H:%M} to {asked:%Y-%m-%d %H:%M} UTC: segments"
        " change at once by all that happened in between, and messages that are late by more than `late_after` are"
        " skipped"
    )


@dataclass(frozen=True)
class Ticked:
    """What one whole tick did, stage by stage."""

    as_of: datetime
    tick_id: int
    ingest: dict[str, int]
    segments: dict[str, int]
    journeys: dict[str, Any]
    experiences: dict[str, int]
    analytics: dict[str, int]
    refused: tuple[str, ...] = ()
    """Files of the landing folder that were refused as a whole, each with the reason."""


def tick(project: Project, asked: datetime | None, *, is_explicit: bool = True, is_replay: bool = False) -> Ticked:
    """Run every stage once: ingest of the landing folder, dbt, publication, experiences, journeys, analytics.

    Without an instant it is as of after its ingest: what occurred while it began would else wait for the next one.
    """
    project.check()
    ingested = ingest_landing(project)
    built = build(project, utc_now() if asked is None else asked, is_explicit=is_explicit and asked is not None)
    assigned = assign_experiences(project, built.as_of)
    try:
        dispatched = dispatch_journeys(project, built.as_of, is_replay=is_replay)
    except UpnextError:
        analyse_results(project, built.as_of)
        raise
    shown = show_ctas(project)
    analysed = analyse_results(project, built.as_of)
    return Ticked(
        as_of=built.as_of,
        tick_id=built.tick_id,
        ingest={**ingested.counts, "files_refused": len(ingested.refused)},
        segments=built.changes,
        journeys=asdict(dispatched),
        experiences={"assigned": assigned, "live_ctas": shown.live},
        analytics=asdict(analysed),
        refused=ingested.refused,
    )


def replay(
    project: Project,
    *,
    start: datetime,
    end: datetime,
    every: timedelta,
    is_sending: bool,
    on_tick: Callable[[Ticked], None],
) -> None:
    """Tick through history, from `start` on and no later than `end`; messages are skipped unless `is_sending`."""
    if end < start:
        raise UpnextError(f"--to {end.isoformat()} is earlier than --from {start.isoformat()}")
    check_explicit(start, last=last_as_of(project.engine), now=utc_now())
    check_explicit(end, last=start, now=utc_now())
    as_of = start
    while as_of <= end:
        on_tick(tick(project, as_of, is_replay=not is_sending))
        as_of += every


@dataclass(frozen=True)
class Adopted:
    """What a copy leaves unsent, because the warehouse that it was copied from may have sent it."""

    messages: int


def adopt_copy(project: Project, *, sent_until: datetime, now: datetime) -> Adopted:
    """Let a restored copy go on in the place of its original, which sent until `sent_until`.

    It ticks at that instant without sending, as the original has ticked; what was due by then stays unsent. So a mail
    may be left out, and none goes twice. Whoever kills it calls it again.
    """
    project.check()
    last = last_as_of(project.engine)
    tick(project, max(sent_until, last) if last is not None else sent_until, is_replay=True)
    with transaction(project.engine, "dispatch") as connection:
        return Adopted(adopt(connection, sent_until=sent_until, at=now))


def tick_count(*, start: datetime, end: datetime, every: timedelta) -> int:
    """Return how many ticks a replay has."""
    return max(0, (end - start) // every + 1)
