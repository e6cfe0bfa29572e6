"""Decoding one line: what is stored, and what is rejected with which reason."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from upnext.events.event import Event, Reject, decode_segment, occurred_at

LOADED_AT = datetime(2026, 4, 1, tzinfo=UTC)
NEW_YEAR = "2026-01-01T00:00:00Z"


def line(**fields: Any) -> bytes:
    return json.dumps({"type": "track", "event": "login", "userId": "u1", "messageId": "m1", **fields}).encode()


def decode(text: bytes) -> Event:
    return decode_segment(text, loaded_at=LOADED_AT)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"{", "invalid_json"),
        (b"not json", "invalid_json"),
        (b"[1]", "invalid_shape"),
        (b"5", "invalid_shape"),
        (line(type="purchase"), "unknown_type"),
        (line(event=None), "no_event"),
        (line(event=""), "no_event"),
        (b'{"type":"track","event":"a","userId":"u","properties":{"x":NaN}}', "invalid_json"),
        (b'{"type":"track","event":"a","userId":"u","properties":{"x":Infinity}}', "invalid_json"),
        (b'{"type":"track","event":"a","userId":"u","properties":{"x":"\\u0000"}}', "nul_character"),
        (b'{"type":"track","event":"a","userId":"u","properties":{"x":"\\ud800"}}', "invalid_json"),
        (b'{"type":"track","event":"\xff","userId":"u"}', "invalid_utf8"),
        (line(properties=[1]), "invalid_shape"),
        (line(properties="text"), "invalid_shape"),
        (b'{"type":"track","event":"a","userId":"u","properties":{"x":' + b"[" * 101 + b"]" * 101 + b"}}", "too_deep"),
        (
            b'{"type":"track","event":"a","userId":"u","properties":{"x":' + b"[" * 7000 + b"]" * 7000 + b"}}",
            "too_deep",
        ),
        (line(properties={"x": "y" * 33_000}), "too_large"),
        (line(event="e" * 1_000_000), "too_large"),
        (line(userId=None), "no_user"),
        (line(userId=""), "no_user"),
        (line(userId=0), "no_user"),
        (line(userId={"id": 1}), "invalid_id"),
        (line(userId=True), "invalid_id"),
        (line(userId="u" * 1001), "too_large"),
        (line(messageId="m" * 6000), "too_large"),
        (line(event="e" * 1001), "too_large"),
        (line(receivedAt=NEW_YEAR, originalTimestamp=NEW_YEAR, sentAt="8000-01-01T00:00:00Z"), "invalid_timestamp"),
        (line(context={"groupId": {}}), "invalid_id"),
        (b'{"type":"track","event":"a","userId":1e99999}', "number_out_of_range"),
        (b'{"type":"track","event":"a","userId":"u","properties":{"x":1e309}}', "number_out_of_range"),
        (b'{"type":"track","event":"a","userId":"u","properties":{"x":' + b"1" * 5000 + b"}}", "number_out_of_range"),
        (line(userId=2.0**60), "invalid_id"),
        (line(timestamp="2026-02-30T00:00:00Z"), "invalid_timestamp"),
        (line(timestamp="infinity"), "invalid_timestamp"),
        (line(timestamp="0001-01-01T00:00:00Z"), "invalid_timestamp"),
        (line(timestamp=1767225600), "invalid_timestamp"),
    ],
)
def test_what_does_not_fit_is_rejected(text: bytes, reason: str) -> None:
    with pytest.raises(Reject) as rejected:
        decode(text)
    assert rejected.value.reason == reason
    assert rejected.value.detail


def test_an_escaped_backslash_before_u0000_is_data() -> None:
    event = decode(b'{"type":"track","event":"a","userId":"u","properties":{"x":"\\\\u0000"}}')
    assert json.loads(event.properties) == {"x": "\\u0000"}


def test_brackets_in_strings_are_not_depth() -> None:
    assert decode(line(properties={"x": "[" * 500})).event == "login"


@pytest.mark.parametrize(
    ("user_id", "stored"),
    [("u1", "u1"), (42, "42"), (1.5, "1.5"), (7.0, "7"), (12345678901234567890123, "12345678901234567890123")],
)
def test_a_number_as_user_is_its_decimal_text(user_id: object, stored: str) -> None:
    assert decode(line(userId=user_id)).user_id == stored


def test_ids_stay_as_they_are() -> None:
    ids = ["U1", "u1", " u1", "u1 ", "é", "é"]
    assert [decode(line(userId=text)).user_id for text in ids] == ids


def test_an_anonymous_visitor_is_kept_without_user() -> None:
    event = decode(line(userId=None, anonymousId="a1"))
    assert (event.user_id, event.anonymous_id) == (None, "a1")


def test_the_same_line_without_an_id_has_the_same_id() -> None:
    first, second = decode(line(messageId=None)), decode(line(messageId=None))
    assert first.message_id == second.message_id != decode(line(messageId=None, event="other")).message_id


def test_large_integers_and_repeated_keys_are_left_to_the_database() -> None:
    event = decode(
        b'{"type":"track","event":"b","event":"a","userId":"u","properties":{"x":123456789012345678901,"x":2}}'
    )
    assert event.event == "a"
    assert event.properties == b'{"x":123456789012345678901,"x":2}'


def test_traits_of_identify_and_group_are_the_properties() -> None:
    assert json.loads(decode(line(type="identify", traits={"email": "a@b"})).properties) == {"email": "a@b"}
    group = decode(line(type="group", groupId="g1", traits={"plan": "basic"}))
    assert (group.account_id, json.loads(group.properties), group.event) == ("g1", {"plan": "basic"}, None)


def test_the_account_is_read_from_the_context() -> None:
    assert decode(line(context={"groupId": "g7", "ip": "x"})).account_id == "g7"


def at(second: int) -> datetime:
    return datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({"received_at": at(30), "sent_at": at(20), "original_timestamp": at(15), "timestamp": at(1)}, at(25)),
        ({"received_at": at(30), "sent_at": at(20), "original_timestamp": at(25)}, at(30)),
        ({"timestamp": at(1), "original_timestamp": at(2), "received_at": at(3)}, at(1)),
        ({"original_timestamp": at(2), "received_at": at(3)}, at(2)),
        ({"received_at": at(3)}, at(3)),
        ({}, LOADED_AT),
    ],
)
def test_when_it_happened(times: dict[str, datetime], expected: datetime) -> None:
    known = dict.fromkeys(("timestamp", "original_timestamp", "sent_at", "received_at"))
    assert occurred_at(**{**known, **times}, loaded_at=LOADED_AT) == expected  # type: ignore[arg-type]


def test_a_naive_time_is_utc_and_flagged() -> None:
    naive = decode(line(timestamp="2026-01-01T00:00:00", sentAt="2026-01-01T00:00:01"))
    assert (naive.occurred_at, naive.flags) == (at(0), ["naive"])
    zoned = decode(line(timestamp="2026-01-01T01:00:00+01:00"))
    assert (zoned.occurred_at, zoned.flags) == (at(0), None)


def test_a_time_after_loading_is_flagged() -> None:
    assert decode(line(timestamp="2099-01-01T00:00:00Z")).flags == ["future"]
    assert decode(line(timestamp=LOADED_AT.isoformat())).flags is None


@pytest.mark.parametrize(("minutes", "flags"), [(-5, None), (5, None), (-6, ["skewed"]), (6, ["skewed"])])
def test_a_clock_that_is_off_is_flagged(minutes: int, flags: list[str] | None) -> None:
    received_at = datetime(2026, 1, 1, tzinfo=UTC)
    sent_at = received_at + timedelta(minutes=minutes)
    assert decode(line(sentAt=sent_at.isoformat(), receivedAt=received_at.isoformat())).flags == flags
