"""The definition of an experience: its YAML, checked, and the share of users in each variant. Pure."""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from upnext.conditions import Conditions, check_conditions, paths_of
from upnext.declarations import PROGRAMME, Declaration, Link, Name, Problem, Share, markup, segment_of_users, unknown
from upnext.durations import Duration, minutes
from upnext.wording import worded

CONTROL = "control"

Surface = Literal["web", "in_app"]
Page = Annotated[str, worded(r"^/[^\s*]*\*?$", "a path such as /pricing or /docs/*")]
"""A path of the site, such as `/pricing`; `/docs/*` is all below it."""

Times = Annotated[int, msgspec.Meta(ge=1, le=1000)]
"""How many times in one session it has to happen before the CTA shows."""


Copy = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


class TourStep(Declaration, frozen=True):
    """A text beside an element of the page."""

    element: Name
    copy: Copy


class Variant(Declaration, frozen=True):
    """What one arm shows: copy and link; `weight` is its per cent of the users outside control (default: equal).

    A `generic` copy is not written for the segment; the personal copies are compared with it. A tour has `steps`, and
    the copy is the link of the last one.
    """

    copy: Copy
    url: Link
    weight: Annotated[int, msgspec.Meta(gt=0, le=100)] | None = None
    generic: bool = False
    steps: Annotated[list[TourStep], msgspec.Meta(min_length=1, max_length=10)] | None = None


class Goal(Declaration, frozen=True):
    """The goal of the experience: any of these events, within a time after the first exposure."""

    any_of: Annotated[list[str], msgspec.Meta(min_length=1)]
    within: Duration


class PageView(Declaration, frozen=True, tag_field="when", tag="page_view"):
    """The page is looked at."""

    page: Page | None = None
    times_in_session: Times = 1


class FeatureUsed(Declaration, frozen=True, tag_field="when", tag="feature_used"):
    """The feature is used."""

    feature: Name
    times_in_session: Times = 1


class FeatureHovered(Declaration, frozen=True, tag_field="when", tag="feature_hovered"):
    """The pointer rests on the feature."""

    feature: Name
    times_in_session: Times = 1


class Click(Declaration, frozen=True, tag_field="when", tag="click"):
    """The element of that name is clicked."""

    element: Name
    times_in_session: Times = 1


class TimeOnPage(Declaration, frozen=True, tag_field="when", tag="time_on_page"):
    """The page has been open for so long."""

    seconds: Annotated[int, msgspec.Meta(gt=0, le=86_400)]
    page: Page | None = None


class ScrollDepth(Declaration, frozen=True, tag_field="when", tag="scroll_depth"):
    """So much of the page has been scrolled to."""

    percent: Annotated[int, msgspec.Meta(gt=0, le=100)]
    page: Page | None = None


class Inactivity(Declaration, frozen=True, tag_field="when", tag="inactivity"):
    """Nothing was done for so long."""

    seconds: Annotated[int, msgspec.Meta(gt=0, le=86_400)]


OneTrigger = PageView | FeatureUsed | FeatureHovered | Click | TimeOnPage | ScrollDepth | Inactivity


class Sequence(Declaration, frozen=True, tag_field="when", tag="sequence"):
    """Triggers one after the other, on one page; each is looked for when the one before has happened."""

    steps: Annotated[list[OneTrigger], msgspec.Meta(min_length=2, max_length=10)]


Trigger = OneTrigger | Sequence


class Slot(Declaration, frozen=True):
    """A place of the product that can show a CTA, on which surfaces, and how it looks there."""

    description: str
    surfaces: Annotated[list[Surface], msgspec.Meta(min_length=1)]
    kind: Literal["banner", "footer", "module", "panel", "button", "modal", "tooltip", "tour"] = "banner"


class Slots(Declaration, frozen=True):
    """The file `slots.yml`."""

    slots: dict[Name, Slot]


