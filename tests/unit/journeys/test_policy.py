"""What the policy of journeys says."""

import msgspec
import pytest

from upnext.journeys.policy import Policy, PolicyFile, Retention


@pytest.mark.parametrize(
    ("stated", "kept"),
    [
        ({}, None),
        ({"retention": "13 months"}, Retention(after="13 months")),
        ({"retention": {"after": "13 months", "keep": ["login"]}}, Retention(after="13 months", keep=["login"])),
    ],
)
def test_a_time_alone_keeps_no_event_beyond_it(stated: dict[str, object], kept: Retention | None) -> None:
    assert Policy(**msgspec.structs.asdict(msgspec.convert(stated, PolicyFile))).kept == kept


@pytest.mark.parametrize("stated", ["60 days", {"after": "60 days"}, "soon", 13])
def test_a_retention_within_which_results_are_computed_is_none(stated: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"retention": stated}, PolicyFile)
