"""The definition of a journey: its YAML, checked. Pure."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec

from upnext.conditions import Conditions, Path, check_conditions
from upnext.declarations import Date, Declaration, Link, Name, Percent, Share
from upnext.durations import Duration
from upnext.wording import worded

END = "end"
EARLIEST_CLOCK = timedelta(hours=14)
"""How far ahead of UTC the clocks of the east are."""
DAYS: tuple["Day", ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

Clock = Annotated[str, worded(r"^([01]\d|2[0-3]):[0-5]\d$", 'a time of day in quotes, such as "08:30"')]
"""A time of day such as `08:30`, by the user's own clock."""

Events = Annotated[list[str], msgspec.Meta(min_length=1)]
Late = Literal["send", "skip", "shift"]
OutOfHours = Literal["shift", "skip"]
"""What becomes of a message that is due at an hour that is not allowed: it goes at the next, or never."""


class Heard(Declaration, frozen=True, kw_only=True):
    """Any of these events, whose properties and context meet conditions."""

    any_of: Events | None = None
    where: Conditions | None = None
    context: Conditions | None = None

    def __post_init__(self) -> None:
        check_conditions(self.where, may_be_relative=False)
        check_conditions(self.context, "context", may_be_relative=False)
        if self.any_of is None and (self.where is not None or self.context is not None):
            raise ValueError("where and context go with any_of")


class Question(Heard, frozen=True, kw_only=True):
    """What is asked about a user; all that is given must hold.

    Events, and messages that were `opened` or `clicked` (the name of their step), count since entry. `segment` has the
    user as a member, and `user` (traits), `features` and `event` (properties of the event that let the user in) meet
    conditions, as of the newest tick.
    """

    opened: Name | None = None
    clicked: Name | None = None
    segment: Name | None = None
    user: Conditions | None = None
    features: Conditions | None = None
    event: Conditions | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("user", "features", "event"):
            check_conditions(getattr(self, name), name, may_be_relative=False)
        if len([value for value in (self.any_of, self.opened, self.clicked) if value is not None]) > 1:
            raise ValueError("asks for more than one of any_of, opened, clicked")

    @property
    def asked(self) -> list[str]:
        """The kinds of what it asks for."""
        kinds = ("any_of", "opened", "clicked", "segment", "user", "features", "event")
        return [name for name in kinds if getattr(self, name) is not None]

    @property
    def events(self) -> list[str]:
        """The events that can answer."""
        reactions = [f"message {name}" for name in ("opened", "clicked") if getattr(self, name) is not None]
        return [*(self.any_of or []), *reactions]

    @property
    def of_step(self) -> str | None:
        """The step whose message has to be opened or clicked."""
        return self.opened or self.clicked


class Audience(Declaration, frozen=True, kw_only=True):
    """Who may enter: members of a segment, users whose traits or features meet conditions; all that is given."""

    segment: Name | None = None
    user: Conditions | None = None
    features: Conditions | None = None

    def __post_init__(self) -> None:
        for name in ("user", "features"):
            check_conditions(getattr(self, name), name, may_be_relative=False)
        if self.segment is None and self.user is None and self.features is None:
            raise ValueError("an audience names a segment, or conditions on user or features")


LocalTime = Annotated[str, worded(r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}$", 'a local time in quotes, "2026-04-05 09:00"')]
"""A date and a time by the user's own clock."""

Instant = Annotated[
    str,
    worded(
        r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2})?( ?(Z|[+-]\d{2}:\d{2}))?$",
        'a time in quotes: "2026-04-05 09:00" by each user\'s own clock, or with a zone, "2026-04-05 09:00Z"',
    ),
]

