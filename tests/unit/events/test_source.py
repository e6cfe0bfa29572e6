"""Source mappings, on lines such as the Sparkify log's."""

import json
from datetime import UTC, datetime

import msgspec
import pytest
import yaml

from tests.conftest import DECLARED
from upnext.events.catalogue import Derived
from upnext.events.event import Event, Reject
from upnext.events.source import EventTime, Source, decoder
from upnext.settings import PROJECT

SOURCES = DECLARED.sources
SONG = {
    "userId": "8",
    "sessionId": 139,
    "itemInSession": 3,
    "ts": 1541106106796,
    "page": "NextSong",
    "level": "free",
    "song": "You Gotta Be",
    "firstName": "Kaylee",
    "userAgent": "Mozilla",
}


def decode(**changes: object) -> Event:
    decode = decoder(SOURCES["playlist"], loaded_at=datetime(2026, 1, 1, tzinfo=UTC))
    return decode(json.dumps({**SONG, **changes}).encode())


def test_a_song_is_a_created_object() -> None:
    event = decode()
    assert (event.type, event.event, event.user_id) == ("track", "created object", "8")
    assert event.occurred_at == datetime(2018, 11, 1, 21, 1, 46, 796000, tzinfo=UTC)
    assert event.message_id == "8/139/3/1541106106796"


def test_personal_fields_are_not_stored() -> None:
    assert json.loads(decode().properties) == {
        "level": "free", "song": "You Gotta Be", "itemInSession": 3, "sessionId": 139,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("page", "event"),
    [
        ("Login", "login"),
        ("Upgrade", "viewed upgrade plan"),
        ("Submit Upgrade", "subscribed to premium plan"),
        ("Submit Downgrade", "subscribed to basic plan"),
        ("Thumbs Up", "Thumbs Up"),
    ],
)
def test_pages_get_the_names_of_the_product(page: str, event: str) -> None:
    assert decode(page=page).event == event


def test_a_visitor_is_anonymous() -> None:
    event = decode(userId="")
    assert (event.user_id, event.anonymous_id) == (None, "139")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ts": "yesterday"}, "invalid_timestamp"),
        ({"ts": 1e30}, "invalid_timestamp"),
        ({"ts": -1}, "invalid_timestamp"),
        ({"ts": "[" * 20_000}, "invalid_timestamp"),
        ({"page": None}, "no_event"),
        ({"itemInSession": None}, "no_message_id"),
        ({"userId": "", "sessionId": None}, "no_user"),
        ({"userId": [1]}, "invalid_id"),
    ],
)
def test_what_does_not_fit_is_rejected(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(Reject) as rejected:
        decode(**changes)
    assert rejected.value.reason == reason


def test_a_json_source_needs_a_mapping() -> None:
    with pytest.raises(msgspec.ValidationError, match="format json needs occurred_at"):
        msgspec.convert({"description": "x", "format": "json"}, Source)


def test_a_format_of_its_own_takes_no_mapping() -> None:
    with pytest.raises(msgspec.ValidationError, match="nothing reads 'properties' here"):
        msgspec.convert({"description": "x", "format": "segment", "properties": ["plan"]}, Source)


def test_the_mapping_that_the_guide_explains() -> None:
    guide = (PROJECT / "docs/events.md").read_text()
    line = guide.split("```json\n")[1].split("```")[0].replace("\n", " ").encode()
    mapping = yaml.safe_load(guide.split("```yaml\n")[1].split("```")[0])
    event = decoder(msgspec.convert(mapping, Source), loaded_at=datetime(2026, 1, 1, tzinfo=UTC))(line)
    assert (event.event, event.user_id, event.message_id) == ("created object", "8", "8/139/3/1541106106796")
    assert set(json.loads(event.properties)) == {"level", "artist", "song"}
    derived = yaml.safe_load(guide.split("```yaml\n")[2].split("```")[0])
    assert msgspec.convert(derived["derived"]["exported large report"], Derived).where


@pytest.mark.parametrize("moment", ["1541106106796", 1541106106796, 1541106106796.0])
def test_a_number_may_be_written_as_text(moment: object) -> None:
    assert decode(ts=moment).occurred_at == datetime(2018, 11, 1, 21, 1, 46, 796000, tzinfo=UTC)


def test_a_line_without_id_fields_is_known_by_its_content() -> None:
    source = msgspec.structs.replace(SOURCES["playlist"], message_id=[])
    decode = decoder(source, loaded_at=datetime(2026, 1, 1, tzinfo=UTC))
    first, again, other = (decode(json.dumps({**SONG, "song": song}).encode()) for song in ("a", "a", "b"))
    assert first.message_id == again.message_id != other.message_id


def test_a_time_after_loading_is_flagged() -> None:
    assert decode(ts=4070908800000).flags == ["future"]


def moment_of(text: object, **time: str) -> datetime:
    source = msgspec.structs.replace(SOURCES["playlist"], occurred_at=EventTime(field="ts", **time))
    return decoder(source, loaded_at=datetime(2027, 1, 1, tzinfo=UTC))(
        json.dumps({**SONG, "ts": text}).encode()
    ).occurred_at


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-03-01T14:05:00Z", {"unit": "rfc3339"}), ("2026-03-01 14:05:00+00", {"unit": "rfc3339"}),
        ("2026-03-01 15:05:00.000+01", {"unit": "rfc3339"}), ("2026-03-01 14:05:00", {"unit": "rfc3339"}),
        ("01/03/2026 14:05", {"format": "%d/%m/%Y %H:%M"}), ("3/1/26 2:05 PM", {"format": "%m/%d/%y %I:%M %p"}),
        ("1.3.2026 15:05 +0100", {"format": "%d.%m.%Y %H:%M %z"}),
    ],
)  # fmt: skip
def test_times_as_databases_and_spreadsheets_write_them(text: str, time: dict[str, str]) -> None:
    assert moment_of(text, **time) == datetime(2026, 3, 1, 14, 5, tzinfo=UTC)


def test_a_time_of_another_form_is_rejected() -> None:
    for text, time in (
        ("01/03/2026", {"unit": "rfc3339"}),
        ("2026-03-01", {"format": "%d/%m/%Y"}),
        (5, {"format": "%Y%m%d"}),
    ):
        with pytest.raises(Reject, match="is not a"):
            moment_of(text, **time)


@pytest.mark.parametrize(
    ("time", "message"),
    [
        ({}, "either a unit or a format"), ({"unit": "rfc3339", "format": "%d"}, "either a unit or a format"),
        ({"format": "%d/%m"}, "does not tell year, month and day"), ({"format": "%Q"}, "is none of strptime's"),
        ({"format": "dd/mm/yyyy"}, "does not tell year, month and day"),
        ({"format": "%d/%m/%Y %H:%M %Z"}, "use %z"),
    ],
)  # fmt: skip
def test_a_format_has_to_tell_the_day(time: dict[str, str], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert({"field": "at", **time}, EventTime)
