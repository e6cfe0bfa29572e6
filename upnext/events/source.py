"""Source mappings: how lines in a company's own format become events. Pure."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Any, Literal

import msgspec

from upnext.declarations import Declaration
from upnext.durations import Duration, minutes
from upnext.events.event import (
    EARLIEST,
    FUTURE,
    LATEST,
    Event,
    Reject,
    check_line,
    content_id,
    decode_segment,
    identifier,
    instant,
    json_object,
    short,
    user_identifier,
)
from upnext.events.providers import PROVIDERS, decode_provider
from upnext.wording import worded

_SAMPLE = datetime(2026, 11, 23, 14, 5, 6, tzinfo=UTC)
UNITS = {
    "seconds": timedelta(seconds=1),
    "milliseconds": timedelta(milliseconds=1),
    "microseconds": timedelta(microseconds=1),
}


SEGMENT_IDS = frozenset({"userId", "anonymousId", "previousId"})


class EventName(Declaration, frozen=True):
    """The field that names the event, and the names to store for some of its values; others stay as they are."""

    field: str
    names: dict[str, str] = {}


class EventTime(Declaration, frozen=True):
    """The field that says when: a number of `unit` since 1970 UTC, or a text.

    A text is RFC 3339 or as Postgres writes times (`2026-03-01 14:05:00+01`), or of a `format` such as
    `%d/%m/%Y %H:%M`, by the directives of Python's strptime. Without a zone it is UTC.
    """

    field: str
    unit: Literal["seconds", "milliseconds", "microseconds", "rfc3339"] | None = None
    format: str | None = None

    def __post_init__(self) -> None:
        if (self.unit is None) == (self.format is None):
            raise ValueError("a time has either a unit or a format")
        if self.format is not None and "%Z" in self.format:
            raise ValueError("format: %Z reads names of zones by this machine's own; use %z, or times in UTC")
        if self.format is not None:
            try:
                again = datetime.strptime(_SAMPLE.strftime(self.format), self.format)  # noqa: DTZ007 - a date
            except ValueError as error:
                raise ValueError(f"format: '{self.format}' is none of strptime's: {error}") from None
            if again.date() != _SAMPLE.date():
                raise ValueError(f"format: '{self.format}' does not tell year, month and day; such as %d/%m/%Y %H:%M")

    @property
    def is_number(self) -> bool:
        """Whether times are numbers since 1970."""
        return self.unit not in (None, "rfc3339")


class Source(Declaration, frozen=True):
    """One file of `sources/`. `json`, `csv` and `parquet` need the mapping; `segment` and the providers of mail do not.

    A line without `message_id` fields is known by its content. `delimiter` is for csv. A last line without a newline
    may be half written: any row of csv, and a line of JSON that cannot be read, wait until the file has not changed for
    `settles_after`.
    """

    description: str
    format: Literal["segment", "json", "csv", "parquet", "ses", "sendgrid", "postmark", "mailgun", "resend"]
    message_id: list[str] = []
    user_id: str | None = None
    anonymous_id: str | None = None
    account_id: str | None = None
    occurred_at: EventTime | None = None
    event: EventName | None = None
    properties: list[str] = []
    delimiter: Annotated[str, worded('^[^"\r\n]$', "one character")] = ","
    settles_after: Duration | None = None

    def __post_init__(self) -> None:
        is_mapped = self.occurred_at and self.event and (self.user_id or self.anonymous_id)
        if self.format not in ("segment", *PROVIDERS) and not is_mapped:
            raise ValueError(f"format {self.format} needs occurred_at, event, and user_id or anonymous_id")
        if self.format in ("segment", *PROVIDERS) and self.mapping:
            raise ValueError(f"format {self.format} has fields of its own, so nothing reads '{self.mapping[0]}' here")

    @property
    def fields(self) -> list[str]:
        """Names of the fields that the mapping reads, without which a file has the wrong shape."""
        if self.occurred_at is None or self.event is None:
            return []
        ids = (self.user_id, self.anonymous_id, self.account_id)
        names = [*self.message_id, *filter(None, ids), self.occurred_at.field, self.event.field, *self.properties]
        return list(dict.fromkeys(names))

    @property
    def settling(self) -> timedelta:
        """For how long a file must not have changed until its last line counts as it is."""
        return timedelta(minutes=minutes(self.settles_after or ("1 minute" if self.format == "csv" else "1 day")))

    @property
    def mapping(self) -> list[str]:
        """The keys of the mapping that are stated."""
        keys = ("message_id", "user_id", "anonymous_id", "account_id", "occurred_at", "event", "properties")
        return [key for key in keys if getattr(self, key)]

    @property
    def id_fields(self) -> frozenset[str]:
        """Names of the fields that hold an id of a user or of a visitor."""
        return SEGMENT_IDS | set(filter(None, (self.user_id, self.anonymous_id)))


OWN = "upnext"
"""The source of the events that journeys emit; no file declares it."""
OWN_SOURCE = Source(description="Events that the steps of journeys emit.", format="segment")

Decode = Callable[[bytes], Event]


def decoder(source: Source, *, loaded_at: datetime) -> Decode:
    """Return the function that turns a line of `source` into an event or raises `Reject`."""
    if source.format == "segment":
        return partial(decode_segment, loaded_at=loaded_at)
    if source.format in PROVIDERS:
        return partial(decode_provider, provider=source.format, loaded_at=loaded_at)
    return partial(decode_mapped, source=source, loaded_at=loaded_at)


def decode_mapped(line: bytes, *, source: Source, loaded_at: datetime) -> Event:
    """Turn one JSON object into a track event by the source's mapping. Raises `Reject`."""
    check_line(line)
    record = msgspec.json.decode(line)
    if not isinstance(record, dict):
        raise Reject("invalid_shape", "not an object")
    if source.event is None or source.occurred_at is None:
        raise TypeError("a mapped source has an event and a time")
    name = record.get(source.event.field)
    if not isinstance(name, str) or not name:
        raise Reject("no_event", f"{source.event.field} does not name an event")
    user_id = user_identifier(_id(record, source.user_id), field=str(source.user_id))
    anonymous_id = _id(record, source.anonymous_id)
    if user_id is None and anonymous_id is None:
        named = " or ".join(filter(None, (source.user_id, source.anonymous_id)))
        raise Reject("no_user", f"no id of a user or a visitor in {named}")
    flags: list[str] = []
    moment = _moment(record.get(source.occurred_at.field), source.occurred_at, flags)
    if moment > loaded_at:
        flags.append(FUTURE)
    kept = {field: record[field] for field in source.properties if record.get(field) is not None}
    return Event(
        message_id=_message_id(record, source.message_id) if source.message_id else content_id(line),
        type="track",
        event=short(source.event.names.get(name, name), field=source.event.field),
        user_id=user_id,
        anonymous_id=anonymous_id,
        account_id=_id(record, source.account_id),
        previous_id=None,
        occurred_at=moment,
        timestamp=moment,
        original_timestamp=None,
        sent_at=None,
        received_at=None,
        properties=json_object(msgspec.Raw(msgspec.json.encode(kept)), field="properties"),
        context=b"{}",
        flags=flags or None,
    )


