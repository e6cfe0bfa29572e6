"""Lines that are no events yet, or never were: those of a person among the rejected ones and those of the inbox."""

from collections.abc import Iterator, Mapping
from datetime import datetime

from sqlalchemy.engine import Connection, RowMapping

from upnext.events.event import Event, Reject
from upnext.events.source import OWN, OWN_SOURCE, SEGMENT_IDS, Decode, Source, decoder
from upnext.people.known import Person
from upnext.people.sql import SQL


def is_theirs(person: Person, decode: Decode, line: bytes, source: Source) -> bool:
    """Whether a line is an event of a person; a line that is no event is, where one of its values names the person."""
    try:
        event: Event = decode(line)
    except Reject:
        return person.is_named_in(line, source.id_fields)
    if event.type == "alias" and event.previous_id in {*person.users, *person.visitors}:
        return True
    return event.user_id in person.users if event.user_id is not None else event.anonymous_id in person.visitors


def rejected(connection: Connection, person: Person, sources: Mapping[str, Source]) -> Iterator[RowMapping]:
    """Yield the rejected lines that name a person."""
    for row in connection.execute(SQL["rejects_with"], {**person.values, "texts": person.written}).mappings():
        fields = sources[row["source"]].id_fields if row["source"] in sources else SEGMENT_IDS
        exact = row["payload_bytes"] if row["payload_bytes"] is not None else row["payload"].encode()
        if person.is_named_in(bytes(exact), fields):
            yield row


def waiting(
    connection: Connection, person: Person, sources: Mapping[str, Source], *, now: datetime
) -> Iterator[RowMapping]:
    """Yield the lines of a person that wait in the inbox. A load takes some meanwhile, and refuses them by itself."""
    known = {**sources, OWN: OWN_SOURCE}
    decoders = {name: decoder(source, loaded_at=now) for name, source in known.items()}
    for row in connection.execute(SQL["lines_with"], {**person.values, "texts": person.written}).mappings():
        name, line = row["source"], bytes(row["line"])
        if name in known:
            if is_theirs(person, decoders[name], line, known[name]):
                yield row
        elif person.is_named_in(line, SEGMENT_IDS):
            yield row
