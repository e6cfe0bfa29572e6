"""The tag that gives a run its `as_of`, and the lock that shows that the run's process is alive."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime

import dagster as dg
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

from upnext.clock import utc_now
from upnext.errors import UpnextError, without_values
from upnext.switches import Started
from upnext.ticks.instants import parse_instant
from upnext.warehouse.locks import exclusive

AS_OF_TAG = "upnext/as_of"
DID_TAG = "upnext/did"
MOST_SAID = 250
TICK_JOB = "tick"
DISPATCH_JOB = "dispatch"
ANALYSIS_JOB = "analysis"
REBUILD_JOB = "rebuild"
PRUNE_JOB = "prune"
LIVE_JOB = "live"


def as_of_tags(as_of: datetime) -> dict[str, str]:
    """Return the tags of a run at `as_of`."""
    return {AS_OF_TAG: as_of.isoformat()}


def asked_as_of(tags: Mapping[str, str]) -> datetime:
    """Return the `as_of` requested for a run; a run launched by hand computes at the time it starts."""
    return parse_instant(tags[AS_OF_TAG], option=AS_OF_TAG) if AS_OF_TAG in tags else utc_now()


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """Let a step fail with the line that the command line prints, not with a stack trace."""
    try:
        yield
    except UpnextError as error:
        raise dg.Failure(f"{error}") from None
    except DBAPIError as error:
        raise dg.Failure(f"the database: {without_values(str(error.orig))}") from None


@contextmanager
def at_work(engine: Engine, run_id: str) -> Iterator[None]:
    """Hold the lock of a run as long as its process is alive."""
    with exclusive(engine, f"run {run_id}"):
        yield


def say(context: dg.AssetExecutionContext, did: str) -> None:
    """Tag the run with what it did, so that a list of runs says it. No name of a user may be in it."""
    tags = getattr(context.instance.get_run_by_id(context.run.run_id), "tags", {})
    said = "; ".join(filter(None, (tags.get(DID_TAG), did)))
    context.instance.add_run_tags(context.run.run_id, {DID_TAG: said[:MOST_SAID]})


def at_work_in_words(kind: str, name: str, at_work: Mapping[str, Started]) -> str:
    """Return when a journey or an experience was started, and by which user; or how to start it."""
    if name not in at_work:
        return f"not started; `upnext {kind} start {name}` starts it"
    return f"since {at_work[name].since:%Y-%m-%d %H:%M} UTC, started by {at_work[name].by}"
