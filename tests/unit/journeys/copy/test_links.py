"""Signed links: what they name, and which keys verify them."""

import pytest

from upnext.journeys.copy.links import Links, follow


def test_a_link_names_a_message_and_a_stored_address() -> None:
    links = Links("https://mail.otto.example", ["new", "old"], "m-1")
    clicked = links.click("https://otto.example/upgrade?a=1&b=2")
    assert clicked.startswith("https://mail.otto.example/c/")
    assert "otto.example/upgrade" not in clicked
    ((link_id, url),) = links.used.items()
    assert url == "https://otto.example/upgrade?a=1&b=2"
    path, token = clicked.split("/")[-2:]
    assert follow(path, token, ["new"]) == ("click", "m-1", link_id)
    for address, kind in ((links.open, "open"), (links.unsubscribe, "unsubscribe")):
        assert address is not None
        path, token = address.split("/")[-2:]
        assert follow(path, token, ["newer", "new"]) == (kind, "m-1", None), "a rotated key still verifies"


@pytest.mark.parametrize("change", [lambda t: t + "x", lambda t: "x" + t, lambda t: "", lambda t: t[:-1]])
def test_what_was_not_signed_by_us_names_nothing(change: "type[str]") -> None:
    address = Links("https://mail.otto.example", ["key"], "m-1").unsubscribe
    assert address is not None
    token = address.rpartition("/")[2]
    assert follow("u", token, ["key"]) is not None
    assert follow("u", change(token), ["key"]) is None
    assert follow("u", token, ["another"]) is None
    assert follow("o", token, ["key"]) is None, "an unsubscription is no opening"
    assert follow("x", token, ["key"]) is None


def test_without_an_address_links_are_direct() -> None:
    links = Links(None, ["key"], "m-1")
    assert links.click("https://otto.example/upgrade") == "https://otto.example/upgrade"
    assert (links.open, links.unsubscribe, links.used) == (None, None, {})