def _message_id(record: dict[str, Any], fields: list[str]) -> str:
    missing = [field for field in fields if record.get(field) is None]
    if missing:
        raise Reject("no_message_id", f"what identifies a line is missing: {', '.join(missing)}")
    return short("/".join(str(record[field]) for field in fields), field="message id")


def _id(record: dict[str, Any], field: str | None) -> str | None:
    value = record.get(field) if field else None
    if isinstance(value, bool) or not isinstance(value, str | int | float | None):
        raise Reject("invalid_id", f"{field} is neither a string nor a number")
    return identifier(value, field=str(field))


def _moment(value: object, time: EventTime, flags: list[str]) -> datetime:
    if time.unit is None or time.unit == "rfc3339":
        parsed = instant(_parsed(value, time.format), field=time.field, flags=flags)
        if parsed is None:
            kind = "an RFC 3339 time" if time.format is None else f"a time such as {_SAMPLE.strftime(time.format)}"
            raise Reject("invalid_timestamp", f"{time.field} is not {kind}")
        return parsed
    number = _number(value)
    if number is None:
        raise Reject("invalid_timestamp", f"{time.field} is not a number of {time.unit}")
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + number * UNITS[time.unit]
    except (OverflowError, ValueError):
        moment = LATEST
    if not EARLIEST <= moment < LATEST:
        raise Reject("invalid_timestamp", f"{time.field} is out of range")
    return moment


def _parsed(value: object, form: str | None) -> datetime | None:
    try:
        if form is not None:
            # `instant` takes it as UTC where it names no zone, and flags it.
            return datetime.strptime(value, form) if isinstance(value, str) else None  # noqa: DTZ007
        return msgspec.convert(value, datetime)
    except (msgspec.ValidationError, ValueError):
        pass
    try:
        # As Postgres writes them: a blank in place of the T, and a zone of hours alone.
        return datetime.fromisoformat(value) if isinstance(value, str) and form is None else None
    except ValueError:
        return None


def _number(value: object) -> int | float | None:
    """Return a number as it is, and one written as text (as all of CSV is) as a number."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return None
    return None if isinstance(value, bool) or not isinstance(value, int | float) else value
