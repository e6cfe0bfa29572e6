"""The stages of the loop as plain functions: the command line calls them in turn, Dagster's assets wrap them."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import ProgrammingError

from assets.analytics import experiment_users
from assets.analytics.definition import Metric
from assets.analytics.results import Analysed, analyse
from assets.events.catalogue import Catalogue
from assets.events.files import find_landed
from assets.events.ingest import Ingested, ingest, sources
from assets.events.ledger import not_loaded
from assets.experiences.assign import Shown, assign, show
from assets.experiences.declared import load_experiences, load_slots
from assets.experiences.definition import Experience, Known, Slot
from assets.features.definition import Feature, example
from assets.journeys import declared, samples
from assets.journeys.definition import Journey
from assets.journeys.dispatch import (
    Dispatched,
    begin_anew,
    complete,
    end,
    end_removed,
    expire_leases,
    groups,
    move,
    pause,
    resume,
)
from assets.journeys.dispatch import (
    Preview as JourneyPreview,
)
from assets.journeys.dispatch import preview as preview_dispatch
from assets.journeys.explain import Line, explain
from assets.journeys.outbox import send_due
from assets.journeys.policy import Policy
from assets.journeys.render_process import RenderProcess
from assets.journeys.rendering import (
    CannotRenderError,
    Rendered,
    Sender,
    check_sender,
    copy_sources,
    names_used,
)
from assets.journeys.smtp import SmtpConnection, mail_server, parse_smtp_url
from assets.journeys.traits import known_traits
from assets.journeys.webhook import WebhookConnection, parse_networks, targets
from assets.segments.membership import Preview, preview
from orchestration import dbt, ticks
from orchestration.declarations import line_of
from orchestration.errors import UpnextError, nearest
from orchestration.settings import Settings
from orchestration.signing import signing_keys
from orchestration.status import read_status
from orchestration.switches import Started, started, switch
from orchestration.ticks import Tick
from orchestration.warehouse import connect, database_url, exclusive, transaction

LEAP = timedelta(days=7)


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
    def events(self) -> set[str]:
        """Names of the declared events, derived ones too."""
        return {*self.catalogue.events, *self.catalogue.derived}

    @cached_property
    def features(self) -> dict[str, dict[str, Feature]]:
        """The declared features of each table."""
        return dbt.load_features(self.settings, self.catalogue)

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """The metrics that every experiment is measured by, beside its goal."""
        return dbt.load_metrics(self.catalogue, dbt.METRICS)

    @cached_property
    def policy(self) -> Policy:
        """What holds for all journeys."""
        return declared.load_policy(parse_networks(self.settings.webhook_networks))

    @cached_property
    def journeys(self) -> dict[str, Journey]:
        """The declared journeys by name."""
        return declared.load_journeys(
            segments=self.segments,
            events=self.events,
            features=set(self.features.get("user_features", {})),
            slots=set(self.slots),
            policy=self.policy,
        )

    @property
    def started(self) -> dict[str, Started]:
        """The journeys and experiences that are started, by name: those that the warehouse names right now."""
        with self.engine.connect() as connection:
            return started(connection)

    @property
    def journeys_at_work(self) -> dict[str, Journey]:
        """The declared journeys that are started."""
        at_work = self.started
        return {name: journey for name, journey in self.journeys.items() if name in at_work}

    @property
    def experiences_at_work(self) -> dict[str, Experience]:
        """The declared experiences that are started."""
        at_work = self.started
        return {name: experience for name, experience in self.experiences.items() if name in at_work}

    @cached_property
    def sender(self) -> Sender:
        """Who sends mails, and how their links are made."""
        return Sender(self.settings.sender_address, self.settings.base_url, signing_keys(self.settings))

    @cached_property
    def slots(self) -> dict[str, Slot]:
        """The places of the product that can show a call to action."""
        return load_slots()

    @cached_property
    def experiences(self) -> dict[str, Experience]:
        """The declared experiences by name."""
        return load_experiences(Known(self.segments, self.events, self.slots, self.journeys))

    def check(self) -> None:
        """Read everything that is declared, so that a mistake stops the work before it begins."""
        _ = (self.journeys, self.experiences, self.metrics, self.sender)
        dbt.check_segments(dbt.segment_files(self.settings), self.features, dbt.model_names(self.settings))
        if self.settings.smtp_url is not None:
            parse_smtp_url(self.settings.smtp_url)
        try:
            check_sender(self.settings.sender_address)
        except CannotRenderError as error:
            raise UpnextError(f"UPNEXT_MAIL_FROM: {error}") from None


def readable(platform: Platform) -> tuple[dict[str, Journey | None], dict[str, Experience]]:
    """Return the journeys and experiences as far as they can be read: for who shows them, and leaves errors to steps.

    A journey is None, and no experience is there, where something that is declared has a mistake.
    """
    try:
        return dict(platform.journeys), platform.experiences
    except UpnextError:
        names = [path.stem for path in sorted(declared.JOURNEYS.glob("*.yml")) if path.stem != declared.POLICY]
        return dict.fromkeys(names), {}


def status(platform: Platform) -> dict[str, Any]:
    """Return how far everything is."""
    return read_status(
        platform.engine,
        segments=platform.segments,
        experiments={*platform.journeys, *platform.experiences},
        now=utc_now(),
    )


def ingest_landing(platform: Platform) -> Ingested:
    """Load what has landed and is not loaded yet."""
    landed, now = find_landed(platform.settings.landing, sources()), utc_now()
    with platform.engine.connect() as connection:
        arrived = not_loaded(connection, landed, now=now)
    return ingest(platform.engine, arrived, loaded_at=now)


@contextmanager
def open_tick(platform: Platform, asked: datetime, *, is_explicit: bool) -> Iterator[Tick]:
    """Yield a tick to build in; it is published where the body ends well."""
    with ticks.published(
        platform.engine, asked, segments=platform.segments, is_explicit=is_explicit, clock=utc_now
    ) as tick:
        yield tick


def build(platform: Platform, asked: datetime, *, is_explicit: bool) -> Tick:
    """Build features, segments and the models of analytics with dbt, and publish the tick."""
    with open_tick(platform, asked, is_explicit=is_explicit) as tick, exclusive(platform.engine, "dbt"):
        platform.dbt.invoke(dbt.build_arguments(as_of=tick.as_of, tick_id=tick.tick_id))
    return tick


def rebuild(platform: Platform) -> dict[str, int]:
    """Compute who is who, all features and all users of experiments afresh, where they stand, and mend what differs.

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
            drift = {row.model: row.drift for row in rows}
    return {**drift, "experiment_users": experiment_users.rebuild(platform.engine)}


