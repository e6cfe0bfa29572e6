"""The stages of the loop as plain functions: the command line calls them in turn, Dagster's assets wrap them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import ProgrammingError

from assets.analytics.results import Analysed, analyse
from assets.events.catalogue import Catalogue
from assets.events.files import find_landed
from assets.events.ingest import Ingested, ingest, sources
from assets.events.ledger import not_loaded
from assets.experiences.assign import assign, load_experiences
from assets.experiences.definition import Experience
from assets.journeys.definition import Journey
from assets.journeys.dispatch import Dispatched, dispatch, load_journeys
from assets.journeys.rendering import CannotRenderError, check_sender
from assets.journeys.smtp import parse_smtp_url
from assets.segments.membership import Preview, preview
from orchestration import dbt, ticks
from orchestration.errors import UpnextError, nearest
from orchestration.settings import Settings
from orchestration.ticks import Tick
from orchestration.warehouse import connect, database_url, exclusive


def utc_now() -> datetime:
    """Return the clock's time: for the edges of the system, never for a rule."""
    return datetime.now(UTC)


class Platform:
    """One project and its warehouse; connects, and reads what is declared, when first asked to."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def url(self) -> URL:
        """The warehouse's URL; the embedded server is started if need be."""
        return database_url(self.settings)

    @cached_property
    def engine(self) -> Engine:
        """An engine on the migrated warehouse."""
        return connect(self.settings)

    @cached_property
    def dbt(self) -> dbt.Dbt:
        """dbt in this process, on the migrated warehouse."""
        return dbt.Dbt(self.settings, self.engine.url)

    @cached_property
    def segments(self) -> set[str]:
        """Names of the declared segments."""
        return set(dbt.segment_files(self.settings))

    @cached_property
    def catalogue(self) -> Catalogue:
        """The declared events."""
        return dbt.load_catalogue()

    @cached_property
    def journeys(self) -> dict[str, Journey]:
        """The declared journeys by name."""
        return load_journeys(self.segments)

    @cached_property
    def experiences(self) -> dict[str, Experience]:
        """The declared experiences by name."""
        return load_experiences(self.segments)

    def check(self) -> None:
        """Read everything that is declared, so that a mistake stops the work before it begins."""
        _ = (self.journeys, self.experiences)
        dbt.check_segments(dbt.segment_files(self.settings), dbt.load_features(self.settings, self.catalogue))
        if self.settings.smtp_url is not None:
            parse_smtp_url(self.settings.smtp_url)
        try:
            check_sender(self.settings.mail_from)
        except CannotRenderError as error:
            raise UpnextError(f"UPNEXT_MAIL_FROM: {error}") from None


def ingest_landing(platform: Platform) -> Ingested:
    """Load what has landed and is not loaded yet."""
    landed = find_landed(platform.settings.landing, sources())
    with platform.engine.connect() as connection:
        arrived = not_loaded(connection, landed)
    return ingest(platform.engine, arrived, loaded_at=utc_now())


@contextmanager
def open_tick(platform: Platform, asked: datetime, *, is_explicit: bool) -> Iterator[Tick]:
    """Yield a tick to build in; it is published where the body ends well."""
    with ticks.published(
        platform.engine, asked, segments=platform.segments, is_explicit=is_explicit, clock=utc_now
    ) as tick:
        yield tick


def build(platform: Platform, asked: datetime, *, is_explicit: bool) -> Tick:
    """Build features, segments and the views of analytics with dbt, and publish the tick."""
    with open_tick(platform, asked, is_explicit=is_explicit) as tick, exclusive(platform.engine, "dbt"):
        platform.dbt.invoke(dbt.build_arguments(as_of=tick.as_of, tick_id=tick.tick_id))
    return tick


def rebuild(platform: Platform) -> dict[str, int]:
    """Compute who is who and all features afresh, where they stand, and mend what differs.

    Returns by how many rows each table was wrong: 0, or its keeping up to date has a mistake. What is mended is
    looked at again by the next tick.
    """
    with exclusive(platform.engine, "tick"), exclusive(platform.engine, "dbt"):
        with platform.engine.connect() as connection:
            started_at = connection.scalar(sa.text("select now()"))
        platform.dbt.invoke(["run", "--full-refresh", "--select", "config.materialized:identity", "upnext.features"])
        with platform.engine.connect() as connection:
            rows = connection.execute(
                sa.text(
                    "select model, coalesce(drift, 0) as drift from features.rebuilds where rebuilt_at > :started_at"
                    " order by model"
                ),
                {"started_at": started_at},
            )
            return {row.model: row.drift for row in rows}


