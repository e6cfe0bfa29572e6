"""The checks on the stream of events: each is shown failing, by what it is there to find."""

import itertools
from collections.abc import Callable
from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from assets.events import check_health
from tests.conftest import AS_OF, Product
from upnext.events.health import BOUNDS
from upnext.project import Project

HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(weeks=1)


def load(connection: Connection, **values: object) -> None:
    """Write a row of the ledger: 100 lines a few hours ago, unless told otherwise."""
    row = {
        "source": "test", "path": "events.jsonl", "fingerprint": "x", "size": 1, "modified_at": AS_OF,
        "received": 100, "stored": 100, "duplicate": 0, "rejected": 0, "loaded_at": AS_OF, **values,
    }  # fmt: skip
    statement = f"insert into raw.loads ({', '.join(row)}) values ({', '.join(f':{name}' for name in row)})"
    connection.execute(sa.text(statement), row)


def flag(connection: Connection, flags: list[str], count: int) -> None:
    connection.execute(
        sa.text(
            "insert into raw.events (source, message_id, type, event, person_id, occurred_at, load_id, flags)"
            " select 'test', 'flagged ' || number, 'identify', null, 'u1', :as_of,"
            " (select max(load_id) from raw.loads), cast(:flags as text[]) from generate_series(1, :count) as number"
        ),
        {"as_of": AS_OF, "flags": flags, "count": count},
    )


def nothing(connection: Connection) -> None:
    """Leave the stream as it is."""


PROBLEMS: dict[str, tuple[Callable[[Connection], None], set[str]]] = {
    "a usual day": (nothing, set()),
    "many rejects": (
        lambda c: load(c, fingerprint="y", received=100, stored=89, rejected=11), {"few_lines_are_rejected"}
    ),
    "rejects of the day before": (
        lambda c: load(c, fingerprint="y", stored=0, rejected=100, loaded_at=AS_OF - DAY), set()
    ),
    "many duplicates": (
        lambda c: load(c, fingerprint="y", received=100, stored=50, duplicate=50), {"few_lines_are_duplicates"}
    ),
    "clocks that are off": (lambda c: flag(c, ["skewed"], 20), {"clocks_are_right"}),
    "events from the future": (lambda c: flag(c, ["naive", "future"], 20), {"clocks_are_right"}),
    "times without a zone": (lambda c: flag(c, ["naive"], 20), set()),
    "a file that was replaced": (lambda c: load(c, fingerprint="y", change="replaced"), {"files_only_grow"}),
    "a file that grew": (lambda c: load(c, fingerprint="y", change="grew"), set()),
    "a file that was refused": (
        lambda c: c.execute(sa.text("insert into raw.refused_files values ('x', 'test', 1, now(), 'no', now())")),
        {"no_file_is_refused"},
    ),
    "nothing since yesterday": (
        lambda c: c.execute(sa.text("delete from raw.events where occurred_at > :day"), {"day": AS_OF - DAY}),
        {"events_are_fresh", "volume_is_usual"},
    ),
    "half a day": (
        lambda c: c.execute(sa.text("delete from raw.events where occurred_at > :day"), {"day": AS_OF - 13 * HOUR}),
        {"volume_is_usual"},
    ),
    "the first week": (
        lambda c: c.execute(sa.text("delete from raw.events where occurred_at < :day"), {"day": AS_OF - 2 * HOUR}),
        set(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("problem", PROBLEMS)
def test_each_check_finds_its_problem(project: Project, product: Product, problem: str) -> None:
    break_, expected = PROBLEMS[problem]
    for week, hour in itertools.product(range(5), range(0, 24, 2)):
        product.track("u1", "login", AS_OF - week * WEEK - hour * HOUR)
    with project.engine.begin() as connection:
        load(connection)
        break_(connection)
    results = check_health(project.url, AS_OF)
    assert set(results) == set(BOUNDS)
    assert {name for name, result in results.items() if not result.passed} == expected
    assert all(result.severity.value == "WARN" for result in results.values())


def test_an_empty_warehouse_is_well(project: Project) -> None:
    project.engine.connect().close()
    assert all(result.passed for result in check_health(project.url, AS_OF).values())
