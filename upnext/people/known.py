"""Who a person is: all their ids and addresses, from any one of them; and the tables that name people."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from upnext.erased import TELLING, kind_and_id, names_in
from upnext.erased import VISITOR_PREFIX as VISITOR
from upnext.errors import UpnextError
from upnext.people.sql import SQL

# Columns by what they hold. Some tables name people in other columns too.
_BY_COLUMN = {
    "user_id": "users", "linked_to": "users", "address": "addresses", "anonymous_id": "visitors",
    "previous_id": "everything",
}  # fmt: skip
_MORE = {
    # What these ids have done, wherever it is kept. Another user of the same device is another person.
    "raw.events": (
        "(person_id = any(:places) and upnext.said_by(user_id, anonymous_id) = any(:users))"
        " or (type = 'alias' and previous_id = any(:everything))"
    ),
    # Another user may have the same address.
    "journeys.messages": "user_id = any(:users)",
    "journeys.suppressions": "user_id = any(:users) or (user_id = '' and address = any(:addresses))",
    "features.changed_keys": "key = any(:users)",
    "segments.lists": "id = any(:users)",
    "raw.rejected_events": (
        "exists (select from unnest(cast(:texts as text [])) as one where position(one in payload) > 0)"
        " or exists (select from unnest(cast(:addresses as text [])) as one where position(one in lower(payload)) > 0)"
    ),
    "edge.inbox": (
        "exists (select from unnest(cast(:texts as text [])) as one"
        " where position(convert_to(one, 'UTF8') in line) > 0)"
    ),
}


@dataclass(frozen=True)
class Person:
    """Ids of a user, ids of visitors (`anonymousId`), and addresses in lower case."""

    users: tuple[str, ...]
    visitors: tuple[str, ...]
    addresses: tuple[str, ...]

    @property
    def texts(self) -> frozenset[str]:
        """The ids as events have them, and the addresses."""
        return frozenset({*(kind_and_id(user)[1] for user in self.users), *self.visitors, *self.addresses})

    @property
    def written(self) -> list[str]:
        """The texts as JSON may have them, with and without escapes, and as CSV does."""
        of_json = {json.dumps(text, ensure_ascii=ascii)[1:-1] for text in self.texts for ascii in (True, False)}
        escaped = {text.replace("/", "\\/") for text in of_json}
        return sorted({*of_json, *escaped, *(text.replace('"', '""') for text in self.texts)})

    def is_named_in(self, payload: bytes, id_fields: Collection[str]) -> bool:
        """Whether a line, of whatever shape, has an id or an address as one of its values (see `names_in`)."""
        texts = names_in(payload, id_fields)
        return any(text in self.texts or text.lower() in self.addresses for text in texts)

    @property
    def in_links(self) -> list[str]:
        """The texts as addresses of pages may hold them; without those so short that they may be anything."""
        telling = [text for text in self.texts if len(text) >= TELLING]
        return sorted({*telling, *(quote(text, safe="") for text in telling), *(quote(text) for text in telling)})

    @property
    def values(self) -> dict[str, list[str]]:
        """What the conditions of `tables_of` bind."""
        everything = [*self.users, *self.visitors]
        return {
            "users": list(self.users),
            # Nobody's events, too: those of a visitor whose link was refused.
            "places": [*self.users, ""],
            "visitors": list(self.visitors),
            "addresses": list(self.addresses),
            "everything": everything,
            # As JSON has them, with and without escapes.
            "texts": [
                *{json.dumps(one, ensure_ascii=is_ascii) for one in everything for is_ascii in (True, False)},
                *self.addresses,
            ],
        }


def known_as(asked: str) -> Person:
    """Return a person of whom nothing else is known."""
    one = asked.removeprefix(VISITOR)
    return Person((one, f"{VISITOR}{one}"), (one,), (one.lower(),) if "@" in one else ())


def find_person(connection: Connection, asked: str) -> Person:
    """Return the person whom an id or an address names; by an id of a visitor, the user whom they became.

    Raises `UpnextError` where nothing at all is known, and for an address that several people have had.
    """
    if asked.startswith(VISITOR) or _is_user(connection, asked):
        ids = [asked]
    elif "@" in asked:
        ids = list(filter(None, connection.scalars(SQL["users_of_address"], {"address": asked.lower()})))
    else:
        # An id of a visitor may be the same text as an id of another user.
        ids = [f"{VISITOR}{asked}"]
    people: list[tuple[set[str], set[str]]] = []
    for one in sorted(ids):
        if not any(one in users for users, _ in people):
            people.append(_all_ids(connection, one))
    if len(people) > 1:
        named = ", ".join(f"'{min(users)}'" for users, _ in people)
        raise UpnextError(f"'{asked}' is of {len(people)} people: name one of them by an id, such as {named}")
    users, visitors = people[0] if people else (set(), set())
    addresses = set(connection.scalars(SQL["addresses_of"], {"users": sorted(users), "visitors": sorted(visitors)}))
    if "@" in asked:
        addresses.add(asked.lower())
    person = Person(tuple(sorted(users)), tuple(sorted(visitors)), tuple(sorted(addresses)))
    conditions = tables_of(connection)
    if not any(_holds(connection, table, condition, person) for table, condition in conditions.items()):
        raise UpnextError(f"nothing is known of '{asked}'")
    return person


def _is_user(connection: Connection, asked: str) -> bool:
    """Whether any table knows an id as that of a user."""
    alone = Person((asked,), (), ())
    return any(
        _holds(connection, table, condition, alone)
        for table, condition in tables_of(connection).items()
        if table not in ("raw.rejected_events", "edge.inbox")
    )


def _all_ids(connection: Connection, one: str) -> tuple[set[str], set[str]]:
    """Return all ids that an id leads to: of users, also as visitors are known, and of visitors as events have them."""
    has_links = connection.scalar(SQL["has_links"])
    users: set[str] = set()
    found = {one}
    while not found <= users:
        users |= found
        asked = {"users": sorted(users)}
        named = [*connection.execute(SQL["called_ids_of"], asked)]
        if has_links:
            found = set(connection.scalars(SQL["survivors_of"], asked))
            named = [*connection.execute(SQL["not_linked"], {"called": json.dumps([list(row) for row in named])})]
            named += connection.execute(SQL["ids_of"], asked)
        found = found | {f"{VISITOR}{text}" if kind == "visitor" else text for kind, text in named}
    return users, {one.removeprefix(VISITOR) for one in users if one.startswith(VISITOR)}


def tables_of(connection: Connection) -> dict[str, str]:
    """Return the tables that name people, and the condition on a row that names a person (bound by `Person.values`)."""
    found = {
        row.name: " or ".join(f"{column} = any(:{_BY_COLUMN[column]})" for column in sorted(row.columns))
        for row in connection.execute(SQL["tables"])
    }
    return {**found, **_MORE}


def _holds(connection: Connection, table: str, condition: str, person: Person) -> bool:
    statement = sa.text(f"select exists (select 1 from {table} where {condition})")  # noqa: S608 - names of our own
    return bool(connection.scalar(statement, person.values))
