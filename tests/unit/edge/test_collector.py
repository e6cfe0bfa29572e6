"""From the body of a request to lines."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from upnext.edge.collector import BATCHES, Rules, is_bot, lines_of, read, without_query
from upnext.edge.keys import new_key
from upnext.edge.refusal import Refused

NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)


def lines(body: Any, kind: str = "batch", *, rules: Rules = Rules(), **values: Any) -> list[Any]:  # noqa: B008
    stated = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = lines_of(read(stated, kind), rules, received_at=NOW, ids=iter(["new-1", "new-2"]), **values)
    return [json.loads(line) for line in found]


def test_one_event_gets_its_type_from_the_path_and_loses_the_key() -> None:
    body = {"writeKey": "wk_1", "type": "page", "event": "login", "userId": "ann", "messageId": "m"}
    assert read(json.dumps(body).encode(), "t").key == "wk_1"
    assert lines(body, "t") == [
        {"type": "track", "event": "login", "userId": "ann", "messageId": "m", "receivedAt": "2026-03-31T12:00:00Z"}
    ]


def test_a_batch_states_for_all() -> None:
    body = {
        "batch": [
            {
                "type": "track",
                "event": "a",
                "messageId": "1",
                "context": {"app": 2},
                "timestamp": "2026-03-31T10:00:00Z",
            },
            {"type": "identify", "messageId": "2"},
        ],
        "sentAt": "2026-03-31T11:59:59Z",
        "context": {"app": 1, "library": {"name": "x"}},
    }
    one, other = lines(body)
    assert one["context"] == {"app": 2, "library": {"name": "x"}}
    assert other["context"] == {"app": 1, "library": {"name": "x"}}
    assert {one["sentAt"], other["sentAt"]} == {"2026-03-31T11:59:59Z"}
    assert one["originalTimestamp"] == "2026-03-31T10:00:00Z"


def test_an_alias_by_a_public_key_is_marked() -> None:
    batch = {"batch": [{"type": "alias", "messageId": "1", "context": {"upnext": {"unproven": False}}},
                       {"type": "track", "messageId": "2"}, 5]}  # fmt: skip
    marked, other, none = lines(batch, is_public=True)
    assert (marked["context"], "context" in other, none) == ({"upnext": {"unproven": True}}, False, 5)
    assert lines({"messageId": "1"}, "alias", is_public=True)[0]["context"] == {"upnext": {"unproven": True}}
    assert "context" not in lines({"messageId": "1", "type": "alias"}, "track", is_public=True)[0]
    escaped = b'{"batch": [{"type": "al\\u0069as", "messageId": "1"}, {"type": 5, "messageId": "2"}]}'
    assert [line.get("context") for line in lines(escaped, is_public=True)] == [{"upnext": {"unproven": True}}, None]
    assert lines(batch)[0]["context"] == {"upnext": {"unproven": False}}, "a server key proves it"


def test_an_event_without_an_id_gets_one_and_any_other_keeps_its_own() -> None:
    batch = [{"type": "track"}, {"messageId": None}, {"messageId": 5}]
    assert [line["messageId"] for line in lines({"batch": batch})] == ["new-1", "new-2", 5]


def test_what_is_no_event_is_kept_as_it_is() -> None:
    batch = b'{"batch": [1, "x", null, [2], {"type": "track", "messageId": "m"}]}'
    assert lines(batch)[:4] == [1, "x", None, [2]]


def test_the_first_part_of_a_too_large_event_is_kept() -> None:
    large = json.dumps({"type": "track", "messageId": "m", "properties": {"text": "x" * 100_000}})
    found = lines_of(read(f'{{"batch": [{large}]}}'.encode(), "b"), Rules(), received_at=NOW, ids=iter([]))
    assert [len(line) for line in found] == [64 * 1024]
    assert large.encode().startswith(found[0])


def test_what_a_batch_states_for_all_may_not_make_it_large() -> None:
    for field, value in (("context", {"x": "y" * 40_000}), ("sentAt", "y" * 40_000)):
        assert len(lines({"batch": [{"messageId": "m"}] * 100, field: value})) == 100
        with pytest.raises(Refused) as refused:
            lines({"batch": [{"messageId": "m"}] * 250, field: value})
        assert refused.value.status == 413


def test_an_event_that_cannot_be_read_is_kept_as_it_came_and_its_neighbours_are_not_touched() -> None:
    for broken in (
        b'{"messageId":"1","properties":{"url":"https://a/?q","n":"\xff"}}', b'{"messageId":"1","context":{"\xff":1}}',
    ):  # fmt: skip
        body = b'{"context":{"app":1},"batch":[' + broken + b',{"messageId":"2"}]}'
        kept, other = lines_of(read(body, "b"), Rules(), received_at=NOW, ids=iter([]), is_bot=True)
        assert kept == broken
        assert json.loads(other)["context"] == {"app": 1, "upnext": {"bot": True}}


def test_a_context_of_the_batch_that_cannot_be_read_is_refused() -> None:
    for context in (b'{"\xff":1}', b'{"a":' * 970 + b"1" + b"}" * 970):
        with pytest.raises(Refused) as refused:
            lines(b'{"batch":[{"messageId":"1"}],"context":' + context + b"}")
        assert refused.value.status == 400
    assert "context" not in lines({"batch": [{"messageId": "1"}], "context": 5})[0], "what is no object gives way"


def test_an_event_with_nan_is_a_text_and_its_neighbours_are_read() -> None:
    for broken in (b'{"a":NaN}', b'{"a":1e999,"b":"\\ud800"}', b'{"a":"\\ud800"}'):
        kept, other = lines(b'{"batch":[' + broken + b',{"messageId":"2"}]}')
        assert isinstance(kept, str)
        assert other["messageId"] == "2"
    for body in (b'{"batch":[{"messageId":"2"}],"x":NaN}', b'{"batch":[{"a":NaN}],"x":NaN}'):
        with pytest.raises(Refused):
            lines(body)


def test_a_key_is_taken_out_of_what_is_kept_as_it_came_and_a_mere_text_is_not() -> None:
    key = new_key("write")
    large = json.dumps({"writeKey": key, "messageId": "m", "properties": {"text": "e" * 40_000}}).encode()
    (kept,) = lines_of(read(large, "t"), Rules(), received_at=NOW, ids=iter([]))
    assert (key.encode() in kept, b"messageId" in kept) == (False, True)
    batch = b'{"batch":[' + large + b"]}"
    (kept,) = lines_of(read(batch, "b"), Rules(), received_at=NOW, ids=iter([]))
    assert key.encode() not in kept, "also where the event alone has it"
    batch = {"writeKey": "e", "batch": [{"type": "track", "event": "seen here", "messageId": "m"}]}
    assert lines(batch)[0]["event"] == "seen here"


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "track", 400), (b"[]", "track", 400), (b"1", "batch", 400), (b"{}", "batch", 400),
        (b'{"batch": {}}', "batch", 400), (b'{"batch": [}', "b", 400), (b'{"a": 1} x', "t", 400),
        (b"\xef\xbb\xbf{}", "t", 400), (b'{"writeKey": 5}', "t", 400),
        (b'{"batch":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "b", 400),
        (b'{"batch": [' + b"1," * 2_500 + b"1]}", "b", 413), (b'{"batch": [' + b"1," * 2_500 + b"NaN]}", "b", 413),
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused(body: bytes, kind: str, status: int) -> None:
    with pytest.raises(Refused) as refused:
        read(body, kind)
    assert refused.value.status == status


def test_queries_are_cut_off_addresses() -> None:
    page = {
        "url": "https://otto.example/a?email=x@y.z#b",
        "search": "?email=x@y.z",
        "referrer": "https://a.example/?q=1",
    }
    clean = {"url": "https://otto.example/a", "search": "", "referrer": "https://a.example/"}
    event = {"type": "page", "messageId": "m", "properties": {**page, "n": "why?"}, "context": {"page": page, "ip": 1}}
    (line,) = lines(event, "page")
    assert (line["properties"], line["context"]) == ({**clean, "n": "why?"}, {"page": clean, "ip": 1})
    assert lines(event, "page", rules=Rules(strips_queries=False))[0]["properties"]["url"] == page["url"]
    for address in (b"https://a/\\u003femail=x", b"https://a/#access_token=x"):
        body = b'{"messageId":"m","properties":{"url":"' + address + b'","path":"/plans?email=x"}}'
        assert lines(body, "page")[0]["properties"] == {"url": "https://a/", "path": "/plans"}
    assert without_query("http://[bad?x=1") == "http://[bad"
    of_all = lines({"context": {"page": page}, "batch": [{"type": "track", "messageId": "m"}]})
    assert of_all[0]["context"] == {"page": clean}, "also where the batch states them for all"


def test_who_objects_is_not_stored() -> None:
    consent = {"consent": {"categoryPreferences": {"Analytics": False, "Ads": True}}}
    batch = {"batch": [{"messageId": "1", "context": consent}, {"messageId": "2"}]}
    for category, kept in (("Analytics", ["2"]), ("Ads", ["1", "2"]), (None, ["1", "2"])):
        assert [line["messageId"] for line in lines(batch, rules=Rules(consent=category))] == kept
    given = {"consent": {"categoryPreferences": {"Analytics": True}}}
    of_all = {"context": consent, "batch": [{"messageId": "1"}, {"messageId": "2", "context": given}, 5]}
    assert [line["messageId"] for line in lines(of_all, rules=Rules(consent="Analytics"))] == ["2"]


def test_a_program_is_marked_and_an_address_is_kept_where_it_is_asked_for() -> None:
    event = {"messageId": "m", "context": {"locale": "de"}}
    assert lines(event, "t", is_bot=True)[0]["context"] == {"locale": "de", "upnext": {"bot": True}}
    assert lines(event, "t", address="192.0.2.1")[0]["context"] == {"ip": "192.0.2.1", "locale": "de"}
    assert "context" not in lines({"messageId": "m"}, "t")[0]


@pytest.mark.parametrize(
    ("agent", "is_one"),
    [
        (None, True), ("", True), ("Mozilla/5.0 (compatible; Googlebot/2.1)", True), ("HeadlessChrome/120", True),
        ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/120.0", False), ("analytics-python/2.4.0", False),
        ("Mozilla/5.0 (Linux; Android 13; CUBOT KINGKONG 9) Chrome/120.0 Mobile", False),
    ],
)  # fmt: skip
def test_programs_say_so(agent: str | None, *, is_one: bool) -> None:
    assert is_bot(agent) is is_one


def test_each_kind_of_batch_is_read() -> None:
    for kind in BATCHES:
        assert len(lines({"batch": [{"messageId": "m"}]}, kind)) == 1
