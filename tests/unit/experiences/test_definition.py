"""What an experience is, which mistakes are found where, and which share of users gets which variant."""

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from tests.conftest import DECLARED
from upnext.errors import UpnextError
from upnext.experiences.declared import load_experiences
from upnext.experiences.definition import Experience, Names, arm_of, arm_ranges, arm_weights, bucket

KNOWN = Names(DECLARED.segment_units, DECLARED.events, DECLARED.slots, {"earn_upgrade"})
COPIES = {
    "upsell_banner": "Upgrade to unlock team workflows and advanced reports",
    "premium_sidebar": "Ready for more? Unlock Premium Reports",
    "prices_footer": "Still deciding? Try Premium free for 7 days",
    "feature_popup": "This feature is part of Premium — want early access?",
    "escort_banner": "Not getting full value? Explore what you've missed",
    "autopilot_tooltip": "Still haven't tried automations? Here's a 2-minute setup.",
}


def value(**changes: Any) -> dict[str, Any]:
    return {
        "description": "x", "owner": "o", "segment": "upgrade_seekers", "surface": "web", "slot": "homepage_banner",
        "trigger": {"when": "page_view"}, "priority": 1, "control": 0.2,
        "goal": {"any_of": ["login"], "within": "7 days"},
        "variants": {"a": {"copy": "A", "url": "/a", "weight": 75}, "b": {"copy": "B", "url": "/b", "weight": 25}},
        **changes,
    }  # fmt: skip


def experience(**changes: Any) -> Experience:
    return msgspec.convert(value(**changes), Experience)


def error(folder: Path, name: str = "offer", **changes: Any) -> str:
    """Return what is said of a file, from its line on."""
    path = folder / f"{name}.yml"
    declared = {key: item for key, item in value(**changes).items() if item is not None}
    path.write_text(yaml.safe_dump(declared, sort_keys=False))
    with pytest.raises(UpnextError) as raised:
        load_experiences(KNOWN, folder)
    message = str(raised.value)
    assert message.startswith(f"{path}:")
    assert "\n" not in message
    line, _, text = message.removeprefix(f"{path}:").partition(": ")
    return f"{path.read_text().splitlines()[int(line) - 1].strip()} | {text}"


def test_variants_share_what_control_leaves() -> None:
    assert arm_weights(experience()) == pytest.approx({"control": 0.2, "a": 0.6, "b": 0.2})
    even = {name: {"copy": name, "url": "/"} for name in "abc"}
    assert arm_weights(experience(control=0.1, variants=even)) == pytest.approx(
        {"control": 0.1, "a": 0.3, "b": 0.3, "c": 0.3}
    )


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
    assert arm_of("x", experience(control=0), "user 1") in ("a", "b")


