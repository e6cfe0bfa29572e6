"""`upnext erase`: a person out of the warehouse, the landed files and the mails; what results count of them stays.

First the tombstones: from then on nothing of the person is loaded, and nobody mails them. Then the files, while the
warehouse still knows all ids. Then the tables, in one transaction. An erasure that was killed is continued by the same
command.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa
from psycopg.errors import DeadlockDetected, SerializationFailure
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import OperationalError

from upnext.erased import ADDRESS, VISITOR, Keys, bury, is_buried, kind_and_id, tombstones
from upnext.errors import UpnextError
from upnext.events.files import LandedFile, Refused, find_landed
from upnext.events.source import Source
from upnext.people.files import remove_mails, rewrite
from upnext.people.known import Person, find_person, known_as, tables_of
from upnext.people.lines import rejected, waiting
from upnext.people.sql import SQL
from upnext.retention.counts import keeping_counts
from upnext.warehouse.locks import exclusive, transaction

# Who holds one of these writes of people in several statements. In the order in which a tick takes them.
LOCKS = ("tick", "dbt", "dispatch", "assign", "live_ctas", "ingest")
_ONE_BY_ONE = ("raw.rejected_events", "edge.inbox")
# Messages name entries, and a trigger names the users of a deleted entry.
_FIRST, _LAST = ("journeys.messages",), ("analytics.invalidated_users",)
_LINKS = (
    "user_id = any(:users) or linked_to = any(:users)"
    " or (kind = 'visitor' and id = any(:visitors)) or (kind = 'user' and id = any(:users))"
)
MOST_TRIES = 5


@dataclass(frozen=True)
class Place:
    """Where people are known: the warehouse, the folders of files, caught mails; and what it takes to read them."""

    engine: Engine
    folders: tuple[Path, ...]
    maildir: Path
    sources: dict[str, Source]
    keys: Keys


@dataclass(frozen=True)
class Erased:
    """Rows by table, lines of landed files and mails that are gone; and the files that the person may still be in."""

    counts: dict[str, int]
    elsewhere: tuple[str, ...]


def erase(place: Place, asked: str, *, now: datetime, on_stage: Callable[[str], None] = lambda _: None) -> Erased:
    """Erase the person whom an id or an address names, for good.

    Raises `UpnextError` where nothing is known of them, and where a list in the content names them.
    """
    on_stage("who it is")
    with place.engine.connect() as connection:
        try:
            person = find_person(connection, asked)
        except UpnextError:
            if not is_buried(tombstones(connection, place.keys), asked):
                raise
            # A file that came since then may have lines of them, of which nothing was loaded.
            person = known_as(asked)
        listed = connection.execute(SQL["lists_with"], person.values).all()
    if listed:
        names = ", ".join(sorted({f"lists/{row.list}.csv" for row in listed}))
        raise UpnextError(f"{names} of your content has '{listed[0].id}': take the line out, then erase")
    with place.engine.begin() as connection:
        bury(connection, place.keys, _names(person), at=now)
    on_stage("messages on their way")
    _wait_for_senders(place.engine, person)
    lines, elsewhere = _out_of_files(place, person, now, on_stage)
    on_stage("mails")
    files = {"lines of landed files": lines, "mails": remove_mails(place.maildir, person)}
    on_stage("tables")
    counts = {**files, **_out_of_tables(place, person, now)}
    return Erased({name: count for name, count in counts.items() if count}, elsewhere)


def _names(person: Person) -> list[tuple[str, str]]:
    users = [kind_and_id(user) for user in person.users]
    return [*users, *((VISITOR, one) for one in person.visitors), *((ADDRESS, one) for one in person.addresses)]


def _wait_for_senders(engine: Engine, person: Person) -> None:
    """Wait until no message to the person is on its way: at most as long as a lease."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while connection.scalar(SQL["is_sending"], person.values):
            time.sleep(0.2)


