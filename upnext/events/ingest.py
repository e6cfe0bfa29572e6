"""Loading files into `raw.events`: one transaction per file writes events, rejects and the ledger row.

Several processes may load at a time: each holds a share of the loading lock (`ingest`), which those who rewrite files
or delete events take alone.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from psycopg.errors import DeadlockDetected
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import OperationalError

from upnext.erased import Keys
from upnext.events import ledger
from upnext.events.admission import Admission, admission
from upnext.events.declared import known_source
from upnext.events.event import Event, Reject
from upnext.events.files import Content, LandedFile, Measured, Refused
from upnext.events.ledger import ReadSoFar
from upnext.events.providers import PROVIDERS
from upnext.events.records import Batch, Position, Rejected, read_csv, read_header, read_lines, read_parquet
from upnext.events.source import OWN, OWN_SOURCE, Decode, Source, decoder
from upnext.events.sql import SQL
from upnext.events.store import Store
from upnext.warehouse.locks import hold, is_deadlock

# The last line of a file, without its newline, may still be incomplete and change when the file grows.
_MAY_BE_CUT = {"invalid_json", "invalid_utf8"}
PAGE = 25_000
# Two pages are in memory at a time.
PAGE_BYTES = 32 * 1024 * 1024
BATCH = 5_000
_SUSPICIOUS = ("cut", "replaced")
# Loading fails where somebody was erased: it needs the keys then.
NO_KEYS = Keys(tuple)
# A line of the inbox: its source, its id and its bytes.
_Line = tuple[str, int, bytes]


@dataclass(frozen=True)
class Ingested:
    """Counts of lines and files. `received = stored + duplicate + rejected`. The texts are for people.

    `waiting` are files whose last line may be incomplete; it counts as it is when they have settled.
    """

    received: int = 0
    stored: int = 0
    duplicate: int = 0
    rejected: int = 0
    files: int = 0
    files_already_loaded: int = 0
    refused: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()

    def __add__(self, other: "Ingested") -> "Ingested":
        return Ingested(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    @property
    def counts(self) -> dict[str, int]:
        """The counts alone."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.type is int}


@dataclass(frozen=True)
class _Decoded:
    events: list[tuple[int, Event]]
    rejected: list[Rejected]
    records: list[tuple[int, bytes]]