def preview_segment(platform: Platform, path_or_name: str, *, with_ids: bool) -> Preview:
    """Run a segment without touching anything. Raises `UpnextError` with the file for what cannot be run."""
    file = dbt.find_segment(platform.settings, path_or_name)
    features = platform.features
    files = {**dbt.segment_files(platform.settings), file.stem: file}
    dbt.check_segments(files, features, dbt.model_names(platform.settings))
    sql = platform.dbt.compile(file.read_text(encoding="utf-8"))
    with platform.engine.connect().execution_options(postgresql_readonly=True) as connection:
        try:
            return preview(connection, file.stem, sql, with_ids=with_ids)
        except ProgrammingError as error:
            message = str(error.orig).strip().splitlines()[0]
            known = {name for table in features.values() for name in table}
            missing = re.search(r'column "?(?:\w+\.)?(\w+)"? does not exist', message)
            if missing is not None and missing[1] in known:
                raise UpnextError(f"{file}: the feature '{missing[1]}' is new: it comes with the next tick") from None
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
    """Move people along the journeys that are started (or `only` these and their exclusive groups); send what is due.

    Raises `UpnextError` where a channel cannot be used, when all else is done: what is due there waits.
    """
    engine, journeys = platform.engine, platform.journeys_at_work
    end_removed(engine, {*platform.journeys, *platform.experiences}, at=as_of)
    chosen = set(journeys) if only is None else only & set(journeys)
    done = move(engine, platform.policy, journeys, only=chosen, as_of=as_of, is_replay=is_replay)
    moved = [name for names in groups(journeys, chosen) for name in names]
    failures = []
    if not is_replay:
        expire_leases(engine, moved)
        for channel, connections in CHANNELS.items():
            try:
                sent = send_due(
                    engine, platform.policy, platform.sender, partial(connections, platform),
                    channel=channel, journeys=moved, as_of=as_of,
                )  # fmt: skip
            except UpnextError as error:
                failures.append(error)
            else:
                done.messages = dict(Counter(done.messages) + sent)
    complete(engine, moved, as_of=as_of, done=done)
    if failures:
        raise failures[0]
    return done