class LearnedRule(Declaration, frozen=True, kw_only=True):
    """Users whose features meet these conditions see a variant; without conditions, all others do."""

    when: Conditions | None = None
    show: Name

    def __post_init__(self) -> None:
        check_conditions(self.when, "when", may_be_relative=False)


class Learned(Declaration, frozen=True, kw_only=True):
    """One file of `campaigns/policies/*.yml`, named like its experience: who sees which variant.

    A share of the users, `chance`, keeps being drawn at chance. Of the others, half follow the rules and half see the
    best `single` variant, so that the rules are measured. A `draft` acts on nobody.
    """

    state: Literal["draft", "live"] = "live"
    learned_until: datetime | None = None
    users: int | None = None
    gain: list[float] = []
    chance: Annotated[float, msgspec.Meta(ge=0.05, le=0.9)] = 0.2
    single: Name
    rules: Annotated[list[LearnedRule], msgspec.Meta(min_length=1)]


class Experience(Declaration, frozen=True):
    """One file of `campaigns/experiences/*.yml`; the file's name is the experience's.

    `minimum_lift` is the smallest lift worth having; it decides `stop` for futility. `starts_at` and `ends_at` are
    instants with a zone: the first is inclusive, the second exclusive.
    """

    description: str
    owner: str
    segment: Name
    surface: Surface
    slot: Name
    trigger: Trigger
    priority: Annotated[int, msgspec.Meta(ge=0, lt=1000)]
    control: Share
    goal: Goal
    variants: Annotated[dict[Name, Variant], msgspec.Meta(min_length=1)]
    exclusive_group: Name | None = None
    minimum_lift: Annotated[float, msgspec.Meta(gt=0)] = 0.1
    starts_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    ends_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    policy: Literal["learn"] | None = None
    """`learn` keeps the features of users when they are assigned, so that rules can be learned."""
    learned: Learned | None = None
    public: bool = False
    """Whether pages may show it to a user without proof of who the user is."""


@dataclass(frozen=True)
class Names:
    """The names that an experience can refer to; `experiments` are names that journeys already use.

    `segments` has the unit of each.
    """

    segments: Mapping[str, str]
    events: Collection[str]
    slots: Mapping[str, Slot]
    experiments: Collection[str]


def find_mistakes(name: str, experience: Experience, known: Names) -> Iterator[Problem]:
    """Yield the mistakes that make an experience impossible, or different from its author's intent."""
    if name == PROGRAMME:
        yield Problem([], f"'{name}' is the experiment over all journeys and experiences; choose another name")
    if name in known.experiments:
        yield Problem([], f"a journey is called '{name}' too; results are by name, so choose another")
    yield from segment_of_users(["segment"], experience.segment, known.segments)
    yield from unknown(["goal", "any_of"], "event", experience.goal.any_of, known.events)
    if minutes(experience.goal.within) == 0:
        yield Problem(["goal", "within"], "nothing can be reached within no time")
    yield from unknown(["slot"], "slot", [experience.slot], known.slots)
    surfaces = known.slots[experience.slot].surfaces if experience.slot in known.slots else []
    if experience.surface not in surfaces:
        yield Problem(
            ["surface"], f"slot '{experience.slot}' is on {' and '.join(surfaces)}, not on {experience.surface}"
        )
    if experience.starts_at and experience.ends_at and experience.ends_at <= experience.starts_at:
        yield Problem(["ends_at"], "it ends before it starts")
    if experience.learned is not None:
        yield Problem(["learned"], f"what was learned stands in a file of its own, campaigns/policies/{name}.yml")
    if experience.policy is not None and len(experience.variants) < 2:
        yield Problem(["policy"], "there is nothing to choose from with one variant alone")
    yield from _mistakes_of_variants(experience)
    if experience.slot in known.slots:
        yield from _mistakes_of_tours(experience, known.slots[experience.slot].kind)


