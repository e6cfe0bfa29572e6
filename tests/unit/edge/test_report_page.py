"""Whom the brake on wrong passwords takes for one client."""

import pytest

from upnext.edge.report_page import _neighbourhood


@pytest.mark.parametrize(
    ("address", "neighbourhood"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
    ],
)
def test_one_client_has_all_addresses_that_begin_alike(address: str, neighbourhood: str) -> None:
    assert _neighbourhood(address) == neighbourhood
