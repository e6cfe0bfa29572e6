"""Ticks that are killed, or that meet: the next one heals, nothing is doubled, and nobody sees half a tick.

A lock that the test holds stops the tick at a point that is known; the database's own list of waiting sessions proves
that it stands there when it is killed. The judge is a warehouse of its own that nobody disturbed.
"""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import URL

from tests.conftest import AS_OF, UPNEXT, Cli, Product, create_database, rows, settings_for, wait_for
from upnext.loop import build, build_arguments, open_tick
from upnext.project import Project

DAY = timedelta(days=1)
RUN_DBT = """
import json, sys
from dataclasses import replace
from pathlib import Path
from upnext.dbt import Dbt
from upnext.settings import Settings
from upnext.warehouse.engine import database_url

settings = Settings.from_environment()
Dbt(replace(settings, home=Path(sys.argv[2])), database_url(settings)).invoke(json.loads(sys.argv[1]))
"""
# What the tick waits for at each point: a table or a view that the test has locked.
POINTS = {
    "between features and segments": "segments.evaluations in share",
    "in the middle of a segment": "segments.membership_changes in share",
    "after the log and before the state": "features.states in share",
    "before the tick is published": "segments.members in share",
}

WAITING = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"


def happen(product: Product, *, day: int) -> None:
    product.track(f"new on day {day}", "login", AS_OF + day * DAY)
    if day == 0:
        product.power_user("ada", AS_OF)
        product.power_user("bob", AS_OF)
        product.track("cid", "subscribed to premium plan", AS_OF - 20 * DAY)
        product.track("cid", "login", AS_OF - 9 * DAY)
        product.track("visitor who is dan", "login", AS_OF - DAY)
    else:
        product.track("bob", "subscribed to premium plan", AS_OF + DAY)
        product.track("ada", "subscribed newsletter", AS_OF + DAY)
        product.track("ada", "viewed upgrade plan", AS_OF + DAY)
        product.store("alias", AS_OF + DAY, user_id="dan", previous_id="visitor who is dan")


def state(project: Project) -> dict[str, Any]:
    """Everything that a tick leaves behind, but for ids of ticks."""
    return {
        "features": rows(project, "select * from features.user_features order by user_id"),
        "log": rows(
            project,
            "select segment, user_id, change, as_of from segments.published_changes order by segment, as_of, user_id",
        ),
        "members": rows(project, "select * from segments.current_members order by segment, user_id"),
    }


def copy_of_template(server: URL, home: Path) -> Project:
    """Return a warehouse that is a copy of `upnext_template`; its name is that of the original, as views state it."""
    return Project(settings_for(home, create_database(server, template="upnext_template")))


@pytest.fixture(scope="module")
def expected(embedded_url: URL, tmp_path_factory: pytest.TempPathFactory) -> dict[datetime, dict[str, Any]]:
    """What a tick leaves in a warehouse that nobody disturbs, by its `as_of`; `upnext_template` waits for that tick."""
    home = tmp_path_factory.mktemp("judge")
    template = Project(settings_for(home, create_database(embedded_url)))
    product = Product(template)
    happen(product, day=0)
    build(template, AS_OF, is_explicit=True)
    happen(product, day=1)
    template.engine.dispose()
    create_database(embedded_url, "upnext_template", template="upnext_test")
    found = {}
    for as_of in (AS_OF + DAY, AS_OF + 2 * DAY):
        judge = copy_of_template(embedded_url, home)
        build(judge, as_of, is_explicit=True)
        found[as_of] = state(judge)
        judge.engine.dispose()
    return found


@pytest.fixture
def tested(embedded_url: URL, cli: Cli, expected: dict[datetime, Any]) -> Iterator[Project]:
    """A warehouse of the test's own that waits for the same tick."""
    project = copy_of_template(embedded_url, cli.home)
    yield project
    project.engine.dispose()


@contextmanager
def holding(project: Project, lock: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(project.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)) as held:
        held.execute(f"lock table {lock} mode")
        yield held
        held.rollback()


def wait_until_it_waits(project: Project, process: subprocess.Popen[Any]) -> None:
    waiting = (
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        " and wait_event = 'relation'"
    )
    while rows(project, waiting) == [(0,)]:
        assert process.poll() is None, "it ended before it came to the point"
        time.sleep(0.05)


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_tick_leaves_nothing_and_the_next_one_heals(
    tested: Project, cli: Cli, expected: dict[datetime, Any], point: str
) -> None:
    before = {name: value for name, value in state(tested).items() if name != "features"}
    as_of = (AS_OF + DAY).isoformat()
    with holding(tested, POINTS[point]):
        process = subprocess.Popen([UPNEXT, "tick", "--as-of", as_of], env=cli.environment, stdout=subprocess.DEVNULL)
        wait_until_it_waits(tested, process)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert {name: value for name, value in state(tested).items() if name != "features"} == before
    assert rows(tested, "select count(*) from segments.ticks where published_at is null") == [(1,)]

    build(tested, AS_OF + 2 * DAY, is_explicit=True)
    assert state(tested) == expected[AS_OF + 2 * DAY]
    assert state(tested)["log"] != before["log"]


