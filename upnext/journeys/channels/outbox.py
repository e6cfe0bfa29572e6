"""The outbox: reads due messages a page at a time, then renders, claims and sends each, and records its outcome.

Each connection has a sender, a thread that takes the next written message when it is free. Only then does it
claim the message. The claim checks every reason to stop it, so that nothing comes between the claim and the sending.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, groupby
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection as Database
from sqlalchemy.engine import Engine

from upnext.erased import ADDRESS, Keys, kind_and_id, tombstones
from upnext.errors import UpnextError
from upnext.journeys.channels.channel import Answer, Connection, Outcome
from upnext.journeys.copy.message import Rendered, Sender, request_of
from upnext.journeys.copy.render_process import RenderProcess
from upnext.journeys.policy import Policy
from upnext.journeys.sql import SQL
from upnext.journeys.warm_up import ALL, WarmUp, day_at, domain_of

PAGE = 200
_AFTER = ("after_due_at", "after_user_id", "after_position", "after_message_id")
# Where the first page of what is due begins.
BEGINNING = dict(zip(_AFTER, (datetime(1, 1, 1, tzinfo=UTC), "", -1, ""), strict=True))
# After the first try: how long until the next. The one of webhooks is that of the Standard Webhooks specification.
_WEBHOOK_RETRIES = [
    timedelta(seconds=5), timedelta(minutes=5), timedelta(minutes=30), timedelta(hours=2), timedelta(hours=5),
    timedelta(hours=10), timedelta(hours=14), timedelta(hours=20), timedelta(hours=24),
]  # fmt: skip
RETRIES = {
    "email": [timedelta(minutes=5), timedelta(minutes=15), timedelta(hours=1), timedelta(hours=4), timedelta(hours=12)],
    "webhook": _WEBHOOK_RETRIES,
    "event": _WEBHOOK_RETRIES,
}


@dataclass(frozen=True)
class Ready:
    """A message that is written, and waits for a connection."""

    channel: str
    user_id: str
    due_at: datetime
    attempts: int
    is_limited: bool
    is_transactional: bool
    rendered: Rendered


def stop_parameters(policy: Policy, as_of: datetime) -> dict[str, Any]:
    """Return the parameters of `journeys.stop_reason`."""
    cap = policy.cap
    return {
        "as_of": as_of,
        "late_after": policy.late_after,
        "cap_channels": cap.channels if cap is not None else [],
        "cap_messages": cap.messages if cap is not None else None,
        "cap_per": cap.per if cap is not None else None,
        "opt_out_topics": [name for name, topic in policy.topics.items() if topic.default == "opt_out"],
    }


def warm_up_parameters(warm_up: WarmUp | None, as_of: datetime, time_zone: str) -> dict[str, Any]:
    """Return the limits of a warm-up on the day of `as_of`, by domain, and when the next day begins."""
    day, until = day_at(as_of, time_zone)
    limits = warm_up.limits(day) if warm_up is not None else {}
    return {"domains": list(limits), "limits": list(limits.values()), "day": day, "until": until}


def send_due(
    engine: Engine,
    policy: Policy,
    sender: Sender,
    connections: Callable[[], Callable[[], Connection]],
    *,
    channel: str,
    journeys: list[str],
    as_of: datetime,
    is_told: bool,
    keys: Keys,
) -> Counter[str]:
    """Send the due messages of one channel, and return the number of messages by status.

    `connections` opens the channel, and returns what makes its connections. Where `is_told`, each message that is sent
    is an event of the user. `keys` are those of the hashes of people who were erased. Raises `UpnextError` if no
    connection opens, or a key is missing; due messages then wait.
    """
    settings = policy.channel(channel)
    values = {
        **stop_parameters(policy, as_of),
        **warm_up_parameters(settings.warm_up, as_of, policy.time_zone),
        "journeys": journeys,
        "channel": channel,
        "is_told": is_told,
        "clock": going_on(as_of),
        "urls": {name: endpoint.url for name, endpoint in policy.endpoints.items()},
    }
    with engine.begin() as database:
        if channel == "webhook":
            standard = {name: endpoint.url for name, endpoint in policy.endpoints.items() if endpoint.body is None}
            named = {"endpoints": list(standard), "urls": list(standard.values())}
            database.execute(SQL["enable_endpoints"], named)
        waiting = database.scalar(SQL["count_due"], {**values, "at_most": settings.connections})
        tombstones(database, keys)
    if not waiting:
        return Counter()
    read = tuple(keys.read())
    values["keys"] = Keys(lambda: read)
    done: Counter[str] = Counter()
    connect = connections()
    with RenderProcess(sender) as process, engine.connect() as database:
        written = _written(database, process, {**values, **policy.clock}, done)
        shared = _Shared(in_order(paced(written, settings.per_second)))
        with ThreadPoolExecutor(max_workers=waiting) as pool:
            at_work = [pool.submit(_work, engine, connect(), shared, values) for _ in range(waiting)]
    failures = []
    for work in at_work:
        try:
            done += work.result()
        except UpnextError as error:
            failures.append(error)
    if len(failures) == len(at_work):
        raise failures[0]
    return done


def going_on(as_of: datetime, *, clock: Callable[[], float] = time.monotonic) -> Callable[[], datetime]:
    """Return a clock that begins at `as_of` and goes on by whole minutes, so a dispatch of hours knows the night."""
    begun = clock()
    return lambda: as_of + timedelta(minutes=(clock() - begun) // 60)


class _Shared(Iterator[list[Ready]]):
    """An iterator that several threads share; an error that stops it is raised in each of them."""

    def __init__(self, source: Iterator[list[Ready]]) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._failure: UpnextError | None = None

    def __next__(self) -> list[Ready]:
        with self._lock:
            if self._failure is not None:
                raise self._failure
            try:
                return next(self._source)
            except UpnextError as error:
                self._failure = error
                raise


def in_order(messages: Iterable[Ready]) -> Iterator[list[Ready]]:
    """Yield together what is due to one user at one instant: one sender sends it, in the order of the steps."""
    for _, together in groupby(messages, key=lambda message: (message.due_at, message.user_id)):
        yield list(together)


def paced(
    messages: Iterable[Ready],
    per_second: int | None,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Ready]:
    """Yield no faster than the channel's rate, by a clock in seconds; unused time does not accumulate."""
    next_at = clock()
    for message in messages:
        if per_second is not None:
            sleep(max(0.0, next_at - clock()))
            next_at = max(next_at, clock()) + 1 / per_second
        yield message


