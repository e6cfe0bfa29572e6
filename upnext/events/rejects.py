"""Rejected lines: what they are, and loading again those that a mended mapping now accepts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from upnext.events import ledger
from upnext.events.declared import known_source
from upnext.events.event import Event, Reject
from upnext.events.records import UNREADABLE
from upnext.events.source import Source, decoder
from upnext.events.store import Store

LINES_AT_ONCE = 5_000

_SUMMARY = sa.text(
    "with summary as ("
    " select source, reason, count(*) as lines, (array_agg(load_id order by load_id desc, line))[1] as load_id,"
    " (array_agg(line order by load_id desc, line))[1] as line"
    " from raw.rejected_events where source = coalesce(:source, source) group by source, reason)"
    " select summary.source, summary.reason, summary.lines, example.detail, left(example.payload, 200) as payload,"
    " loads.path || ':' || summary.line as place"
    " from summary inner join raw.rejected_events as example using (load_id, line)"
    " inner join raw.loads using (load_id) order by summary.lines desc, summary.source, summary.reason"
)
_LOADS = sa.text(
    "select load_id, source, loaded_at from raw.loads where exists ("
    " select from raw.rejected_events as lines where lines.load_id = loads.load_id"
    " and lines.source = coalesce(:source, lines.source) and lines.reason = coalesce(:reason, lines.reason)"
    " and lines.reason <> all(:unreadable)) order by load_id"
)
_LINES = sa.text(
    "select line, reason, detail, coalesce(payload_bytes, convert_to(payload, 'UTF8')) as payload"
    " from raw.rejected_events where load_id = :load_id and line > :after and reason = coalesce(:reason, reason)"
    " and reason <> all(:unreadable) order by line limit :limit"
)
_OPEN_REPLAY = sa.text(
    "insert into raw.loads (source, path, fingerprint, size, modified_at, received, stored, duplicate, rejected,"
    " loaded_at, replay_of) select source, path, fingerprint, size, modified_at, 0, 0, 0, 0, loaded_at, load_id"
    " from raw.loads where load_id = :load_id returning load_id"
)
# A line that is accepted moves from its load to the replay: so the sums over all loads stay right.
_CLOSE_REPLAY = sa.text(
    "with moved as (update raw.loads set received = received - cast(:accepted as bigint),"
    " rejected = rejected - :accepted, replayed = replayed + :accepted where load_id = :load_id)"
    " update raw.loads set received = :accepted, stored = :stored, duplicate = cast(:accepted as bigint) - :stored"
    " where load_id = :replay_id"
)


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
        return [dict(row) for row in connection.execute(_SUMMARY, {"source": source}).mappings()]


def replay(
    engine: Engine, sources: Mapping[str, Source], *, source: str | None = None, reason: str | None = None
) -> Replayed:
    """Decode rejected lines again and store what now fits, all or nothing. Lines that no reader could read stay.

    `sources` are those declared.
    """
    chosen = {"source": source, "reason": reason, "unreadable": list(UNREADABLE)}
    with engine.begin() as connection:
        ledger.one_at_a_time(connection)
        loads = connection.execute(_LOADS, chosen).all()
        return sum((_replay_load(connection, load, sources, chosen) for load in loads), Replayed())


def _replay_load(connection: Connection, load: Any, sources: Mapping[str, Source], chosen: dict[str, Any]) -> Replayed:
    decode = decoder(known_source(sources, load.source), loaded_at=load.loaded_at)
    replay_id = connection.scalar(_OPEN_REPLAY, {"load_id": load.load_id})
    store = Store(connection, source=load.source, load_id=replay_id)
    total, after = Replayed(), 0
    while lines := connection.execute(
        _LINES, {**chosen, "load_id": load.load_id, "after": after, "limit": LINES_AT_ONCE}
    ).all():
        after = lines[-1].line
        events: list[tuple[int, Event]] = []
        rejects: dict[int, Reject] = {}
        for line in lines:
            try:
                events.append((line.line, decode(line.payload)))
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
        connection.execute(sa.text("delete from raw.loads where load_id = :load_id"), {"load_id": replay_id})
    else:
        connection.execute(
            _CLOSE_REPLAY,
            {"load_id": load.load_id, "replay_id": replay_id, "accepted": accepted, "stored": total.stored},
        )
    return total


def _forget(connection: Connection, load_id: int, lines: list[int]) -> None:
    connection.execute(
        sa.text("delete from raw.rejected_events where load_id = :load_id and line = any(:lines)"),
        {"load_id": load_id, "lines": lines},
    )


def _explain(connection: Connection, load_id: int, rejects: dict[int, Reject]) -> None:
    if rejects:
        connection.execute(
            sa.text(
                "update raw.rejected_events set reason = :reason, detail = :detail"
                " where load_id = :load_id and line = :line"
            ),
            [
                {"load_id": load_id, "line": line, "reason": reject.reason, "detail": reject.detail}
                for line, reject in rejects.items()
            ],
        )
