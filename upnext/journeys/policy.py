"""The policy for all journeys: the global holdout, the frequency cap, how each channel sends. Pure."""

import re
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

import msgspec

from upnext.conditions import Path
from upnext.declarations import Declaration, Name, Share
from upnext.durations import Duration, Window, seconds
from upnext.errors import nearest
from upnext.journeys.warm_up import WarmUp
from upnext.wording import worded

LEAST_KEPT = "3 months"
Count = Annotated[int, msgspec.Meta(gt=0, le=1_000_000)]


class Cap(Declaration, frozen=True):
    """No user gets more than so many mails, over all journeys, in any such time; `offers` count too where it says so.

    Calls of webhooks do not count: nobody sees them.
    """

    messages: Count
    per: Duration
    offers: bool = False

    @property
    def channels(self) -> list[str]:
        """The channels that it is about."""
        return ["email", "cta"] if self.offers else ["email"]


class Channel(Declaration, frozen=True):
    """How a channel sends: over so many connections, no faster than so many a second (null: as fast as it goes).

    `warm_up` limits its first days.
    """

    connections: Annotated[int, msgspec.Meta(gt=0, le=64)] = 4
    per_second: Count | None = None
    warm_up: WarmUp | None = None
    timeout_seconds: Annotated[float, msgspec.Meta(gt=0, le=110)] = 30


class ProgrammeGoal(Declaration, frozen=True):
    """Any of these events, within a time after the programme first reached the user, or would have."""

    any_of: Annotated[list[str], msgspec.Meta(min_length=1)]
    within: Duration


class Programme(Declaration, frozen=True, kw_only=True):
    """What journeys and experiences are for as a whole, measured against the global holdout.

    `revenue` names the metric that is money; `minimum_lift` is the least lift worth having.
    """

    goal: ProgrammeGoal
    revenue: Name | None = None
    minimum_lift: Annotated[float, msgspec.Meta(gt=0, le=10)] = 0.05


EnvironmentName = Annotated[
    str, worded(r"^UPNEXT_[A-Z0-9_]+$", "the name of an environment variable such as UPNEXT_CRM_SECRET")
]


class Login(Declaration, frozen=True, kw_only=True):
    """The environment variables that hold the user and the password of basic authentication."""

    user: EnvironmentName
    password: EnvironmentName


class Endpoint(Declaration, frozen=True, kw_only=True):
    """Where webhooks go, and how they are written.

    `${UPNEXT_...}` in `url` and `headers` stands for an environment variable. `secret` names the one that signs calls
    by Standard Webhooks. Each text of `body` is a template; a text of one expression keeps the type of its value.
    `keep` are fields of the answer that later steps can read, by their paths.
    """

    url: str
    secret: EnvironmentName | None = None
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    headers: dict[str, str] = {}
    login: Login | None = None
    format: Literal["json", "form"] = "json"
    body: dict[str, Any] | None = None
    keep: dict[Name, Path] = {}

    def __post_init__(self) -> None:
        for name in self.headers:
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,63}", name):
                raise ValueError(f"'{name}' is no name of a header such as Authorization - at `$.headers`")


class Retention(Declaration, frozen=True, kw_only=True):
    """How long raw events, rejected lines, messages and the log of memberships are kept; whole months are deleted.

    Events named in `keep` stay for good: for features that read all of them.
    """

    after: Window
    keep: list[str] = []

    def __post_init__(self) -> None:
        _check_retention(self.after)


def _check_retention(after: str) -> None:
    if seconds(after) < seconds(LEAST_KEPT):
        raise ValueError(f"'{after}' is less than {LEAST_KEPT}, within which results are still computed")


class Landed(Declaration, frozen=True, kw_only=True):
    """When files of the landing folder that were loaded, and have not changed since, are archived and deleted."""

    archive_after: Window | None = None
    delete_after: Window | None = None


class Topic(Declaration, frozen=True, kw_only=True):
    """A kind of marketing that users can choose: `opt_in` goes to those who subscribed, `opt_out` to all others too."""

    description: str
    default: Literal["opt_in", "opt_out"]


class TopicsFile(Declaration, frozen=True):
    """`campaigns/topics.yml`."""

    topics: dict[Name, Topic]


class PolicyFile(Declaration, frozen=True):
    """`campaigns/policy.yml`."""

    global_holdout: Share = 0
    programme: Programme | None = None
    cap: Cap | None = None
    late_after: Duration = "6 hours"
    time_zone_trait: str = "timezone"
    time_zone: str = "UTC"
    """The clock of users for whom no trait names one."""
    retention: Retention | Window | None = None
    """A time alone keeps no event beyond it."""
    landed: Landed = Landed()
    email: Channel = Channel()
    webhook: Channel = Channel(timeout_seconds=15)
    endpoints: dict[Name, Endpoint] = {}
    utm: dict[str, str] = {}
    """Parameters that links get, in which `{journey}`, `{step}` and `{variant}` are replaced."""
    postal_address: str | None = None
    """Where the sender is, which marketing mails have to state."""
    language_trait: str = "language"
    mail_headers: dict[str, str] = {}
    """Headers of every mail, in which `{message_id}` is replaced, such as the metadata of a provider."""

    def __post_init__(self) -> None:
        if self.time_zone not in available_timezones():
            raise ValueError(
                f"time_zone: no zone is called '{self.time_zone}'{nearest(self.time_zone, available_timezones())}"
            )
        if self.webhook.warm_up is not None and self.webhook.warm_up.domains:
            raise ValueError("domains are those of email addresses; a webhook has none - at `$.webhook.warm_up`")
        if isinstance(self.retention, str):
            _check_retention(self.retention)


class Policy(PolicyFile, frozen=True):
    """What holds for all journeys: the policy, and the topics."""

    topics: dict[Name, Topic] = {}

    def channel(self, name: str) -> Channel:
        """Return how a channel sends; events go to the warehouse itself, over one connection."""
        return {"email": self.email, "webhook": self.webhook}.get(name, Channel(connections=1))

    @property
    def kept(self) -> Retention | None:
        """How long raw events are kept, and which of them stay for good; None where all do."""
        return Retention(after=self.retention) if isinstance(self.retention, str) else self.retention

    @property
    def clock(self) -> dict[str, str]:
        """The parameters by which statements find a user's clock."""
        return {"time_zone_trait": self.time_zone_trait, "time_zone": self.time_zone}
