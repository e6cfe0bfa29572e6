"""What an experience is: its YAML, checked, and which share of users gets which variant. Pure."""

import hashlib
from typing import Annotated, Any, Literal

import msgspec

from orchestration.declarations import Declaration, Duration, Name, Share

CONTROL = "control"


class Variant(Declaration, frozen=True):
    """What one arm shows: copy and link; weights say how variants share what control leaves."""

    copy: Annotated[str, msgspec.Meta(min_length=1)]
    url: Annotated[str, msgspec.Meta(pattern=r"^(https://|/[^/])")]
    weight: Annotated[float, msgspec.Meta(gt=0)] = 1


class Goal(Declaration, frozen=True):
    """What the experience is for: any of these events, within a time after the first exposure."""

    any_of: Annotated[list[str], msgspec.Meta(min_length=1)]
    within: Duration


class Experience(Declaration, frozen=True):
    """One file of `assets/experiences/*.yml`; the file's name is the experience's."""

    description: str
    owner: str
    segment: Name
    surface: Literal["web", "in_app"]
    slot: Name
    priority: Annotated[int, msgspec.Meta(ge=0, lt=1000)]
    control: Share
    goal: Goal
    variants: Annotated[dict[Name, Variant], msgspec.Meta(min_length=1)]

    def __post_init__(self) -> None:
        if CONTROL in self.variants:
            raise ValueError("no variant may be called 'control': that is the group that sees nothing")


def arm_weights(experience: Experience) -> dict[str, float]:
    """Return the share of users in each arm, control first; the shares add up to 1."""
    total = sum(variant.weight for variant in experience.variants.values())
    rest = 1 - experience.control
    shares = {name: rest * variant.weight / total for name, variant in experience.variants.items()}
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


def as_json(experience: Experience) -> dict[str, Any]:
    """Return the definition as plain JSON values, with its ranges, as SQL reads it."""
    return {
        **msgspec.to_builtins(experience),
        "ranges": arm_ranges(experience),
        "weights": arm_weights(experience),
    }
