"""Incremental = full refresh = the reference, at each tick of histories that are drawn. `make fuzz` draws more."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from sqlalchemy.engine import URL

from tests.conftest import create_database, rows, settings_for
from tests.exactness.histories import START, Round, histories
from tests.exactness.reference import History, Occurrence
from upnext import dbt
from upnext.loop import build_arguments, open_tick
from upnext.project import Project

WORLDS = 10
EXAMPLES = int(os.environ.get("UPNEXT_FUZZ_EXAMPLES", "1"))
MODELS = ["run", "--select", "+upnext.features", "upnext.segments"]
KEYS = {
    "features.user_features": "user_features", "features.all_kinds": "all_kinds",
    "features.account_features": "account_features",
}  # fmt: skip


class KilledError(Exception):
    """Stands for whatever ends a tick in its middle."""


class Warehouse:
    """A warehouse that starts empty again for each history."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.loaded: list[Occurrence] = []
        self.members: dict[str, set[str]] = {}
        self.changes = 0
        tables = rows(
            project,
            "select schemaname || '.' || tablename from pg_tables"
            " where schemaname in ('raw', 'events', 'features', 'segments')",
        )
        with project.engine.begin() as connection:
            connection.execute(sa.text(f"truncate {', '.join(name for (name,) in tables)} restart identity cascade"))

    def load(self, events: list[Occurrence]) -> None:
        self.loaded += events
        values = [{**asdict(event), "properties": json.dumps(event.properties)} for event in events]
        with self.project.engine.begin() as connection:
            connection.execute(sa.text(
                "with load as (insert into raw.loads (source, path, fingerprint, size, modified_at, received, stored,"
                " duplicate, rejected, loaded_at) values ('test', gen_random_uuid()::text, '', 0, now(), 0, 0, 0, 0,"
                " now()) returning load_id)"
                " insert into raw.events (source, message_id, type, event, user_id, anonymous_id, person_id,"
                " previous_id, account_id, occurred_at, properties, load_id)"
                " select 'test', event ->> 'order', event ->> 'type', event ->> 'event', event ->> 'user_id',"
                " event ->> 'anonymous_id', upnext.said_by(event ->> 'user_id', event ->> 'anonymous_id'),"
                " event ->> 'previous_id', event ->> 'account_id',"
                " (event ->> 'at')::timestamptz, (event ->> 'properties')::jsonb, load_id"
                " from load, jsonb_array_elements(cast(:events as jsonb)) as event"
            ), {"events": json.dumps(values, default=str)})  # fmt: skip

    def tick(self, as_of: datetime, *, only: list[str] | None = None) -> None:
        """Tick; where `only` some models are built, it is killed after them."""
        with open_tick(self.project, as_of, is_explicit=True) as tick:
            arguments = build_arguments(self.project, tick)
            variables = arguments[arguments.index("--vars") :]
            self.project.dbt.invoke([*(["run", "--select", *only] if only else MODELS), *variables])
            if only:
                raise KilledError

    def check(self, as_of: datetime) -> None:
        expected = History(self.loaded, as_of)
        for table, of in KEYS.items():
            wanted = getattr(expected, of)()
            assert self.table(table, next(iter(wanted.values()), {})) == wanted, table
        for segment, members in expected.segments().items():
            is_of_users = segment != "busy_accounts"
            unit = "user_id" if is_of_users else "account_id"
            found = rows(self.project, f"select {unit} from segments.{segment}")
            assert {member for (member,) in found} == members, segment
            log = "membership_changes" if is_of_users else "account_membership_changes"
            before = self.members.get(segment, set())
            changed = {(member, "entered") for member in members - before}
            changed |= {(member, "exited") for member in before - members}
            newest = rows(
                self.project,
                f"select {unit}, change from segments.{log} where segment = :segment"
                " and tick_id = (select max(tick_id) from segments.ticks)",
                segment=segment,
            )
            assert len(newest) == len(changed), segment
            assert set(newest) == changed, segment
            self.members[segment] = members

    def table(self, name: str, columns: Iterable[str]) -> dict[str, dict[str, Any]]:
        key = "account_id" if "account" in name else "user_id"
        names = list(columns)
        found = rows(self.project, f"select {', '.join([key, *names])} from {name}")
        return {row[0]: dict(zip(names, row[1:], strict=True)) for row in found}


@pytest.fixture(scope="module")
def project(embedded_url: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    home: Path = tmp_path_factory.mktemp("histories")
    copied = home / "dbt_project"
    shutil.copytree(dbt.PROJECT_DIR, copied, ignore=shutil.ignore_patterns("target", "logs"))
    shutil.copytree(Path(__file__).parent.parent / "models", copied / "models", dirs_exist_ok=True)
    catalogue = copied / "models" / "events" / "_catalogue.yml"
    declared = yaml.safe_load(catalogue.read_text())
    much = {"description": "x", "owner": "x", "event": "imported", "where": {"rows": {"at_least": 1000}}}
    declared["models"][0]["config"]["meta"]["derived"] = {"imported much": much}
    catalogue.write_text(yaml.safe_dump(declared))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dbt, "PROJECT_DIR", copied)
        project = Project(settings_for(home, create_database(embedded_url, name="histories")))
        yield project
        project.engine.dispose()


@settings(
    max_examples=EXAMPLES, deadline=None, database=None, derandomize=EXAMPLES <= 2, print_blob=True,
    suppress_health_check=list(HealthCheck), phases=[Phase.generate, *([Phase.shrink] if EXAMPLES > 2 else [])],
)  # fmt: skip
@given(history=histories(worlds=WORLDS))
def test_every_tick_is_exact(project: Project, history: list[Round]) -> None:
    warehouse = Warehouse(project)
    as_of = START
    for nth, round_ in enumerate(history):
        warehouse.load(round_.loaded)
        if round_.before == "killed tick":
            for built in (["+user_features"], ["+upnext.features", "active"]):
                with suppress(KilledError):
                    warehouse.tick(as_of, only=built)
        if round_.before in ("full refresh", "build by hand") and nth > 0:
            project.dbt.invoke([*MODELS, *(["--full-refresh"] if round_.before == "full refresh" else [])])
        as_of += round_.step
        warehouse.tick(as_of)
        warehouse.check(as_of)
    assert rows(project, "select * from features.rebuilds where drift > 0") == []
