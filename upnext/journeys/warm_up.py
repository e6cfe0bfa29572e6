"""The warm-up of a channel: how many messages it may send on each of its first days. Pure.

Providers of mailboxes distrust a domain that they don't know and that sends much at once. So a sender begins with few
mails and sends more each day.
"""

from datetime import date, datetime, time, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

import msgspec

from upnext.declarations import Date, Declaration
from upnext.wording import worded

ALL = ""
"""The key of the limit on all messages of a channel, beside those on the domains of their recipients."""

Tiers = Annotated[list[Annotated[int, msgspec.Meta(gt=0, le=100_000_000)]], msgspec.Meta(min_length=1)]
Domain = Annotated[str, worded(r"^[a-z0-9-]+(\.[a-z0-9-]+)+$", "a domain in lower case such as gmail.com")]


class WarmUp(Declaration, frozen=True, kw_only=True):
    """The most messages on the first day, the second, and so on; after the last there is no limit.

    `domains` has the tiers of recipients whose addresses are of a domain. Until `starts_on` the first tier holds.
    """

    starts_on: Date
    per_day: Tiers | None = None
    domains: dict[Domain, Tiers] = {}

    def __post_init__(self) -> None:
        if self.per_day is None and not self.domains:
            raise ValueError("per_day is missing, such as per_day: [50, 100, 500]")
        try:
            date.fromisoformat(self.starts_on)
        except ValueError:
            raise ValueError(f"'{self.starts_on}' is no day of the calendar - at `$.starts_on`") from None

    def limits(self, day: date) -> dict[str, int]:
        """Return the most messages of a day by domain, and `ALL`; what has no limit on that day is left out."""
        tiers = {**({ALL: self.per_day} if self.per_day is not None else {}), **self.domains}
        nth = max(0, (day - date.fromisoformat(self.starts_on)).days)
        return {domain: counts[nth] for domain, counts in tiers.items() if nth < len(counts)}


def day_at(instant: datetime, time_zone: str) -> tuple[date, datetime]:
    """Return the day of an instant in a time zone, and when the next one begins."""
    zone = ZoneInfo(time_zone)
    day = instant.astimezone(zone).date()
    return day, datetime.combine(day + timedelta(days=1), time(), zone)


def domain_of(address: str | None) -> str | None:
    """Return the domain of an address, in lower case; None without an address."""
    return address.rpartition("@")[2].lower() if address is not None else None