def _written(database: Database, process: RenderProcess, values: dict[str, Any], done: Counter[str]) -> Iterator[Ready]:
    """Yield the rendered messages that may be sent now; skip the others with a reason, or postpone them."""
    stored: set[str] = set()
    for are_transactional in (True, False):
        yield from _written_pages(database, process, {**values, "are_transactional": are_transactional}, stored, done)


def _written_pages(
    database: Database, process: RenderProcess, values: dict[str, Any], stored: set[str], done: Counter[str]
) -> Iterator[Ready]:
    after = BEGINNING
    while True:
        values = {**values, "as_of": values["clock"]()}
        with database.begin():
            database.execute(SQL["pause_failing"], values)
            full = _warmed_up(database, values)
            if ALL in full:
                done["postponed"] += database.execute(SQL["postpone_all"], values).rowcount
                return
            page = database.execute(SQL["prepare"], {**values, **after, "page": PAGE}).all()
            ready = [row for row in page if _may_go(database, row, values, full, done)]
        if not page:
            return
        last = page[-1]
        after = dict(zip(_AFTER, (last.due_at, last.user_id, last.position, last.message_id), strict=True))
        for row in ready:
            message = process.render(request_of(row, values["as_of"]))
            if message is None:
                continue
            links = [{"link_id": link, "url": url} for link, url in message.links.items() if link not in stored]
            with database.begin():
                if links:
                    database.execute(SQL["record_links"], links)
                    stored.update(message.links)
                if message.reason is not None:
                    done["skipped"] += _skip(database, row.message_id, message.reason)
            if message.reason is None:
                yield Ready(
                    row.channel, row.user_id, row.due_at, row.attempts, row.is_limited, values["are_transactional"],
                    message,
                )  # fmt: skip


def _may_go(database: Database, row: sa.Row[Any], values: dict[str, Any], full: set[str], done: Counter[str]) -> bool:
    """Skip a due message with its reason, or postpone it; True if neither is so."""
    if row.stopped_by is not None:
        done["skipped"] += _skip(database, row.message_id, row.stopped_by)
    elif row.allowed_at > values["as_of"]:
        database.execute(SQL["postpone"], {"message_id": row.message_id, "until": row.allowed_at})
    elif domain_of(str(row.traits.get("email"))) in full:
        done["postponed"] += _postpone(database, row.message_id, values)
    else:
        return True
    return False


def _warmed_up(database: Database, values: dict[str, Any]) -> set[str]:
    """Return what has sent its most for the day, of the limits that hold for messages that may wait."""
    if not values["domains"] or values["are_transactional"]:
        return set()
    return set(database.scalars(SQL["warmed_up"], values))