def preview_segment(platform: Platform, path_or_name: str, *, with_ids: bool) -> Preview:
    """Run a segment without touching anything. Raises `UpnextError` with the file for what cannot be run."""
    file = dbt.find_segment(platform.settings, path_or_name)
    features = dbt.load_features(platform.settings, platform.catalogue)
    dbt.check_segments({**dbt.segment_files(platform.settings), file.stem: file}, features)
    sql = platform.dbt.compile(file.read_text(encoding="utf-8"))
    with platform.engine.connect().execution_options(postgresql_readonly=True) as connection:
        try:
            return preview(connection, file.stem, sql, with_ids=with_ids)
        except ProgrammingError as error:
            message = str(error.orig).strip().splitlines()[0]
            known = {name for table in features.values() for name in table}
            raise UpnextError(f"{file}: {dbt.with_nearest(message, columns=known)}") from None
        except ValueError as error:
            raise UpnextError(f"{file}: {error}") from None


def release_segment(platform: Platform, segment: str) -> int:
    """Let the next tick apply a change that is held, and return how many would enter and leave by the last look."""
    if segment not in platform.segments:
        raise UpnextError(f"unknown segment '{segment}'{nearest(segment, platform.segments)}")
    with platform.engine.begin() as connection:
        changes: int | None = connection.scalar(
            sa.text(
                "update segments.evaluations set is_released = true where segment = :segment and is_held and tick_id ="
                " (select max(tick_id) from segments.evaluations where segment = :segment) returning entered + exited"
            ),
            {"segment": segment},
        )
    if changes is None:
        raise UpnextError(f"segment '{segment}' is not held")
    return changes


def dispatch_journeys(
    platform: Platform, as_of: datetime, *, only: set[str] | None = None, is_replay: bool = False
) -> Dispatched:
    """Move people along the journeys (all, or `only` these) and send what is due."""
    chosen = {name: journey for name, journey in platform.journeys.items() if only is None or name in only}
    return dispatch(platform.engine, platform.settings, chosen, as_of=as_of, is_replay=is_replay)


def assign_experiences(platform: Platform, as_of: datetime) -> int:
    """Assign members who have no variant yet, and return how many."""
    return assign(platform.engine, platform.experiences, as_of=as_of)


def analyse_results(platform: Platform, as_of: datetime) -> Analysed:
    """Write the results of experiments, journeys and copies at `as_of`."""
    return analyse(platform.engine, as_of=as_of)


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


def tick(platform: Platform, asked: datetime, *, is_explicit: bool = True, is_replay: bool = False) -> Ticked:
    """Run every stage once: ingest of the landing folder, dbt, publication, experiences, journeys, analytics."""
    platform.check()
    ingested = ingest_landing(platform)
    built = build(platform, asked, is_explicit=is_explicit)
    assigned = assign_experiences(platform, built.as_of)
    dispatched = dispatch_journeys(platform, built.as_of, is_replay=is_replay)
    analysed = analyse_results(platform, built.as_of)
    return Ticked(
        as_of=built.as_of,
        tick_id=built.tick_id,
        ingest={**ingested.counts, "files_refused": len(ingested.refused)},
        segments=built.changes,
        journeys=asdict(dispatched),
        experiences={"assigned": assigned},
        analytics=asdict(analysed),
    )


def replay(
    platform: Platform,
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
    ticks.check_explicit(start, last=ticks.last_as_of(platform.engine), now=utc_now())
    ticks.check_explicit(end, last=start, now=utc_now())
    as_of = start
    while as_of <= end:
        on_tick(tick(platform, as_of, is_replay=not is_sending))
        as_of += every


def tick_count(*, start: datetime, end: datetime, every: timedelta) -> int:
    """Return how many ticks a replay has."""
    return max(0, (end - start) // every + 1)