@pytest.mark.parametrize("point", POINTS)
def test_ctrl_c_ends_a_tick_at_once_and_the_next_one_heals(
    tested: Project, cli: Cli, expected: dict[datetime, Any], point: str
) -> None:
    before = {name: value for name, value in state(tested).items() if name != "features"}
    with holding(tested, POINTS[point]):
        process = subprocess.Popen(
            [UPNEXT, "tick", "--as-of", (AS_OF + DAY).isoformat()], env=cli.environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        wait_until_it_waits(tested, process)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert told.strip() == "upnext: stopped"
    assert {name: value for name, value in state(tested).items() if name != "features"} == before
    build(tested, AS_OF + 2 * DAY, is_explicit=True)
    assert state(tested) == expected[AS_OF + 2 * DAY]


def test_two_ticks_at_once(tested: Project, cli: Cli, expected: dict[datetime, Any]) -> None:
    as_of = (AS_OF + DAY).isoformat()
    both = [
        subprocess.Popen([UPNEXT, "tick", "--as-of", as_of, "--json"], env=cli.environment, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    printed = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert len({json.loads(text)["tick_id"] for text in printed}) == 2, "one waited for the other"
    assert state(tested) == expected[AS_OF + DAY]


@pytest.mark.parametrize("point", POINTS)
def test_a_tick_that_lost_its_lock_writes_nothing_more(
    tested: Project, cli: Cli, expected: dict[datetime, Any], point: str
) -> None:
    environment = {**cli.environment, "UPNEXT_HOME": str(cli.home / "other")}
    (cli.home / "other").mkdir()
    shutil.copytree(tested.settings.dbt_target, cli.home / "other" / "dbt")
    with holding(tested, POINTS[point]) as held:
        first = subprocess.Popen(
            [UPNEXT, "tick", "--as-of", (AS_OF + DAY).isoformat()], env=environment, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        wait_until_it_waits(tested, first)
        ended = rows(
            tested,
            "select pg_terminate_backend(holder) from segments.ticks where published_at is null"
            " and upnext.is_locked('tick', holder)",
        )
        assert ended == [(True,)], "the session that holds the lock"
        with ThreadPoolExecutor() as pool:
            second = pool.submit(build, tested, AS_OF + 2 * DAY, is_explicit=True)
            wait_for(lambda: rows(tested, WAITING) >= [(2,)], "the second to wait, for the first or for the lock")
            held.rollback()
            second.result()
    _, words = first.communicate()
    if point == "before the tick is published":
        assert first.returncode == 0, "it had its lock when it began to publish, and nobody came before it had ended"
        assert state(tested)["features"] == expected[AS_OF + 2 * DAY]["features"]
        return
    assert first.returncode != 0
    assert "has lost its lock, or was taken over by a later one" in words
    assert words.count("\n") == 1
    assert state(tested) == expected[AS_OF + 2 * DAY]


def test_two_runs_of_dbt_for_one_tick(tested: Project, cli: Cli, expected: dict[datetime, Any]) -> None:
    with open_tick(tested, AS_OF + DAY, is_explicit=True) as tick:
        arguments = build_arguments(tested, tick)
        both = [
            subprocess.Popen(
                [sys.executable, "-c", RUN_DBT, json.dumps(arguments), cli.home / f"{nth}"], env=cli.environment
            )
            for nth in range(2)
        ]
        codes = sorted(process.wait() for process in both)
        assert codes[0] == 0, "one of them at least ends well"
    assert state(tested) == expected[AS_OF + DAY]


def test_a_model_run_by_hand_and_a_long_reader_in_between(
    tested: Project, cli: Cli, expected: dict[datetime, Any]
) -> None:
    url = tested.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as reader:
        seen = reader.execute("select count(*) from features.user_features").fetchall()
        for name in ("segments.membership_changes", "segments.upgrade_seekers", "events.user_events"):
            reader.execute(f"select count(*) from {name}")
        for models in (
            ["user_features"],
            ["+upnext.features", "upnext.segments"],
            ["identity_links", "--full-refresh"],
        ):
            tested.dbt.invoke(["run", "--select", *models])
        done = cli.run("tick", "--as-of", (AS_OF + DAY).isoformat())
        assert done.returncode == 0, done.stderr
        assert reader.execute("select count(*) from features.user_features").fetchall() != seen
    assert state(tested) == expected[AS_OF + DAY]
