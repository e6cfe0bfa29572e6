"""The declarations and the warehouse: read from files and settings on first use."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

from sqlalchemy.engine import URL, Engine

from upnext import dbt
from upnext.analytics.declared import check_times, load_metrics
from upnext.analytics.definition import Metric
from upnext.declarations import Problem, check, read_text, unknown
from upnext.durations import seconds
from upnext.erased import Keys
from upnext.errors import UpnextError
from upnext.events.catalogue import Catalogue
from upnext.events.declared import load_catalogue, load_sources
from upnext.events.source import Source
from upnext.experiences.declared import load_experiences, load_slots
from upnext.experiences.definition import Experience, Names, Slot
from upnext.features.declared import TABLES as FEATURE_TABLES
from upnext.features.declared import load_features
from upnext.features.definition import Feature, never_negative, type_of
from upnext.journeys.channels.smtp import parse_smtp_url
from upnext.journeys.channels.webhook import parse_networks
from upnext.journeys.copy.emails import check_sender
from upnext.journeys.copy.message import CannotRenderError, Sender
from upnext.journeys.copy.signing import signing_keys
from upnext.journeys.declared import load_journeys, load_policy, sender_of
from upnext.journeys.definition import Journey
from upnext.journeys.policy import Policy
from upnext.retention.needs import needs
from upnext.segments.declared import anonymous_segments, check_segments, segment_files
from upnext.segments.definition import UNITS, Condition, condition_of, is_row_local, unit_of
from upnext.segments.lists import list_files
from upnext.settings import Settings
from upnext.switches import Started, started
from upnext.warehouse.engine import connect, database_url


class Project:
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
    def segment_files(self) -> dict[str, Path]:
        """The file of each declared segment."""
        return segment_files(dbt.own_models(self.settings))

    @cached_property
    def segments(self) -> set[str]:
        """Names of the declared segments."""
        return set(self.segment_files)

    @cached_property
    def row_local_segments(self) -> list[str]:
        """The segments that are evaluated for changed users alone."""
        texts = {name: read_text(file) for name, file in self.segment_files.items()}
        return sorted(name for name, text in texts.items() if is_row_local(text, segments=texts))

    @cached_property
    def conditions(self) -> dict[str, Condition]:
        """The condition of each segment that can be evaluated together with others."""
        visitors = anonymous_segments(self.segment_files)
        texts = {name: read_text(file) for name, file in self.segment_files.items()}
        found = {
            name: condition_of(text, excludes_visitors=bool(visitors) and name not in visitors)
            for name, text in texts.items()
        }
        return {name: condition for name, condition in found.items() if condition is not None}

    @cached_property
    def segment_units(self) -> dict[str, str]:
        """What each segment has members of: `user_id` or `account_id`."""
        return {name: unit_of(read_text(file)) for name, file in self.segment_files.items()}

    @property
    def lists(self) -> dict[str, Path]:
        """The file of each list of ids."""
        return list_files(self.settings.lists)

    @cached_property
    def catalogue(self) -> Catalogue:
        """The declared events."""
        return load_catalogue(dbt.own_models(self.settings))

    @cached_property
    def events(self) -> set[str]:
        """Names of the declared events, derived ones too."""
        return {*self.catalogue.events, *self.catalogue.derived}

    @cached_property
    def sources(self) -> dict[str, Source]:
        """The declared sources: how files are read, by name."""
        return load_sources(self.settings.sources)

    @cached_property
    def features(self) -> dict[str, dict[str, Feature]]:
        """The declared features of each table."""
        folders = (dbt.engine_models(), dbt.own_models(self.settings))
        return load_features(folders, self.events, dbt.model_names(self.settings))

    @property
    def feature_types(self) -> dict[str, str | None]:
        """The type of each feature of users."""
        return {name: type_of(feature) for name, feature in self.features.get("user_features", {}).items()}

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """The metrics that every experiment is measured by, beside its goal."""
        return load_metrics(dbt.own_models(self.settings), self.events)

    @cached_property
    def policy(self) -> Policy:
        """What holds for all journeys."""
        return load_policy(parse_networks(self.settings.webhook_networks), self.settings.campaigns / "policy.yml")

    @cached_property
    def journeys(self) -> dict[str, Journey]:
        """The declared journeys by name."""
        return load_journeys(
            segments=self.segment_units,
            events=self.events,
            features=self.feature_types,
            slots=self.surfaces,
            policy=self.policy,
            campaigns=self.settings.campaigns,
        )

    @property
    def started(self) -> dict[str, Started]:
        """The journeys and experiences that are started, by name: read from the warehouse on each access."""
        with self.engine.connect() as connection:
            return started(connection)

    @property
    def journeys_at_work(self) -> dict[str, Journey]:
        """The declared journeys that are started, and neither drafts nor archived."""
        at_work = self.started
        return {name: journey for name, journey in self.journeys.items() if name in at_work and journey.state == "live"}

    @property
    def experiences_at_work(self) -> dict[str, Experience]:
        """The declared experiences that are started."""
        at_work = self.started
        return {name: experience for name, experience in self.experiences.items() if name in at_work}

    @property
    def erasure_keys(self) -> Keys:
        """The keys of the hashes of people who were erased."""
        return Keys.of(self.settings)

    @cached_property
    def sender(self) -> Sender:
        """Who sends mails, and how their links are made."""
        return sender_of(self.settings, self.policy, signing_keys(self.settings))

    @cached_property
    def slots(self) -> dict[str, Slot]:
        """The places of the product that can show a call to action."""
        return load_slots(self.settings.campaigns / "slots.yml")

    @property
    def surfaces(self) -> dict[str, list[str]]:
        """The surfaces that each slot is on."""
        return {name: list(slot.surfaces) for name, slot in self.slots.items()}

    @cached_property
    def experiences(self) -> dict[str, Experience]:
        """The declared experiences by name."""
        return load_experiences(
            Names(self.segment_units, self.events, self.slots, self.journeys),
            self.settings.campaigns / "experiences",
            set(self.features.get("user_features", {})),
        )

    def _mistakes_of_programme(self) -> Iterator[Problem]:
        programme = self.policy.programme
        if programme is not None:
            yield from unknown(["programme", "goal", "any_of"], "event", programme.goal.any_of, self.events)
            yield from unknown(["programme", "revenue"], "metric", filter(None, [programme.revenue]), self.metrics)

    def _mistakes_of_retention(self) -> Iterator[Problem]:
        retention = self.policy.kept
        if retention is None:
            return
        names = {*self.catalogue.events, *self.catalogue.derived}
        yield from unknown(["retention", "keep"], "event", retention.keep, self.catalogue.events)
        for need in needs(self.features, self.catalogue.derived, names, retention=retention.after, keep=retention.keep):
            named = "', '".join(sorted(need.events))
            of = f"'{named}'" if named else "all events"
            remedy = f"name {of} in `keep`, or " if need.events else ""
            yield Problem(
                ["retention"] if isinstance(self.policy.retention, str) else ["retention", "after"],
                f"{need.table}.{need.feature} reads {of} of any age: {remedy}give the feature a shorter window",
            )

    def _mistakes_of_goals(self) -> Iterator[Problem]:
        """Goals for which events are deleted before the time for them is over."""
        retention = self.policy.kept
        for name, within in self._times_of_goals().items():
            if retention is not None and seconds(within) > seconds(retention.after):
                yield Problem(
                    ["retention"] if isinstance(self.policy.retention, str) else ["retention", "after"],
                    f"the goal of '{name}' is measured for {within}: keep events for longer, or shorten the goal",
                )

    def _times_of_goals(self) -> dict[str, str]:
        times = {name: journey.goal.within for name, journey in self.journeys.items()}
        return times | {name: experience.goal.within for name, experience in self.experiences.items()}

    def check(self) -> None:
        """Read everything that is declared, so that a mistake stops the work before it begins."""
        check(self.settings.campaigns / "policy.yml", self._mistakes_of_programme())
        check(self.settings.campaigns / "policy.yml", self._mistakes_of_retention())
        check(self.settings.campaigns / "policy.yml", self._mistakes_of_goals())
        _ = (self.sources, self.journeys, self.experiences, self.metrics)
        programme = [self.policy.programme.goal.within] if self.policy.programme is not None else []
        check_times(dbt.own_models(self.settings), [*self._times_of_goals().values(), *programme])
        self.check_segments(self.segment_files)
        if self.settings.smtp_url is not None:
            parse_smtp_url(self.settings.smtp_url)
        try:
            check_sender(self.settings.sender_address)
        except CannotRenderError as error:
            raise UpnextError(f"UPNEXT_MAIL_FROM: {error}") from None

    def check_segments(self, files: Mapping[str, Path]) -> None:
        """Raise `UpnextError` for the first of these segments with a mistake."""
        check_segments(
            files,
            known={*FEATURE_TABLES, *self.features, *dbt.model_names(self.settings)},
            columns={table: {UNITS[table], *features} for table, features in self.features.items() if table in UNITS},
            never_negative=never_negative(self.features),
            lists=self.lists,
            folders=dbt.model_folders(self.settings),
            others=dbt.other_models(self.settings),
        )


def readable(project: Project) -> tuple[dict[str, Journey | None], dict[str, Experience]]:
    """Return the journeys and experiences as far as they can be read: for views that leave errors to the steps.

    If a declaration has a mistake, each journey is None and there are no experiences.
    """
    try:
        return dict(project.journeys), project.experiences
    except UpnextError:
        folders = (project.settings.campaigns / "journeys", project.settings.campaigns / "broadcasts")
        names = [path.stem for folder in folders for path in sorted(folder.glob("*.yml"))]
        return dict.fromkeys(names), {}