def find_mistakes_of_rules(learned: Learned, experience: Experience, features: Collection[str]) -> Iterator[Problem]:
    """Yield what makes rules impossible."""
    yield from unknown(["single"], "variant", [learned.single], experience.variants)
    for nth, rule in enumerate(learned.rules):
        yield from unknown(["rules", nth, "show"], "variant", [rule.show], experience.variants)
        for path in paths_of(rule.when or {}):
            yield from unknown(["rules", nth, "when"], "feature", [path.partition(".")[0]], features)
        if rule.when is None and nth < len(learned.rules) - 1:
            yield Problem(["rules", nth], "it holds for all, so no rule after it is ever read; put it last")
    if learned.rules[-1].when is not None:
        yield Problem(["rules", len(learned.rules) - 1], "the last rule is for all others: leave out its `when`")


def _mistakes_of_variants(experience: Experience) -> Iterator[Problem]:
    weights = [variant.weight for variant in experience.variants.values()]
    stated = [weight for weight in weights if weight is not None]
    if stated and len(stated) < len(weights):
        yield Problem(["variants"], "weights are stated for all variants or for none")
    elif stated and sum(stated) != 100:
        yield Problem(
            ["variants"],
            f"the weights add up to {sum(stated)}; they are per cents of what control leaves and must add up to 100",
        )
    for name, variant in experience.variants.items():
        if name == CONTROL:
            yield Problem(["variants", name], "no variant may be called 'control': that is the group that sees nothing")
        yield from markup(["variants", name, "copy"], variant.copy)


def _mistakes_of_tours(experience: Experience, kind: str) -> Iterator[Problem]:
    for name, variant in experience.variants.items():
        if variant.steps is not None and kind != "tour":
            yield Problem(["variants", name, "steps"], f"slot '{experience.slot}' is a {kind}; only a tour has steps")
        if variant.steps is None and kind == "tour":
            yield Problem(["variants", name], f"slot '{experience.slot}' is a tour, which has steps: {{element, copy}}")
        for nth, step in enumerate(variant.steps or []):
            yield from markup(["variants", name, "steps", nth, "copy"], step.copy)


def arm_weights(experience: Experience) -> dict[str, float]:
    """Return the share of users in each arm, control first; the shares add up to 1."""
    rest = 1 - experience.control
    even = 100 / len(experience.variants)
    shares = {
        name: rest * (even if variant.weight is None else variant.weight) / 100
        for name, variant in experience.variants.items()
    }
    return {CONTROL: experience.control, **shares}


def arm_ranges(experience: Experience) -> list[dict[str, Any]]:
    """Return each arm's half-open range of buckets, `low <= bucket < high`; together they cover [0, 1)."""
    ranges: list[dict[str, Any]] = []
    low = 0.0
    for name, share in arm_weights(experience).items():
        ranges.append({"variant": name, "low": low, "high": low + share})
        low += share
    ranges[-1]["high"] = 1.0
    return ranges


def bucket(salt: str, unit: str) -> float:
    """Return the same number in [0, 1) as `upnext.bucket` does in SQL: 32 bits of MD5 over salt and unit."""
    digest = hashlib.md5(f"{salt}/{unit}".encode(), usedforsecurity=False).hexdigest()
    return int(digest[:8], 16) / 2**32


def arm_of(name: str, experience: Experience, user_id: str) -> str:
    """Return the arm that a user is assigned to, the same as in SQL."""
    drawn = bucket(f"experience:{name}", user_id)
    return next(str(arm["variant"]) for arm in arm_ranges(experience) if arm["low"] <= drawn < arm["high"])


def as_json(experience: Experience) -> dict[str, Any]:
    """Return the definition as plain JSON values, with its ranges, as SQL reads it."""
    value: dict[str, Any] = msgspec.to_builtins(experience)
    if experience.learned is not None:
        # Only rules that are live are part of it; a key that says so would make other rules of those before.
        del value["learned"]["state"]
    return {
        **value,
        "ranges": arm_ranges(experience),
        "weights": arm_weights(experience),
    }