@contextmanager
def _mail_connections(platform: Platform) -> Iterator[Callable[[], SmtpConnection]]:
    settings = platform.settings
    with mail_server(settings.smtp_url, settings.maildir) as address:
        yield lambda: SmtpConnection(address, platform.policy.email.timeout_seconds)


@contextmanager
def _webhook_connections(platform: Platform) -> Iterator[Callable[[], WebhookConnection]]:
    endpoints = targets(platform.policy.endpoints)
    networks = parse_networks(platform.settings.webhook_networks)
    timeout = platform.policy.webhook.timeout_seconds
    yield lambda: WebhookConnection(endpoints, networks, timeout, utc_now)


CHANNELS: dict[str, Callable[[Platform], AbstractContextManager[Callable[[], Any]]]] = {
    "email": _mail_connections,
    "webhook": _webhook_connections,
}


def check_journeys(platform: Platform) -> dict[str, list[str]]:
    """Write each message of each journey for a made-up user, and return the steps by journey.

    Raises `UpnextError` with the file for what cannot be written.
    """
    return {
        name: [step for step, _ in _sample_messages(platform, name, journey)]
        for name, journey in platform.journeys.items()
    }


def doubtful_copy(platform: Platform, journeys: Iterable[str]) -> Iterator[str]:
    """Yield each trait that the copy of journeys names and no identify call has, with file, line and nearest match."""
    with platform.engine.connect() as connection:
        traits = known_traits(connection)
    for name in journeys:
        path = declared.JOURNEYS / f"{name}.yml"
        for position, step in enumerate(platform.journeys[name].steps):
            for where, source in copy_sources(msgspec.to_builtins(step)):
                for use in names_used(source):
                    if isinstance(where, Path):
                        place = f"{where}:{use.line}"
                    else:
                        place = f"{path}:{line_of(path, ['steps', position, *where])}"
                    if use.of == "user" and traits and use.name not in {*traits, *samples.TRAITS}:
                        yield f"{place}: no identify call has the trait '{use.name}'{nearest(use.name, traits)}"


def render_journey(platform: Platform, name: str, folder: Path) -> Iterator[Path]:
    """Write each message of a journey for a made-up user into a folder, and yield the files."""
    folder.mkdir(parents=True, exist_ok=True)
    for step, rendered in _sample_messages(platform, name, _declared_journey(platform, name)):
        for suffix, content in samples.parts(rendered):
            path = folder / f"{step}.{suffix}"
            path.write_text(content, encoding="utf-8")
            yield path


def _sample_messages(platform: Platform, name: str, journey: Journey) -> Iterator[tuple[str, Rendered]]:
    date = utc_now()
    features = {feature: example(made_of, date) for feature, made_of in platform.features["user_features"].items()}
    with platform.engine.connect() as connection:
        traits = known_traits(connection)
    with RenderProcess(platform.sender) as process:
        for position, request in samples.requests(name, journey, features=features, traits=traits, date=date):
            rendered = process.render(request)
            if rendered is None:
                raise UpnextError("the process that writes messages was ended; run it again")
            if rendered.reason is not None:
                path = declared.JOURNEYS / f"{name}.yml"
                raise UpnextError(f"{path}:{line_of(path, ['steps', position])}: {rendered.reason}")
            yield samples.label(request), rendered


def explain_journey(platform: Platform, name: str, user_id: str) -> list[Line]:
    """Return what became of a user in a journey, in words."""
    with platform.engine.connect() as connection:
        return explain(connection, name, _declared_journey(platform, name), user_id)


def preview_journey(platform: Platform, name: str) -> JourneyPreview:
    """Return what the next dispatch would do in a journey, were it started; nothing is changed and nothing is sent."""
    journey = _declared_journey(platform, name)
    as_of = ticks.last_published_as_of(platform.engine)
    if as_of is None:
        raise UpnextError("there has been no tick yet: run `upnext tick`, then preview again")
    at_work = {**platform.journeys_at_work, name: journey}
    return preview_dispatch(platform.engine, platform.policy, at_work, name, as_of=as_of)


