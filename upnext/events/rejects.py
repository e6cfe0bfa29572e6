"""Rejected lines: a summary, and a replay that loads those that a fixed mapping accepts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Connection, Engine

from upnext.erased import Keys
from upnext.events.admission import ERASED, Admission, admission
from upnext.events.event import Event, Reject
from upnext.events.ingest import NO_KEYS
from upnext.events.providers import PROVIDERS
from upnext.events.records import UNREADABLE
from upnext.events.source import OWN, OWN_SOURCE, Source, decoder
from upnext.events.sql import SQL
from upnext.events.store import Store
from upnext.warehouse.locks import hold

LINES_AT_ONCE = 5_000


@dataclass(frozen=True)
class Replayed:
    """Counts of rejected lines that were tried again. `tried = stored + duplicate + rejected`."""

    tried: int = 0
    stored: int = 0
    duplicate: int = 0
    rejected: int = 0

    def __add__(self, other: "Replayed") -> "Replayed":
        return Replayed(
            self.tried + other.tried,
            self.stored + other.stored,
            self.duplicate + other.duplicate,
            self.rejected + other.rejected,
        )


def summarise(engine: Engine, *, source: str | None = None) -> list[dict[str, Any]]:
    """Return a record per source and reason: how many lines, and the newest as an example."""
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(SQL["summary"], {"source": source}).mappings()]


def replay(
    engine: Engine,
    sources: Mapping[str, Source],
    *,
    keys: Keys = NO_KEYS,
    source: str | None = None,
    reason: str | None = None,
) -> Replayed:
    """Decode rejected lines again and store those that now fit, all or nothing. Lines that no reader can read stay.

    `sources` are those declared.
    """
    chosen = {"source": source, "reason": reason, "unreadable": [*UNREADABLE, ERASED]}
    with engine.begin() as connection:
        hold(connection, "ingest")
        admitted = admission(connection, keys)
        known = {**sources, OWN: OWN_SOURCE}
        # Lines of a source that is gone wait until it is declared again.
        loads = [load for load in connection.execute(SQL["loads"], chosen).all() if load.source in known]
        return sum((_replay_load(connection, load, known, chosen, admitted) for load in loads), Replayed())


def _replay_load(
    connection: Connection, load: Any, sources: Mapping[str, Source], chosen: dict[str, Any], admitted: Admission
) -> Replayed:
    source = sources[load.source]
    decode = decoder(source, loaded_at=load.loaded_at)
    replay_id = connection.scalar(SQL["open_replay"], {"load_id": load.load_id})
    is_of_provider = source.format in PROVIDERS
    store = Store(connection, source=load.source, load_id=replay_id, is_of_provider=is_of_provider)
    total, after = Replayed(), 0
    while lines := connection.execute(
        SQL["lines"], {**chosen, "load_id": load.load_id, "after": after, "limit": LINES_AT_ONCE}
    ).all():
        after = lines[-1].line
        events: list[tuple[int, Event]] = []
        rejects: dict[int, Reject] = {}
        for line in lines:
            try:
                events.append((line.line, admitted.admit(decode(line.payload))))
            except Reject as reject:
                rejects[line.line] = reject
        stored = store.add(events)
        rejects |= stored.rejects
        _forget(connection, load.load_id, [line for line, _ in events if line not in rejects])
        _explain(
            connection,
            load.load_id,
            {
                line.line: rejects[line.line]
                for line in lines
                if line.line in rejects and rejects[line.line].reason != line.reason
            },
        )
        total += Replayed(len(lines), stored.count, len(lines) - stored.count - len(rejects), len(rejects))
    accepted = total.stored + total.duplicate
    if accepted == 0:
        connection.execute(SQL["drop_replay"], {"load_id": replay_id})
    else:
        connection.execute(
            SQL["close_replay"],
            {"load_id": load.load_id, "replay_id": replay_id, "accepted": accepted, "stored": total.stored},
        )
    return total


def _forget(connection: Connection, load_id: int, lines: list[int]) -> None:
    connection.execute(
        SQL["forget_lines"],
        {"load_id": load_id, "lines": lines},
    )


def _explain(connection: Connection, load_id: int, rejects: dict[int, Reject]) -> None:
    if rejects:
        connection.execute(
            SQL["explain_line"],
            [
                {"load_id": load_id, "line": line, "reason": reject.reason, "detail": reject.detail}
                for line, reject in rejects.items()
            ],
        )
