"""Which share of users gets which variant."""

import msgspec
import pytest

from assets.experiences.assign import load_experiences
from assets.experiences.definition import Experience, arm_ranges, arm_weights, bucket
from orchestration.dbt import segment_files
from orchestration.errors import UpnextError
from orchestration.settings import Settings


def experience(**changes: object) -> Experience:
    value = {
        "description": "x", "owner": "o", "segment": "s", "surface": "web", "slot": "banner", "priority": 1,
        "control": 0.2, "goal": {"any_of": ["login"], "within": "7 days"},
        "variants": {"a": {"copy": "A", "url": "/a", "weight": 3}, "b": {"copy": "B", "url": "/b"}},
        **changes,
    }  # fmt: skip
    return msgspec.convert(value, Experience)


def test_variants_share_what_control_leaves() -> None:
    assert arm_weights(experience()) == pytest.approx({"control": 0.2, "a": 0.6, "b": 0.2})


def test_ranges_cover_everybody_once() -> None:
    ranges = arm_ranges(experience())
    assert ranges[0]["low"] == 0
    assert ranges[-1]["high"] == 1
    assert [arm["high"] for arm in ranges[:-1]] == [arm["low"] for arm in ranges[1:]]


def test_buckets_are_even_and_differ_by_salt() -> None:
    buckets = [bucket("x", f"user {number}") for number in range(10_000)]
    assert 0 <= min(buckets) < 0.001
    assert 0.999 < max(buckets) < 1
    assert sum(buckets) / len(buckets) == pytest.approx(0.5, abs=0.02)
    assert bucket("x", "user 1") != bucket("y", "user 1")


@pytest.mark.parametrize(
    "changes",
    [
        {"control": 1},
        {"control": -0.1},
        {"variants": {}},
        {"variants": {"control": {"copy": "A", "url": "/a"}}},
        {"variants": {"a": {"copy": "A", "url": "javascript:alert(1)"}}},
        {"variants": {"a": {"copy": "A", "url": "//host/a"}}},
        {"variants": {"a": {"copy": "", "url": "/a"}}},
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        experience(**changes)


def test_the_six_experiences_of_the_product() -> None:
    segments = set(segment_files(Settings.from_environment({})))
    assert {experience.segment for experience in load_experiences(segments).values()} == segments
    with pytest.raises(UpnextError, match="unknown segment"):
        load_experiences({"other"})
