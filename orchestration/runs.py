"""What a run is told: the instant it computes at, as a tag."""

from collections.abc import Mapping
from datetime import datetime

from orchestration.stages import utc_now
from orchestration.ticks import parse_instant

AS_OF_TAG = "upnext/as_of"
TICK_JOB = "tick"
DISPATCH_JOB = "dispatch"
ANALYSIS_JOB = "analysis"
REBUILD_JOB = "rebuild"


def as_of_tags(as_of: datetime) -> dict[str, str]:
    """Return the tags of a run at `as_of`."""
    return {AS_OF_TAG: as_of.isoformat()}


def asked_as_of(tags: Mapping[str, str]) -> datetime:
    """Return the instant that a run was asked for; a run launched by hand computes at the time it starts."""
    return parse_instant(tags[AS_OF_TAG], option=AS_OF_TAG) if AS_OF_TAG in tags else utc_now()
