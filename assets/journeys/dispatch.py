"""Dispatch: who enters a journey, which step is due, and the outbox that a sender works through.

Moving people is set-based SQL in one transaction a journey; sending claims one row at a time, checks consent and the
goal in the claim, marks it `sending` before the call and records the answer after it.
"""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from assets.journeys import statements
from assets.journeys.definition import RESERVED, Cta, Email, Journey, as_json, version
from assets.journeys.rendering import CannotRenderError, Recipient, compile_step, render_email, template_names
from assets.journeys.smtp import Outcome, SmtpConnection, mail_connection
from orchestration.declarations import line_of, load_folder
from orchestration.errors import UpnextError, nearest
from orchestration.settings import Settings
from orchestration.ticks import consumed_tick, newest_published, record_consumed
from orchestration.warehouse import exclusive

JOURNEYS = Path(__file__).parent
MAX_ATTEMPTS = 5


@dataclass
class Dispatched:
    """What one dispatch did: rows of `journeys.entries` and `journeys.messages` that it moved."""

    enrolled: int = 0
    held_out: int = 0
    converted: int = 0
    left: int = 0
    completed: int = 0
    due: int = 0
    messages: dict[str, int] = field(default_factory=dict)


def load_journeys(segments: set[str], folder: Path = JOURNEYS) -> dict[str, Journey]:
    """Return the declared journeys by name. Raises `UpnextError` for an unknown segment or template."""
    journeys = load_folder(folder, Journey)
    templates = template_names()
    for name, journey in journeys.items():
        if name in RESERVED:
            raise UpnextError(f"{folder / name}.yml: '{name}' is the name of a table; choose another")
        path = folder / f"{name}.yml"
        if journey.segment not in segments:
            hint = nearest(journey.segment, segments)
            raise UpnextError(f"{path}:{line_of(path, ['segment'])}: unknown segment '{journey.segment}'{hint}")
        for position, step in enumerate(journey.steps):
            if isinstance(step, Email) and step.template not in templates:
                line = line_of(path, ["steps", position, "template"])
                raise UpnextError(f"{path}:{line}: no template '{step.template}'{nearest(step.template, templates)}")
            if isinstance(step, Email):
                try:
                    compile_step(step)
                except CannotRenderError as error:
                    raise UpnextError(f"{path}:{line_of(path, ['steps', position])}: {error}") from None
    return journeys


def dispatch(
    engine: Engine,
    settings: Settings,
    journeys: dict[str, Journey],
    *,
    as_of: datetime,
    is_replay: bool = False,
) -> Dispatched:
    """Move everybody in `journeys` to where they are due at `as_of`, and send what is due.

    In a replay, messages are written as `skipped` and nothing is sent. Source of every decision: published ticks,
    loaded events, and `as_of`; before the first tick there is nobody to move. Raises `UpnextError` where the mail
    server cannot be reached: what is due waits.
    """
    done = Dispatched()
    with exclusive(engine, "dispatch") as session:
        if newest_published(session) == 0:
            return done
        for name, journey in journeys.items():
            with engine.begin() as connection:
                _move(connection, name, journey, as_of, is_replay, done)
        if not is_replay:
            _send_due(engine, settings, list(journeys), as_of, done)
        with engine.begin() as connection:
            completed = connection.execute(statements.COMPLETE, {"journeys": list(journeys), "as_of": as_of})
            done.completed += completed.rowcount
    return done


def journeys_with_work(engine: Engine, names: set[str], *, now: datetime) -> set[str]:
    """Return the journeys in which a step is due at `now`, or a message waits for a sender."""
    with engine.connect() as connection:
        rows = connection.execute(statements.JOURNEYS_WITH_WORK, {"journeys": list(names), "now": now})
        return set(rows.scalars())


