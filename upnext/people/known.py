"""Who a person is: all their ids and addresses, from any one of them; and the tables that name people."""

import json
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from upnext.erased import VISITOR_PREFIX as VISITOR
from upnext.erased import kind_and_id, tokens
from upnext.errors import UpnextError
from upnext.people.sql import SQL

# Columns by what they hold. Some tables name people in other columns too.
_BY_COLUMN = {
    "user_id": "users", "linked_to": "users", "address": "addresses", "anonymous_id": "visitors",
    "previous_id": "everything",
}  # fmt: skip
_MORE = {
    # Another user of the same device is another person.
    "raw.events": (
        "user_id = any(:users) or (user_id is null and anonymous_id = any(:visitors))"
        " or (type = 'alias' and previous_id = any(:everything))"
    ),
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

    def is_named_in(self, payload: bytes) -> bool:
        """Whether a line, of whatever shape, has an id or an address as one of its values."""
        return any(text in self.texts or text.lower() in self.addresses for text in tokens(payload))

    @property
    def values(self) -> dict[str, list[str]]:
        """What the conditions of `tables_of` bind."""
        everything = [*self.users, *self.visitors]
        return {
            "users": list(self.users),
            "visitors": list(self.visitors),
            "addresses": list(self.addresses),
            "everything": everything,
            # As JSON has them, with and without escapes.
            "texts": [
                *{json.dumps(one, ensure_ascii=is_ascii) for one in everything for is_ascii in (True, False)},
                *self.addresses,
            ],
        }


def find_person(connection: Connection, asked: str) -> Person:
    """Return the person whom an id or an address names; by an id of a visitor, the user whom they became.

    Raises `UpnextError` where nothing at all is known.
    """
    if asked.startswith(VISITOR) or connection.scalar(SQL["is_user"], {"id": asked}):
        ids = [asked]
    elif "@" in asked:
        ids = list(connection.scalars(SQL["users_of_address"], {"address": asked.lower()}))
    else:
        ids = [f"{VISITOR}{asked}"]
    users = {one for one in ids if one}
    visitors = [one.removeprefix(VISITOR) for one in ids if one.startswith(VISITOR)]
    if connection.scalar(SQL["has_links"]):
        users |= set(connection.scalars(SQL["survivors_of"], {"ids": ids}))
        for kind, one in connection.execute(SQL["ids_of"], {"users": sorted(users)}).all():
            if kind == "visitor":
                visitors.append(str(one))
            else:
                users.add(str(one))
    users |= {f"{VISITOR}{one}" for one in visitors}
    addresses = set(connection.scalars(SQL["addresses_of"], {"users": sorted(users)}))
    if "@" in asked:
        addresses.add(asked.lower())
    person = Person(tuple(sorted(users)), tuple(sorted(set(visitors))), tuple(sorted(addresses)))
    conditions = tables_of(connection)
    if not any(_holds(connection, table, condition, person) for table, condition in conditions.items()):
        raise UpnextError(f"nothing is known of '{asked}'")
    return person


def tables_of(connection: Connection) -> dict[str, str]:
    """Return the tables that name people, and the condition on a row that names a person (bound by `Person.values`)."""
    found = {
        row.name: " or ".join(f"{column} = any(:{_BY_COLUMN[column]})" for column in sorted(row.columns))
        for row in connection.execute(SQL["tables"])
    }
    return {**found, **_MORE}


def _holds(connection: Connection, table: str, condition: str, person: Person) -> bool:
    statement = sa.text(f"select exists (select from {table} where {condition})")  # noqa: S608 - names of our own
    return bool(connection.scalar(statement, person.values))
