"""Keys, limits, origins and settings of the edge."""

import asyncio
from base64 import b64encode
from types import SimpleNamespace
from typing import Any

import pytest

from upnext.edge.config import Config, check_origin
from upnext.edge.keys import KeyRing, hash_of, key_of_header, new_key
from upnext.edge.limits import Limits
from upnext.edge.origins import headers_of, is_allowed
from upnext.errors import UpnextError

OTTO = "https://otto.example"


@pytest.mark.parametrize(
    ("header", "key"),
    [
        (None, None), ("", None), ("Basic", None), ("Basic !!!", None), ("Bearer sk_1", "sk_1"), ("Bearer ", None),
        (f"Basic {b64encode(b'wk_1:').decode()}", "wk_1"), (f"basic {b64encode(b'wk_1:a:b').decode()}", "wk_1"),
        (f"Basic {b64encode(b'wk' * 100_000).decode()}", None), (f"Basic {b64encode(bytes([255])).decode()}", None),
        ("Digest x", None),
    ],
)  # fmt: skip
def test_a_key_stands_in_the_header(header: str | None, key: str | None) -> None:
    assert key_of_header(header) == key


def test_keys_are_read_again_after_ten_seconds_and_hold_while_the_warehouse_is_away() -> None:
    now, rows = [0.0], [_row(key := new_key("write"))]

    async def load() -> list[Any]:
        if rows == ["away"]:
            raise OSError
        return rows

    ring = KeyRing(load, clock=lambda: now[0])
    assert key.startswith("wk_")

    def find() -> Any:
        return asyncio.run(ring.find(key))

    assert find().source == "web"
    rows[:] = ["away"]
    now[0] = 11
    assert find().source == "web"
    rows[:] = []
    now[0] = 12
    assert find().source == "web"
    now[0] = 13
    assert find() is None
    assert asyncio.run(ring.find("k" * 100_000)) is None


def test_who_comes_while_the_first_keys_are_read_waits_for_them_together() -> None:
    now, tries = [0.0], [0]

    async def load() -> list[Any]:
        tries[0] += 1
        await asyncio.sleep(0)
        raise OSError

    async def scenario() -> list[Any]:
        ring = KeyRing(load, clock=lambda: now[0])
        found = await asyncio.gather(*(ring.find("wk_1") for _ in range(5)), return_exceptions=True)
        found += await asyncio.gather(ring.find("wk_1"), return_exceptions=True)
        assert tries == [1], "and a failure is remembered for a while"
        now[0] = 3
        return found + await asyncio.gather(ring.find("wk_1"), return_exceptions=True)

    assert [type(one) for one in asyncio.run(scenario())] == [OSError] * 7
    assert tries == [2]


def _row(key: str) -> Any:
    return SimpleNamespace(
        hash=hash_of(key), key_id=1, kind="write", source="web", origins=[], identity="required", events_per_second=10
    )


def test_a_bucket_holds_four_seconds_and_tells_when_there_is_room() -> None:
    now = [0.0]
    limits = Limits(clock=lambda: now[0])
    assert limits.take(1, 10, 40) is None
    assert limits.take(1, 10, 15) == 2
    assert limits.take(2, 10, 1) is None
    now[0] = 2
    assert limits.take(1, 10, 15) is None
    assert limits.take(1, 10, 1000) == 4
    now[0] = 10
    assert limits.take(1, 10, 1000) is None, "a request that is larger than the bucket waits for a full one"
    assert limits.take(1, 10, 1) == 97
    assert Limits(processes=2, clock=lambda: 0.0).take(1, 10, 21) is None


@pytest.mark.parametrize(
    ("origin", "is_one"),
    [
        (OTTO, True), ("https://otto.example.evil", False), ("https://evil-otto.example", False), ("null", False),
        ("http://otto.example", False), ("https://otto.example:8443", False), ("https://edge.example", True),
        ("file://edge.example", False), ("", False),
    ],
)  # fmt: skip
def test_origins(origin: str, *, is_one: bool) -> None:
    assert is_allowed(origin, host="edge.example", listed={OTTO}) is is_one
    assert is_allowed(origin, host="edge.example", listed={"*"})


def test_no_credentials_are_allowed() -> None:
    assert not [name for name in headers_of(OTTO, is_preflight=True) if "Credentials" in name]


@pytest.mark.parametrize(
    "stated", ["otto.example", "https://otto.example/path", "https://*.otto.example", "ftp://a", "*"]
)
def test_what_is_no_origin(stated: str) -> None:
    with pytest.raises(UpnextError, match="is no origin of pages"):
        check_origin(stated)


def test_settings() -> None:
    read = Config.from_environment({
        "UPNEXT_EDGE_ORIGINS": f"{OTTO}, https://APP.otto.example/", "UPNEXT_EDGE_PREFIX": "/up/",
        "UPNEXT_EDGE_TRUSTED_PROXIES": "10.0.0.0/8", "UPNEXT_EDGE_KEEP_IP": "on", "UPNEXT_EDGE_STRIP_QUERY": "off",
    })  # fmt: skip
    assert read.origins == {OTTO, "https://app.otto.example"}
    assert (read.prefix, read.keeps_ip, read.strips_queries) == ("/up", True, False)
    assert read.client_of("10.0.0.1", "203.0.113.9, 192.0.2.1, 10.0.0.2") == "192.0.2.1"
    assert read.client_of("192.0.2.7", "203.0.113.9") == "192.0.2.7"
    assert read.client_of("10.0.0.1", "nonsense") == "10.0.0.1"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("UPNEXT_EDGE_ORIGINS", "otto.example"),
        ("UPNEXT_EDGE_TRUSTED_PROXIES", "10.0.0.1/8"),
        ("UPNEXT_EDGE_KEEP_IP", "maybe"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(UpnextError, match=name):
        Config.from_environment({name: value})