def _move(
    connection: Connection, name: str, journey: Journey, as_of: datetime, is_replay: bool, done: Dispatched
) -> None:
    consumer = f"journey:{name}"
    published_tick = newest_published(connection)
    consumed = consumed_tick(connection, consumer)
    values = {
        "journey": name,
        "published_tick": published_tick,
        "version": version(journey),
        "definition": msgspec.json.encode(as_json(journey)).decode(),
        "segment": journey.segment,
        "holdout": journey.holdout,
        "consumed_tick": published_tick if consumed is None else consumed,
        "is_enrolling_members": consumed is None and journey.existing_members == "enroll",
        "is_reentry_allowed": journey.reentry == "always",
        "as_of": as_of,
    }
    connection.execute(statements.RECORD_DEFINITION, values)
    if connection.scalar(sa.text("select to_regclass('journeys.' || :journey)"), values) is None:
        connection.exec_driver_sql(statements.CREATE_VIEW.format(journey=name))
    connection.execute(statements.RECORD_CONSENT)
    connection.execute(statements.EXPIRE_LEASES, values)
    drawn = {row.status: row.entries for row in connection.execute(statements.ENROL, values)}
    done.enrolled += drawn.get("active", 0)
    done.held_out += drawn.get("held_out", 0)
    done.converted += connection.execute(statements.CONVERT, values).rowcount
    if journey.exit_on_leaving:
        done.left += connection.execute(statements.LEAVE, values).rowcount
    due = connection.execute(statements.ADVANCE, {**values, "status": "skipped" if is_replay else "pending"})
    done.due += due.rowcount
    connection.execute(statements.SHOW_CTAS, values)
    connection.execute(statements.SKIP_ENDED, values)
    record_consumed(connection, consumer, published_tick)


def _send_due(engine: Engine, settings: Settings, names: list[str], as_of: datetime, done: Dispatched) -> None:
    with engine.connect() as connection:
        if connection.scalar(statements.HAS_PENDING, {"journeys": names}) is None:
            return
    with mail_connection(settings.smtp_url, settings.maildir) as mail, engine.connect() as connection:
        mail.open()
        while (claim := _claim(connection, names, as_of)) is not None:
            status = "skipped"
            if claim["status"] == "sending":
                status = _send_one(connection, mail, claim, settings.mail_from, as_of)
            done.messages[status] = done.messages.get(status, 0) + 1


def _claim(connection: Connection, names: list[str], as_of: datetime) -> dict[str, Any] | None:
    with connection.begin():
        row = connection.execute(statements.CLAIM, {"journeys": names, "as_of": as_of}).mappings().first()
    return dict(row) if row is not None else None


def _send_one(
    connection: Connection, mail: SmtpConnection, claim: dict[str, Any], mail_from: str, as_of: datetime
) -> str:
    step = _step(claim)
    recipient = Recipient(claim["user_id"], claim["traits"] or {}, claim["features"] or {})
    try:
        message = render_email(
            step, recipient=recipient, message_id=claim["message_id"], mail_from=mail_from, date=as_of
        )
    except CannotRenderError as error:
        return _record(connection, claim, "skipped", str(error), as_of)
    try:
        outcome, reason = mail.send(message)
    except UpnextError as error:
        _record(connection, claim, "pending", str(error), as_of, is_attempt=False)
        raise
    if outcome is Outcome.RETRY:
        status = "pending" if claim["attempts"] + 1 < MAX_ATTEMPTS else "failed"
        return _record(connection, claim, status, reason, as_of)
    return _record(connection, claim, outcome.value, reason, as_of)


def _step(claim: dict[str, Any]) -> Email:
    journey = msgspec.convert(claim["definition"], Journey)
    step: Email | Cta = next(step for step in journey.steps if step.name == claim["step"])
    if not isinstance(step, Email):
        raise TypeError(f"step {step.name} is not an email")
    return step


def _record(
    connection: Connection,
    claim: dict[str, Any],
    status: str,
    reason: str | None,
    as_of: datetime,
    *,
    is_attempt: bool = True,
) -> str:
    values = {"message_id": claim["message_id"], "fence": claim["fence"], "status": status, "reason": reason}
    with connection.begin():
        connection.execute(statements.RECORD_OUTCOME, {**values, "as_of": as_of, "is_attempt": is_attempt})
    return status
