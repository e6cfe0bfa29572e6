"""How all stands, and what would happen; nothing is changed."""

import re
from typing import Any

from sqlalchemy.exc import DBAPIError

from upnext import dbt
from upnext.clock import utc_now
from upnext.declarations import read_text
from upnext.errors import UpnextError, without_values
from upnext.journeys.dispatch import Preview as JourneyPreview
from upnext.journeys.dispatch import preview as preview_dispatch
from upnext.journeys.explain import Line, explain
from upnext.operations.known import declared_journey, newest_tick
from upnext.project import Project
from upnext.segments.declared import anonymous_segments, find_segment
from upnext.segments.lists import BORROWED, borrow_lists
from upnext.segments.membership import Preview, preview
from upnext.segments.template import read
from upnext.status import read_status


def status(project: Project) -> dict[str, Any]:
    """Return the state of the warehouse."""
    return read_status(
        project.engine,
        segments=project.segments,
        experiments={*project.journeys, *project.experiences},
        now=utc_now(),
    )


def preview_segment(project: Project, path_or_name: str, *, with_ids: bool) -> Preview:
    """Run a segment without touching anything. Raises `UpnextError` with the file for what cannot be run."""
    file = find_segment(project.segment_files, path_or_name)
    features = project.features
    project.check_segments({**project.segment_files, file.stem: file})
    newest_tick(project, then="preview again")
    text = read_text(file)
    lists = {name: project.lists[name] for name, _ in read(text).lists}
    sql = project.dbt.compile(text, {"previewed": file.stem, **({"lists": BORROWED} if lists else {})})
    with project.engine.connect() as connection:
        if lists:
            borrow_lists(connection.execution_options(postgresql_readonly=False), lists)
        connection.execution_options(postgresql_readonly=True)
        try:
            includes_anonymous = bool(anonymous_segments({file.stem: file}))
            return preview(connection, file.stem, sql, with_ids=with_ids, includes_anonymous=includes_anonymous)
        except DBAPIError as error:
            message = without_values(str(error.orig).strip().splitlines()[0])
            file_line = f"{file}{_line_in(sql, error)}"
            known = {name for table in features.values() for name in table}
            missing = re.search(r'column "?(?:\w+\.)?(\w+)"? does not exist', message)
            if missing is not None and missing[1] in known:
                raise UpnextError(
                    f"{file_line}: the feature '{missing[1]}' is new: it comes with the next tick"
                ) from None
            raise UpnextError(f"{file_line}: {dbt.with_nearest(message, columns=known)}") from None
        except ValueError as error:
            raise UpnextError(f"{file}: {error}") from None


def _line_in(sql: str, error: DBAPIError) -> str:
    """Return the line of a SELECT that the server complains of, as `:3`; nothing where it tells no place."""
    place = getattr(getattr(error.orig, "diag", None), "statement_position", None)
    # As it was sent: a percent sign is doubled for the driver alone.
    sent = (error.statement or "").replace("%%", "%")
    begun = sent.find(sql)
    return "" if place is None or begun < 0 else f":{sent.count(chr(10), begun, int(place) - 1) + 1}"


def preview_journey(project: Project, name: str) -> JourneyPreview:
    """Return what the next dispatch would do in a journey, were it started; nothing is changed and nothing is sent."""
    journey = declared_journey(project, name)
    as_of = newest_tick(project, then="preview again")
    at_work = {**project.journeys_at_work, name: journey}
    return preview_dispatch(project.engine, project.policy, at_work, name, as_of=as_of)


def explain_journey(project: Project, name: str, user_id: str) -> list[Line]:
    """Return the history of a user in a journey, in words."""
    with project.engine.connect() as connection:
        journey = declared_journey(project, name)
        as_of = newest_tick(project, then="explain again")
        return explain(connection, project.policy, name, journey, user_id, as_of=as_of)