def ingest(
    engine: Engine,
    files: list[LandedFile],
    *,
    sources: Mapping[str, Source],
    loaded_at: datetime,
    keys: Keys = NO_KEYS,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> Ingested:
    """Load each file once and return the counts of its lines. Raises `UpnextError` for an unknown source.

    A file that cannot be loaded as a whole is noted in `raw.refused_files`, and its neighbours are loaded.
    `sources` are those declared; lines of people who were erased are refused, by the `keys` of their hashes; `on_bytes`
    hears how many bytes each batch has read, for a progress bar.
    """
    for file in files:
        if file.refusal is None:
            known_source(sources, file.source)
    total = Ingested()
    for file in files:
        try:
            if file.refusal is not None:
                raise Refused(file.refusal)
            source = sources[file.source]
            total += _load_beside_others(
                engine, partial(_load, file=file, source=source, loaded_at=loaded_at, keys=keys, on_bytes=on_bytes)
            )
        except (Refused, OSError) as error:
            reason = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
            with engine.begin() as connection:
                ledger.refuse(connection, file, reason=reason, refused_at=loaded_at)
            total += Ingested(files=1, refused=(f"{file.name}: {reason}",))
    with engine.begin() as connection:
        ledger.forget_refused_files_that_are_gone(connection)
    return total


def drain(
    engine: Engine, *, sources: Mapping[str, Source], clock: Callable[[], datetime], keys: Keys = NO_KEYS
) -> Ingested:
    """Load the lines that wait in the inbox: one load for each source and page, at the time by the clock.

    A line leaves the inbox in the transaction that stores it, or that keeps it as rejected. While one page is stored,
    the next one is taken. Lines of a source that is not declared wait.
    """
    total, known = Ingested(), {**sources, OWN: OWN_SOURCE}
    with ExitStack() as connections, ThreadPoolExecutor(max_workers=1) as taker:
        take = partial(_take_ahead, engine, known, connections)
        connection, lines = take()
        while lines:
            following = taker.submit(take)
            try:
                total += _load_page(connection, lines, known, clock(), keys)
                connection.commit()
            except (DeadlockDetected, OperationalError) as error:
                if not is_deadlock(error):
                    raise
                connection.rollback()
                ahead, _ = following.result()
                ahead.rollback()
                total += _load_alone(engine, partial(_load_next_page, sources=known, loaded_at=clock(), keys=keys))
                following = taker.submit(take)
            connection.close()
            connection, lines = following.result()
    return total


def _load_beside_others(engine: Engine, load: Callable[[Connection], Ingested]) -> Ingested:
    """Load while others load too; if each waits for ids that the other has written, load again, alone."""
    try:
        with engine.begin() as connection:
            hold(connection, "ingest", shared=True)
            return load(connection)
    except (DeadlockDetected, OperationalError) as error:
        if not is_deadlock(error):
            raise
    return _load_alone(engine, load)


def _load_alone(engine: Engine, load: Callable[[Connection], Ingested]) -> Ingested:
    with engine.begin() as connection:
        hold(connection, "ingest")
        return load(connection)


def _take_ahead(engine: Engine, sources: Collection[str], connections: ExitStack) -> tuple[Connection, list[_Line]]:
    """Take a page in a transaction of its own, whose connection `connections` closes.

    The lock comes before the lines: whoever holds it alone may wait for lines, and must find none taken.
    """
    connection = connections.enter_context(engine.connect())
    hold(connection, "ingest", shared=True)
    return connection, _take(connection, sources)


def _take(connection: Connection, sources: Collection[str]) -> list[_Line]:
    """Take a page of lines out of the inbox; they are back in it if the transaction is not committed."""
    statement = str(SQL["take_from_inbox"].compile(dialect=connection.dialect))
    driver: Any = connection.connection.driver_connection
    # In binary: as text, a line would come in twice its size.
    cursor = driver.cursor(binary=True)
    lines: list[_Line] = cursor.execute(
        statement, {"sources": list(sources), "page": PAGE, "bytes": PAGE_BYTES}
    ).fetchall()
    return sorted(lines)


def _load_next_page(connection: Connection, sources: Mapping[str, Source], loaded_at: datetime, keys: Keys) -> Ingested:
    return _load_page(connection, _take(connection, sources), sources, loaded_at, keys)


def _load_page(
    connection: Connection,
    lines: list[_Line],
    sources: Mapping[str, Source],
    loaded_at: datetime,
    keys: Keys,
) -> Ingested:
    admitted = admission(connection, keys)
    return sum(
        (
            _load_lines(
                connection,
                name,
                sources[name],
                list(ours),
                loaded_at,
                replace(admitted, id_fields=sources[name].id_fields),
            )
            for name, ours in groupby(lines, key=lambda line: line[0])
        ),
        Ingested(),
    )


def _load_lines(
    connection: Connection,
    name: str,
    source: Source,
    lines: list[_Line],
    loaded_at: datetime,
    admitted: Admission,
) -> Ingested:
    path, size = f"edge:{lines[0][1]}-{lines[-1][1]}", sum(len(line) for _, _, line in lines)
    file = LandedFile(name, Path(path), size, loaded_at)
    read = ReadSoFar(Position(size, len(lines)), path)
    load_id = ledger.open_load(connection, file, fingerprint=path, read=read, loaded_at=loaded_at)
    store = Store(connection, source=name, load_id=load_id, is_of_provider=source.format in PROVIDERS)
    decode = decoder(source, loaded_at=loaded_at)
    batches = (
        Batch([(nth + one, line) for one, (_, _, line) in enumerate(lines[nth : nth + BATCH], 1)], [], read.position)
        for nth in range(0, len(lines), BATCH)
    )
    done = _write_all(store, (_decode(batch, decode, admitted) for batch in batches), admitted)
    ledger.close_load(connection, load_id, done.counts, read, fingerprint=path, look_again_at=None)
    return done


def _load(
    connection: Connection,
    file: LandedFile,
    source: Source,
    loaded_at: datetime,
    keys: Keys,
    on_bytes: Callable[[int], None],
) -> Ingested:
    admitted = replace(admission(connection, keys), id_fields=source.id_fields)
    hold(connection, f"file {file.name}")
    before = ledger.newest(connection, file)
    content = Content(file.path)
    now = content.measure(mark=before.position.bytes if before else None)
    hold(connection, f"content {file.source} {now.fingerprint}")
    known = ledger.same_content(connection, file, now.fingerprint)
    if known is not None:
        ledger.open_load(connection, file, fingerprint=now.fingerprint, read=known, loaded_at=loaded_at)
        on_bytes(now.size)
        return Ingested(files=1, files_already_loaded=1)
    begin, change = ledger.where_to_begin(before, now)
    unread = ReadSoFar(begin, now.fingerprint)
    load_id = ledger.open_load(
        connection, file, fingerprint=now.fingerprint, read=unread, loaded_at=loaded_at, change=change
    )
    store = Store(connection, source=file.source, load_id=load_id, is_of_provider=source.format in PROVIDERS)
    decode = decoder(source, loaded_at=loaded_at)
    end, look_again_at = begin, None
    settles_at = (file.changed_at or file.modified_at) + source.settling

    def decoded() -> Iterator[_Decoded]:
        nonlocal end, look_again_at
        with reading(content, source, begin, now) as batches:
            for batch in batches:
                one = _decode(batch, decode, admitted)
                may_be_cut = source.format == "csv" or any(line.reject.reason in _MAY_BE_CUT for line in one.rejected)
                if batch.is_unfinished and may_be_cut and settles_at > loaded_at:
                    look_again_at = settles_at
                    return
                yield one
                on_bytes(max(batch.end.bytes - end.bytes, 0))
                end = batch.end

    total = _write_all(store, decoded(), admitted)
    again = None if end.bytes == now.size else content.measure(mark=end.bytes)
    read = ReadSoFar(end, now.fingerprint if again is None else again.prefix or "")
    fingerprint = now.fingerprint
    if look_again_at is not None:
        fingerprint = f"waiting {load_id}"
    elif again is not None and again.size < now.size:
        # It was cut while it was read: the same content under another name has not been loaded.
        fingerprint = f"cut {load_id}"
    waiting = (f"{file.name}: its end may be incomplete, and waits",) if look_again_at else ()
    if look_again_at is not None and before is not None and before == read:
        ledger.look_again(connection, load_id, file, read, look_again_at=look_again_at)
        return Ingested(files=1, waiting=waiting)
    ledger.close_load(
        connection,
        load_id,
        total.counts,
        read,
        fingerprint=fingerprint,
        look_again_at=look_again_at,
    )
    changed = (f"{file.name}: was {change} since it was loaded, and is loaded anew",) if change in _SUSPICIOUS else ()
    return total + Ingested(files=1, changed=changed, waiting=waiting)


@contextmanager
def reading(content: Content, source: Source, begin: Position, now: Measured) -> Iterator[Iterator[Batch]]:
    """Yield the batches of a file's content from `begin` on, as far as it was measured."""
    if source.format == "parquet":
        yield read_parquet(content.path, source)
        return
    header: list[str] = []
    if source.format == "csv":
        with content.open(stop=now.size) as stream:
            header, first_row = read_header(stream, source)
        begin = max(begin, first_row)
    with content.open(start=begin.bytes, stop=now.size) as stream:
        if source.format == "csv":
            yield read_csv(stream, begin, header=header, delimiter=source.delimiter)
        else:
            yield read_lines(stream, begin)


def _decode(batch: Batch, decode: Decode, admitted: Admission) -> _Decoded:
    events: list[tuple[int, Event]] = []
    rejected = list(batch.rejected)
    admits_all = not admitted
    for line, text in batch.records:
        try:
            event = decode(text)
            events.append((line, event if admits_all else admitted.admit(event)))
        except Reject as reject:
            rejected.append(Rejected(line, text, reject))
    if admitted:
        rejected = [admitted.without_payload(one) for one in rejected]
    return _Decoded(events, rejected, batch.records)


def _write_all(store: Store, decoded: Iterable[_Decoded], admitted: Admission) -> Ingested:
    """Write batches. One core decodes a batch while another, the server's, stores the one before it."""
    total = Ingested()
    with ThreadPoolExecutor(max_workers=1) as writer:
        writing: Future[Ingested] | None = None
        for one in decoded:
            if writing is not None:
                total += writing.result()
            writing = writer.submit(_write, store, one, admitted)
        if writing is not None:
            total += writing.result()
    return total


def _write(store: Store, decoded: _Decoded, admitted: Admission) -> Ingested:
    stored = store.add(decoded.events)
    refused = [Rejected(line, text, stored.rejects[line]) for line, text in decoded.records if line in stored.rejects]
    if admitted:
        refused = [admitted.without_payload(one) for one in refused]
    store.reject([*decoded.rejected, *refused])
    return Ingested(
        received=len(decoded.events) + len(decoded.rejected),
        stored=stored.count,
        duplicate=len(decoded.events) - stored.count - len(refused),
        rejected=len(decoded.rejected) + len(refused),
    )