FileName = Annotated[str, worded(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", "the name of a file such as terms.pdf")]
Rate = Annotated[str, worded(r"^[1-9][0-9]{0,6} per (minute|hour|day)$", "a rate such as 5000 per hour")]


class PauseWhen(Declaration, frozen=True, kw_only=True):
    """Shares of the messages of a journey that pause it; `of_at_least` so many messages."""

    failed: Percent | None = None
    bounced: Percent | None = None
    complained: Percent | None = None
    of_at_least: Annotated[int, msgspec.Meta(gt=0)] = 100

    def __post_init__(self) -> None:
        if self.failed is None and self.bounced is None and self.complained is None:
            raise ValueError("pause_when names none of failed, bounced, complained")


class Entry(Heard, frozen=True):
    """A user enters on any of these events, under conditions. `example` are properties to check the copy with."""

    any_of: Events
    example: dict[str, Any] = {}


class Goal(Heard, frozen=True, kw_only=True):
    """What the journey is for, within a time after entry: an event, membership of a segment, or a feature.

    Reaching it ends the journey, unless `then` is `continue`.
    """

    segment: Name | None = None
    features: Conditions | None = None
    within: Duration
    then: Literal["exit", "continue"] = "exit"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_conditions(self.features, "features", may_be_relative=False)
        if len([value for value in (self.any_of, self.segment, self.features) if value is not None]) != 1:
            raise ValueError("a goal is one of any_of, segment, features")


class Exit(Question, frozen=True, kw_only=True):
    """What ends the journey beside its goal; `reason` is recorded."""

    reason: str | None = None


class Reentry(Declaration, frozen=True):
    """A user may enter again so long after the last entry."""

    after: Duration


class Hours(Declaration, frozen=True):
    """A part of each day by the user's own clock; it may go over midnight. `days` are those on which it begins."""

    start: Clock = msgspec.field(name="from")
    end: Clock = msgspec.field(name="to")


class SendWindow(Hours, frozen=True, kw_only=True):
    """When messages may be sent: a part of these days."""

    days: Annotated[list[Day], msgspec.Meta(min_length=1)] = msgspec.field(default_factory=lambda: list(DAYS))


class Variant(Declaration, frozen=True, kw_only=True):
    """Copy in place of the step's own, for `weight` per cent of the users."""

    weight: Annotated[int, msgspec.Meta(gt=0, le=100)]


Text = str | dict[str, str]
"""A text, or one for each language (`de`, `pt-br`), with the one for all others as `default`."""


class EmailVariant(Variant, frozen=True, kw_only=True):
    """Another subject, another preheader, or another template."""

    subject: Text | None = None
    preheader: Text | None = None
    template: Name | None = None


class CtaVariant(Variant, frozen=True, kw_only=True):
    """Another text, or another link."""

    copy: str | None = None
    url: Link | None = None


class Step(Declaration, frozen=True, kw_only=True):
    """A step of a journey; without a target, it leads to the step after it in the file."""

    name: Name


class OneWay(Step, frozen=True, kw_only=True):
    """A step with one way on."""

    next: Name | None = None


class Message(OneWay, frozen=True, kw_only=True):
    """A step that reaches out: so long after entry (`after`), or after the step was reached (`wait`)."""

    after: Duration | None = None
    wait: Duration | None = None
    late: Late | None = None


class Sent(Message, frozen=True, kw_only=True):
    """A message that is sent. Hours, topic and whether it is transactional are the step's, or else the journey's."""

    send_window: SendWindow | None = None
    quiet_hours: Hours | None = None
    at_any_hour: bool = False
    out_of_hours: OutOfHours | None = None
    topic: Name | None = None
    transactional: bool | None = None


class Email(Sent, frozen=True, kw_only=True, tag_field="do", tag="email"):
    """A step that sends an email; `template` names `templates/<template>.txt` and `.mjml`."""

    subject: Text
    preheader: Text | None = None
    template: Name
    variants: dict[Name, EmailVariant] = {}
    sender: str | None = msgspec.field(name="from", default=None)
    reply_to: str | None = None
    cc: list[str] = []
    attachments: list[FileName] = []


class Cta(Message, frozen=True, kw_only=True, tag_field="do", tag="cta"):
    """A step that puts an offer before the user, in a slot, for a time."""

    surface: Literal["web", "in_app"]
    slot: Name
    copy: Annotated[str, msgspec.Meta(min_length=1)]
    url: Link
    lasts: Duration
    variants: dict[Name, CtaVariant] = {}


class Webhook(Sent, frozen=True, kw_only=True, tag_field="do", tag="webhook"):
    """A step that calls an endpoint of the policy; `data` are templates, rendered to texts."""

    endpoint: Name
    data: dict[str, str] = {}


class Identify(OneWay, frozen=True, kw_only=True, tag_field="do", tag="identify"):
    """A step that sets traits of the user, with an event of type identify; `traits` are values or templates."""

    traits: Annotated[dict[str, Any], msgspec.Meta(min_length=1)]


class Track(OneWay, frozen=True, kw_only=True, tag_field="do", tag="track"):
    """A step that emits an event of the catalogue for the user; `properties` are values or templates."""

    event: str
    properties: dict[str, Any] = {}


class StartJourney(OneWay, frozen=True, kw_only=True, tag_field="do", tag="start"):
    """A step that lets the user into another journey, by that journey's own rules."""

    journey: Name


class Quit(Step, frozen=True, kw_only=True, tag_field="do", tag="exit"):
    """A step that ends the journey: the entry is `left`, with a reason."""

    reason: str | None = None


class Until(Declaration, frozen=True, kw_only=True):
    """An instant by the user's clock: a date, with an offset, or a weekday and a time."""

    user: Path | None = None
    event: Path | None = None
    feature: Name | None = None
    date: LocalTime | None = None
    before: Duration | None = None
    after: Duration | None = None
    days: Annotated[list[Day], msgspec.Meta(min_length=1)] | None = None
    at: Clock | None = None

    def __post_init__(self) -> None:
        dates = [value for value in (self.user, self.event, self.feature, self.date) if value is not None]
        if len(dates) > 1:
            raise ValueError("until names one of user, event, feature, date")
        _check_time(self.date, "date")
        if dates and (self.days is not None or self.at is not None):
            raise ValueError("until is a date (user, event, feature, date) or a time (days, at), not both")
        if not dates and self.at is None:
            raise ValueError("until names a date (user, event, feature, date), or the time `at` which, such as '09:00'")
        if self.before is not None and self.after is not None:
            raise ValueError("until is so long before a date or after it, not both")
        if not dates and (self.before is not None or self.after is not None):
            raise ValueError("before and after go with a date (user, event, feature)")

    @property
    def is_date(self) -> bool:
        """Whether it is a date that a user may lack, or that may have passed."""
        return self.at is None


class Delay(Step, frozen=True, kw_only=True, tag_field="do", tag="delay"):
    """A step that lasts `for` a time, or `until` an instant; `otherwise` without the date, or where it has passed."""

    then: Name | None = None
    otherwise: Name | None = None
    length: Duration | None = msgspec.field(name="for", default=None)
    until: Until | None = None


class Asked(Question, frozen=True, kw_only=True):
    """A step that asks a question: it goes on by `then`, or else by `otherwise`."""

    name: Name
    then: Name | None = None
    otherwise: Name | None = None


class Wait(Asked, frozen=True, kw_only=True, tag_field="do", tag="wait"):
    """A step that waits for the answer to a question, at most `within`."""

    within: Duration


class Arm(Question, frozen=True, kw_only=True):
    """A way of a branch, and what is asked of those who take it."""

    then: Name


class Branch(Asked, frozen=True, kw_only=True, tag_field="do", tag="branch"):
    """A step that chooses the next step: the first of `arms` whose question is answered, or its own question.

    `feature` with one of `equals`, `at_least`, `at_most` is short for `features`.
    """

    arms: Annotated[list[Arm], msgspec.Meta(min_length=1)] | None = None
    feature: Name | None = None
    equals: bool | int | float | str | None = None
    at_least: float | None = None
    at_most: float | None = None


class Part(Declaration, frozen=True, kw_only=True):
    """A way of a split, for `weight` per cent of the users."""

    weight: Annotated[int, msgspec.Meta(gt=0, le=100)]
    then: Name


class Split(Step, frozen=True, kw_only=True, tag_field="do", tag="split"):
    """A step that sends users on different ways, drawn by a hash: a user always takes the same one."""

    arms: dict[Name, Part]


AnyStep = Email | Cta | Webhook | Identify | Track | StartJourney | Quit | Delay | Wait | Branch | Split


class Journey(Declaration, frozen=True, kw_only=True):
    """One file of `campaigns/journeys/*.yml`; the file's name is the journey's."""

    description: str
    owner: str
    segment: Name | None = None
    event: Entry | None = None
    audience: Audience | None = None
    """Who of those who enter by the segment, the event or another journey may."""
    keyed_by: Path | None = None
    """The property of the event that tells runs apart: a user has one run for each value, several at once."""
    existing_members: Literal["enroll", "ignore"] | None = None
    reentry: Literal["never", "always"] | Reentry
    exit_on_leaving: bool = False
    goal: Goal
    exits: list[Exit] = []
    holdout: Share
    minimum_lift: Annotated[float, msgspec.Meta(gt=0, le=10)] | None = None
    """The least lift of the goal that is worth having; a tenth by default."""
    exclusive_group: Name | None = None
    priority: int = 0
    takes_over: bool = False
    send_window: SendWindow | None = None
    quiet_hours: Hours | None = None
    out_of_hours: OutOfHours | None = None
    late: Late = "skip"
    sender: str | None = msgspec.field(name="from", default=None)
    reply_to: str | None = None
    """Who sends its mails, and who gets the answers; a step can have its own."""
    topic: Name | None = None
    """The topic of its messages, for which users can unsubscribe apart."""
    state: Literal["live", "draft", "archived"] = "live"
    """A draft and an archived journey are checked, but cannot be started."""
    starts_on: Date | None = None
    ends_on: Date | None = None
    """The first day on which users enter, and the first on which they no longer do."""
    rate: Rate | None = None
    pause_when: PauseWhen | None = None
    transactional: bool = False
    """Its messages go first, also to those who unsubscribed, at any hour and beyond the cap."""
    steps: Annotated[list[AnyStep], msgspec.Meta(min_length=1)]

    def __post_init__(self) -> None:
        _check_time(self.starts_on, "starts_on")
        _check_time(self.ends_on, "ends_on")


class Broadcast(Journey, frozen=True, kw_only=True):
    """One file of `campaigns/broadcasts/*.yml`: a journey that the members of a segment enter once, at a time."""

    at: Instant
    segment: Name
    existing_members: Literal["enroll"] = "enroll"
    reentry: Literal["never"] = "never"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_time(self.at, "at")

    @property
    def is_local(self) -> bool:
        """Whether it goes out by each user's own clock."""
        return datetime.fromisoformat(self.at).tzinfo is None

    @property
    def begins_at(self) -> datetime:
        """The instant at which users enter: by local clocks, when the time has come for the first of them."""
        at = datetime.fromisoformat(self.at)
        return at if at.tzinfo is not None else at.replace(tzinfo=UTC) - EARLIEST_CLOCK


def _check_time(time: str | None, key: str) -> None:
    """Raise `ValueError` for a time that no calendar has, with its place as msgspec tells places."""
    try:
        datetime.fromisoformat(time or "2026-01-01")
    except ValueError:
        raise ValueError(f"'{time}' is no time, such as 2026-04-05 09:00 - at `$.{key}`") from None


def as_json(journey: Journey) -> dict[str, Any]:
    """Return the definition as plain JSON values, as SQL reads it."""
    value: dict[str, Any] = msgspec.to_builtins(journey)
    return value


def version(journey: Journey) -> str:
    """Return the version of a definition: the same content has the same version."""
    return hashlib.sha256(msgspec.json.encode(_said(as_json(journey)), order="sorted")).hexdigest()[:12]


def _said(value: Any) -> Any:
    """Return a value without what it leaves open, so that a key that a release adds changes no version."""
    if isinstance(value, dict):
        return {key: _said(one) for key, one in value.items() if one not in (None, False, [], {})}
    return [_said(one) for one in value] if isinstance(value, list) else value