def start(platform: Platform, kind: str, name: str, *, by: str) -> None:
    """Let a journey or an experience act from now on. Raises `UpnextError` where there is none, or it acts already."""
    _declared(platform, kind, name)
    platform.check()
    with transaction(platform.engine, "dispatch") as connection:
        if not switch(connection, name, is_started=True, at=utc_now(), by=by):
            raise UpnextError(f"{kind} '{name}' is started already")
        if kind == "journey":
            begin_anew(connection, name)
    if kind == "experience":
        _refresh_experiences(platform)


def stop(platform: Platform, kind: str, name: str, *, by: str) -> int:
    """Let a journey or an experience act no more; whoever is in the journey goes out of it. Returns how many did."""
    _declared(platform, kind, name)
    with transaction(platform.engine, "dispatch") as connection:
        if not switch(connection, name, is_started=False, at=utc_now(), by=by):
            raise UpnextError(f"{kind} '{name}' is not started")
        ended = end(connection, [name], reason="journey stopped", at=utc_now()) if kind == "journey" else 0
    if kind == "experience":
        _refresh_experiences(platform)
    return ended


def start_all(platform: Platform, *, by: str) -> None:
    """Start whatever is declared and not started yet."""
    with platform.engine.begin() as connection:
        for name in (*platform.journeys, *platform.experiences):
            switch(connection, name, is_started=True, at=utc_now(), by=by)


def _refresh_experiences(platform: Platform) -> None:
    as_of = ticks.last_published_as_of(platform.engine)
    if as_of is not None:
        assign_experiences(platform, as_of)
        show_ctas(platform)


def _declared(platform: Platform, kind: str, name: str) -> None:
    known = platform.journeys if kind == "journey" else platform.experiences
    if name not in known:
        raise UpnextError(f"unknown {kind} '{name}'{nearest(name, known)}")


def pause_journey(platform: Platform, name: str) -> None:
    """Let nobody in a journey go on."""
    _declared_journey(platform, name)
    if not pause(platform.engine, name, at=utc_now()):
        raise UpnextError(f"journey '{name}' is paused already")


def resume_journey(platform: Platform, name: str) -> int:
    """Let a journey go on, and return for how many users."""
    _declared_journey(platform, name)
    entries = resume(platform.engine, name, at=utc_now())
    if entries is None:
        raise UpnextError(f"journey '{name}' is not paused")
    return entries


def _declared_journey(platform: Platform, name: str) -> Journey:
    if name not in platform.journeys:
        raise UpnextError(f"unknown journey '{name}'{nearest(name, platform.journeys)}")
    return platform.journeys[name]


def assign_experiences(platform: Platform, as_of: datetime) -> int:
    """Assign members who have no variant yet, and return how many."""
    return assign(platform.engine, platform.experiences, started=set(platform.started), as_of=as_of)


def show_ctas(platform: Platform) -> Shown:
    """Bring what each user sees up to the newest published tick."""
    as_of = ticks.last_published_as_of(platform.engine)
    return Shown(0, 0) if as_of is None else show(platform.engine, as_of=as_of)


def analyse_results(platform: Platform, as_of: datetime) -> Analysed:
    """Write the results of experiments, journeys and copies at `as_of`."""
    return analyse(platform.engine, as_of=as_of)


def leap(engine: Engine, asked: datetime) -> str | None:
    """Return what to know before a tick that goes further than a week beyond the last one; None before any other."""
    last = ticks.last_published_as_of(engine)
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


def tick(platform: Platform, asked: datetime, *, is_explicit: bool = True, is_replay: bool = False) -> Ticked:
    """Run every stage once: ingest of the landing folder, dbt, publication, experiences, journeys, analytics."""
    platform.check()
    ingested = ingest_landing(platform)
    built = build(platform, asked, is_explicit=is_explicit)
    assigned = assign_experiences(platform, built.as_of)
    dispatched = dispatch_journeys(platform, built.as_of, is_replay=is_replay)
    shown = show_ctas(platform)
    analysed = analyse_results(platform, built.as_of)
    return Ticked(
        as_of=built.as_of,
        tick_id=built.tick_id,
        ingest={**ingested.counts, "files_refused": len(ingested.refused)},
        segments=built.changes,
        journeys=asdict(dispatched),
        experiences={"assigned": assigned, "live_ctas": shown.live},
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