def _postpone(database: Database, message_id: str, values: dict[str, Any]) -> int:
    """Let a message wait for the next day of the warm-up."""
    return database.execute(SQL["postpone"], {"message_id": message_id, "until": values["until"]}).rowcount


def _skip(database: Database, message_id: str, reason: str) -> int:
    return database.execute(SQL["skip"], {"message_id": message_id, "reason": reason}).rowcount


def _work(engine: Engine, outside: Connection, messages: Iterator[list[Ready]], values: dict[str, Any]) -> Counter[str]:
    """Send until there is no more: one sender, with a connection to the other side and one to the database."""
    done: Counter[str] = Counter()
    try:
        with engine.connect() as database:
            outside.open()
            for message in chain.from_iterable(messages):
                done[_send(database, outside, message, values)] += 1
                outside.open()
    finally:
        outside.close()
    done.pop("", None)
    return done


def _send(database: Database, outside: Connection, message: Ready, values: dict[str, Any]) -> str:
    """Claim one message, send it and record what became of it; return its status, empty where another has it."""
    message_id = message.rendered.message_id
    values = {**values, "as_of": values["clock"]()}
    with database.begin() as transaction:
        if values["cap_messages"] is not None:
            database.execute(SQL["lock_user"], {"user_id": message.user_id})
        record_consent(database)
        named = {
            "message_id": message_id, "address": address_of(message), "hashes": _hashes(message, values["keys"])
        }  # fmt: skip
        if message.is_limited:
            database.execute(SQL["lock_journey"], named)
        claim = database.execute(SQL["claim"], {**values, **named}).one_or_none()
        has_place = claim is None or claim.status == "skipped" or _take_place(database, message, values)
        if not has_place:
            transaction.rollback()
    if not has_place:
        with database.begin():
            return "postponed" if _postpone(database, message_id, values) else ""
    if claim is None:
        return ""
    if claim.status == "skipped":
        return "skipped"
    try:
        answer, is_attempt = outside.send(message.rendered), True
    except UpnextError as error:
        answer, is_attempt = Answer(Outcome.RETRY, str(error), retry_after=timedelta(0)), False
    status, wait = _next(message, answer)
    outcome = {
        "message_id": message_id,
        "fence": claim.fence,
        "status": status,
        "reason": answer.reason,
        "retry_after": wait,
        "is_attempt": is_attempt,
        "as_of": values["as_of"],
        "is_told": values["is_told"],
        "answer": msgspec.json.encode(answer.kept).decode() if answer.kept is not None else None,
    }
    with database.begin():
        is_recorded = database.scalar(SQL["record_outcome"], outcome)
        if is_recorded and answer.is_address_dead:
            dead = {"user_id": message.user_id, "channel": message.channel, "address": message.rendered.recipient}
            database.execute(SQL["suppress"], {**dead, "as_of": values["as_of"]})
        if answer.is_endpoint_gone:
            name = message.rendered.recipient
            gone = {"endpoint": name, "url": values["urls"][name], "as_of": values["as_of"], "reason": answer.reason}
            database.execute(SQL["disable_endpoint"], gone)
    return status if is_recorded else ""


def _take_place(database: Database, message: Ready, values: dict[str, Any]) -> bool:
    """Count a message in the warm-up of its channel; False where the day has no place left for it."""
    if not values["domains"]:
        return True
    named = {"domain": domain_of(address_of(message)), "is_transactional": message.is_transactional}
    return bool(database.scalar(SQL["take_warm_up"], {**values, **named}))


def _hashes(message: Ready, keys: Keys) -> list[bytes]:
    """Return the hashes by which the recipient would be found among those who were erased."""
    address = address_of(message)
    of_address = keys.hashes(ADDRESS, address) if address is not None else []
    return keys.hashes(*kind_and_id(message.user_id)) + of_address


def address_of(message: Ready) -> str | None:
    """Return the person's address that a message goes to; None in a channel that has none."""
    return message.rendered.recipient if message.channel == "email" else None


def record_consent(database: Database) -> None:
    """Process consent events (such as unsubscribes) in the loads not processed for consent yet."""
    if database.scalar(SQL["has_unread_consent"]):
        database.execute(SQL["record_consent"])


def _next(message: Ready, answer: Answer) -> tuple[str, timedelta | None]:
    """Return a message's status after an answer, and how long until it is tried again."""
    if answer.outcome is not Outcome.RETRY:
        return answer.outcome.value, None
    waits = RETRIES[message.channel]
    if message.attempts >= len(waits):
        return "failed", None
    return "pending", waits[message.attempts] if answer.retry_after is None else answer.retry_after
