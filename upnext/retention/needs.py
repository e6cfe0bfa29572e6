"""Which features would change if old events were deleted. Pure."""

from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from upnext.durations import seconds
from upnext.events.catalogue import Derived
from upnext.events.event import KEPT_CALLS
from upnext.features.definition import Feature
from upnext.kinds import ANY, names_of


class Need(NamedTuple):
    """A feature that needs events for longer than they are kept, and the names of those events; none: all events."""

    table: str
    feature: str
    events: frozenset[str]


def kept_since(as_of: datetime, retention: str) -> datetime:
    """Return the first instant from which events are kept: the beginning (UTC) of the month of `as_of - retention`.

    >>> kept_since(datetime(2026, 11, 29, tzinfo=UTC), "12 months").isoformat()
    '2025-12-01T00:00:00+00:00'
    """
    at = (as_of - timedelta(seconds=seconds(retention))).astimezone(UTC)
    return at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def needs(
    features: Mapping[str, Mapping[str, Feature]],
    derived: Mapping[str, Derived],
    known: Collection[str],
    *,
    retention: str,
    keep: Collection[str],
) -> Iterator[Need]:
    """Yield the features that read events older than `retention`, but for those of `keep`."""
    for table, columns in features.items():
        for name, feature in columns.items():
            reads = _looks_back(feature)
            if reads is not None and reads <= seconds(retention):
                continue
            events = _events_read(feature, derived, known)
            if events is None:
                yield Need(table, name, frozenset())
            elif events - set(keep):
                yield Need(table, name, frozenset(events - set(keep)))


def _looks_back(feature: Feature) -> int | None:
    """Return how many seconds before `as_of` a feature reads; None where it reads everything."""
    if feature.kind in ("ratio_of", "members_where") or feature.type in KEPT_CALLS or feature.kind == "latest_trait":
        return 0
    if feature.kind in ("resumed", "changed"):
        # What counts within the window is told by the event before it, of whatever age.
        return None
    if feature.of_last is not None:
        number, unit = feature.of_last.split()
        return (int(number) + 1) * seconds(f"1 {unit}")
    if feature.within is None:
        return None
    begun_before = feature.in_ if feature.in_ not in (None, "session") else feature.after
    return seconds(feature.within) + (seconds(begun_before) if begun_before is not None else 0)


def _events_read(feature: Feature, derived: Mapping[str, Derived], known: Collection[str]) -> set[str] | None:
    """Return the names of the events that a feature reads, as they were loaded; None for all, or all of a type."""
    names = names_of(feature.selected, known)
    if ANY in names or feature.type is not None:
        return None
    found: set[str] = set()
    for name in names:
        if name not in derived:
            found.add(name)
            continue
        event, kind = derived[name].event, derived[name].type
        if event is not None:
            found.add(event)
        elif kind not in KEPT_CALLS:
            return None
    return found