def _out_of_files(
    place: Place, person: Person, now: datetime, on_stage: Callable[[str], None]
) -> tuple[int, tuple[str, ...]]:
    """Rewrite the landed files with lines of a person; return how many, and the files that only others can rewrite."""
    lines, elsewhere = 0, list[str]()
    landed: list[LandedFile] = []
    # Meanwhile some may move into the archive.
    while found := _not_among(landed, place):
        more, others = _out_of(found, place, person, now, on_stage)
        landed, lines, elsewhere = [*landed, *found], lines + more, [*elsewhere, *others]
    ours = {file.name for file in landed}
    with place.engine.connect() as connection:
        loads = connection.execute(SQL["loads_of"], person.values).all()
    elsewhere += [row.path for row in loads if row.path not in ours and Path(row.path).exists()]
    return lines, tuple(elsewhere)


def _not_among(known: list[LandedFile], place: Place) -> list[LandedFile]:
    paths = {file.path for file in known}
    landed = (file for folder in place.folders for file in find_landed(folder, place.sources))
    return [file for file in landed if file.path not in paths]


def _out_of(
    files: list[LandedFile], place: Place, person: Person, now: datetime, on_stage: Callable[[str], None]
) -> tuple[int, list[str]]:
    lines, elsewhere = 0, []
    for file in files:
        on_stage(file.path.name)
        try:
            if file.refusal is not None:
                raise Refused(file.refusal)
            with transaction(place.engine, "ingest") as connection:
                lines += rewrite(connection, file, place.sources[file.source], person, now=now)
        except FileNotFoundError:
            continue
        except (Refused, OSError) as error:
            elsewhere.append(f"{file.name}: {error}")
    return lines, elsewhere


def _out_of_tables(place: Place, person: Person, now: datetime) -> dict[str, int]:
    """Delete all rows of a person at once; return how many by table."""
    with ExitStack() as locks:
        for lock in LOCKS:
            locks.enter_context(exclusive(place.engine, lock))
        for attempt in range(1, MOST_TRIES + 1):
            try:
                with keeping_counts(place.engine) as connection:
                    return _delete(connection, place, person, now)
            except OperationalError as error:
                # A sender or the edge has written a row of the person meanwhile.
                if not isinstance(error.orig, SerializationFailure | DeadlockDetected) or attempt == MOST_TRIES:
                    raise
    raise AssertionError


def _delete(connection: Connection, place: Place, person: Person, now: datetime) -> dict[str, int]:
    values = {**person.values, "in_links": person.in_links}
    if connection.scalar(SQL["has_links"]):
        # A tick may have moved events to another person since it was known whose they are.
        values["places"] = [*values["places"], *connection.scalars(SQL["survivors_of"], values)]
    if connection.scalar(SQL["are_outcomes_built"]):
        connection.execute(SQL["keep_outcomes"], values)
    if connection.scalar(SQL["has_accounts"]):
        connection.execute(SQL["recompute_accounts"], values)
    connection.execute(SQL["count_erased"], values)
    counts = {
        "raw.rejected_events": _delete_rejects(connection, place, person),
        "edge.inbox": _delete_lines(connection, place, person, now),
    }
    conditions = tables_of(connection)
    if "events.identity_links" in conditions:
        conditions["events.identity_links"] = _LINKS
    middle = sorted(set(conditions) - {*_ONE_BY_ONE, *_FIRST, *_LAST})
    for table in (*_FIRST, *middle, *_LAST):
        # Names of our own, and of dbt's models beside them.
        deletion = sa.text(f"delete from {table} where {conditions[table]}")  # noqa: S608
        counts[table] = connection.execute(deletion, values).rowcount
    for statement in ("forget_device", "forget_address", "forget_shared_address", "forget_links"):
        connection.execute(SQL[statement], values)
    return counts


def _delete_rejects(connection: Connection, place: Place, person: Person) -> int:
    theirs = [(row["load_id"], row["line"]) for row in rejected(connection, person, place.sources)]
    values = {"loads": [load for load, _ in theirs], "lines": [line for _, line in theirs]}
    return connection.execute(SQL["forget_rejects"], values).rowcount


def _delete_lines(connection: Connection, place: Place, person: Person, now: datetime) -> int:
    """Delete the lines that wait in the inbox and are of a person."""
    theirs = [row["inbox_id"] for row in waiting(connection, person, place.sources, now=now)]
    return connection.execute(SQL["forget_lines"], {"ids": theirs}).rowcount