A = {"copy": "A", "url": "/a"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"control": 1.2}, "control: 1.2 | 'control' is 1.2; it must be a number of at least 0 and below 1"),
        ({"control": 1}, "control: 1 | 'control' is 1; it must be a number of at least 0 and below 1"),
        ({"control": -0.1}, "control: -0.1 | 'control' is -0.1; it must be a number of at least 0 and below 1"),
        ({"control": None}, "description: x | 'control' is missing"),
        ({"variants": {}}, "variants: {} | 'variants' is an empty mapping;"),
        ({"variants": {"control": A}}, "control: | no variant may be called 'control'"),
        ({"variants": {"a": {**A, "weight": 60}, "b": {**A, "weight": 60}}}, "variants: | the weights add up to 120"),
        ({"variants": {"a": {**A, "weight": 60}, "b": A}}, "variants: | weights are stated for all variants or none"),
        ({"variants": {"a": {**A, "weight": 130}}}, "weight: 130 | 'weight' is 130; it must be a whole"),
        ({"variants": {"a": A, "b": {**A, "copy": "<b>Hi</b>"}}}, "copy: <b>Hi</b> | copy is plain text, and '<b>'"),
        ({"variants": {"a": {**A, "copy": "Hi <script>"}}}, "copy: Hi <script> | copy is plain text, and '<script>'"),
        ({"variants": {"a": {**A, "copy": "&lt;b"}}}, "copy: '&lt;b' | copy is plain text, and '&lt;'"),
        ({"variants": {"a": {**A, "copy": ""}}}, "copy: '' | 'copy' is ''; it must be text"),
        ({"variants": {"a": {**A, "url": "javascript:alert(1)"}}}, "url: javascript:alert(1) | 'url' is 'java"),
        ({"variants": {"a": {**A, "url": "//host/a"}}}, "url: //host/a | 'url' is '//host/a'; it must be an address"),
        ({"segment": "upgrade_curios"}, "segment: upgrade_curios | unknown segment 'upgrade_curios'; did you mean"),
        ({"slot": "homepage_baner"}, "slot: homepage_baner | unknown slot 'homepage_baner'; did you mean 'homepage_b"),
        ({"surface": "in_app"}, "surface: in_app | slot 'homepage_banner' is on web, not on in_app"),
        ({"trigger": {"when": "page_veiw"}}, "when: page_veiw | 'when' is 'page_veiw'; it must be one of page_view"),
        ({"trigger": {"when": "scroll_depth", "percent": 120}}, "percent: 120 | 'percent' is 120; it must be"),
        ({"trigger": {"when": "inactivity", "percent": 1}}, "percent: 1 | unknown key 'percent'"),
        ({"goal": {"any_of": ["log in"], "within": "7 days"}}, "any_of: | unknown event 'log in'; did you mean 'log"),
        ({"goal": {"any_of": ["login"], "within": "00 days"}}, "within: 00 days | nothing can be reached"),
        ({"starts_at": "2026-03-02T00:00:00Z", "ends_at": "2026-03-01T00:00:00Z"}, "ends_at: '2026-03-01T00:00:00Z' |"
         " it ends before it starts"),
        ({"ends_at": "2026-03-01T00:00:00"}, "ends_at: '2026-03-01T00:00:00' | 'ends_at' is '2026"),
        ({"minimum_lift": 0}, "minimum_lift: 0 | 'minimum_lift' is 0; it must be a number above 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    found = error(tmp_path, **changes)
    assert found.startswith(expected.replace("for all variants or none", "for all variants or for none")), found


def test_no_experience_is_called_as_the_programme_is(tmp_path: Path) -> None:
    assert "is the experiment over all journeys and experiences" in error(tmp_path, name="programme")


def test_two_experiments_by_one_name_are_refused(tmp_path: Path) -> None:
    assert "a journey is called 'earn_upgrade' too" in error(tmp_path, name="earn_upgrade")


@pytest.mark.parametrize(
    "trigger",
    [
        {"when": "page_view", "page": "/pricing", "times_in_session": 3},
        {"when": "feature_used", "feature": "reports"},
        {"when": "feature_hovered", "feature": "automations"},
        {"when": "time_on_page", "seconds": 30, "page": "/docs/*"},
        {"when": "scroll_depth", "percent": 50},
        {"when": "click", "element": "upgrade_button", "times_in_session": 2},
        {"when": "inactivity", "seconds": 120},
    ],
)
def test_every_kind_of_trigger(trigger: dict[str, Any]) -> None:
    assert msgspec.to_builtins(experience(trigger=trigger).trigger).items() >= trigger.items()


def test_text_that_only_looks_a_bit_like_markup_is_copy(tmp_path: Path) -> None:
    plain = {"a": {"copy": "3 < 5 & more: \"reports\" -> done", "url": "/a"}}  # fmt: skip
    (tmp_path / "offer.yml").write_text(yaml.safe_dump(value(variants=plain)))
    assert load_experiences(KNOWN, tmp_path)["offer"].variants["a"].copy.startswith("3 < 5")


def test_the_six_experiences_of_the_product() -> None:
    experiences = DECLARED.experiences
    assert {name: variant.copy for name, e in experiences.items() for variant in e.variants.values()} == COPIES
    assert {experience.segment for experience in experiences.values()} == DECLARED.segments
    assert {(e.surface, e.slot) for e in experiences.values() if e.segment == "upgrade_seekers"} == {
        ("web", "pricing_page_sticky_footer"), ("in_app", "feature_gated_modal"),
    }  # fmt: skip


def test_every_slot_of_the_field() -> None:
    slots = set(DECLARED.slots)
    assert slots >= {
        "homepage_banner", "pricing_page_sticky_footer", "sidebar_module", "dashboard_panel", "feature_gated_modal",
        "dashboard_tooltip", "nav_bar_button", "product_tour",
    }  # fmt: skip


def test_a_tour_has_steps_and_nothing_else_has(tmp_path: Path) -> None:
    steps = [{"element": "plans", "copy": "Look"}, {"element": "reports", "copy": "And here"}]
    a = {"copy": "A", "url": "/a"}
    tour = {"slot": "product_tour", "variants": {"a": {**a, "steps": steps}}}
    assert msgspec.convert(value(**tour), Experience).variants["a"].steps is not None
    markup_in_a_step = [{"element": "plans", "copy": "<b>Look</b>"}]
    for changes, message in (
        ({"variants": {"a": {**a, "steps": steps}}}, "slot 'homepage_banner' is a banner; only a tour has steps"),
        ({**tour, "variants": {"a": a}}, "slot 'product_tour' is a tour, which has steps"),
        ({**tour, "variants": {"a": {**a, "steps": markup_in_a_step}}}, "copy is plain text, and '<b>' is markup"),
        ({**tour, "variants": {"a": {**a, "steps": []}}}, "'steps' is .* a list, with one entry at least"),
        ({"trigger": {"when": "sequence", "steps": [{"when": "page_view"}]}}, "'steps' is"),
        ({"trigger": {"when": "sequence", "steps": [{"when": "page_view"}, {"when": "scrol_depth"}]}}, "scrol_depth"),
    ):
        assert re.search(message, error(tmp_path, **changes)), message


def test_a_time_without_a_zone_is_told_so(tmp_path: Path) -> None:
    told = error(tmp_path, starts_at=datetime(2026, 4, 1))  # noqa: DTZ001 - what YAML makes of it
    assert "'starts_at' is 2026-04-01 00:00:00, without a zone; it must be a time with a zone, such as" in told
