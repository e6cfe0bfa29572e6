"""What a journey is: its YAML, checked. Pure."""

import hashlib
from typing import Annotated, Any, Literal

import msgspec

from orchestration.declarations import Declaration, Duration, Name, Share

RESERVED = frozenset({"definitions", "entries", "messages", "suppressions"})


class Goal(Declaration, frozen=True):
    """What the journey is for: any of these events, within a time after entry. Reaching it ends the journey."""

    any_of: Annotated[list[str], msgspec.Meta(min_length=1)]
    within: Duration


class Email(Declaration, frozen=True, tag_field="channel", tag="email"):
    """A step that sends an email; `template` names `templates/<template>.txt` and `.html`."""

    name: Name
    after: Duration
    subject: str
    template: Name


class Cta(Declaration, frozen=True, tag_field="channel", tag="cta"):
    """A step that puts an offer before the user, in a slot, for a time."""

    name: Name
    after: Duration
    surface: Literal["web", "in_app"]
    slot: Name
    copy: str
    url: str
    lasts: Duration


class Journey(Declaration, frozen=True):
    """One file of `assets/journeys/*.yml`; the file's name is the journey's."""

    description: str
    owner: str
    segment: Name
    existing_members: Literal["enroll", "ignore"]
    reentry: Literal["never", "always"]
    exit_on_leaving: bool
    goal: Goal
    holdout: Share
    steps: Annotated[list[Email | Cta], msgspec.Meta(min_length=1)]

    def __post_init__(self) -> None:
        names = [step.name for step in self.steps]
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise ValueError(f"two steps are called '{min(repeated)}'")
        offsets = [hours(step.after) for step in self.steps]
        if offsets != sorted(offsets):
            raise ValueError("steps stand in the order of their offsets")


def hours(duration: str) -> float:
    """Return a declared duration in hours."""
    number, unit = duration.split()
    return int(number) * {"minute": 1 / 60, "hour": 1, "day": 24}[unit.removesuffix("s")]


def as_json(journey: Journey) -> dict[str, Any]:
    """Return the definition as plain JSON values, as SQL reads it."""
    value: dict[str, Any] = msgspec.to_builtins(journey)
    return value


def version(journey: Journey) -> str:
    """Return the version of a definition: the same content has the same version."""
    return hashlib.sha256(msgspec.json.encode(as_json(journey), order="sorted")).hexdigest()[:12]
