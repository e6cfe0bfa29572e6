"""Assigning members to the arms of their segment's experiences: by hash, once, for good."""

from datetime import datetime
from pathlib import Path

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from assets.experiences.definition import Experience, as_json
from orchestration.declarations import line_of, load_folder
from orchestration.errors import UpnextError, nearest
from orchestration.ticks import newest_published, record_consumed

CONSUMER = "experiences"
EXPERIENCES = Path(__file__).parent

_RECORD = sa.text("""
    insert into experiences.definitions (experience, definition) values (:experience, cast(:definition as jsonb))
    on conflict (experience) do update set definition = excluded.definition
    where experiences.definitions.definition is distinct from excluded.definition
""")

_FORGET = sa.text("delete from experiences.definitions where experience <> all(:experiences)")

_ASSIGN = sa.text("""
    insert into experiences.assignments (experience, user_id, variant, assigned_at)
    select definitions.experience, members.user_id, arms.variant, :as_of
    from experiences.definitions
    inner join segments.current_members as members on members.segment = definitions.definition ->> 'segment'
    inner join lateral jsonb_to_recordset(definitions.definition -> 'ranges')
        as arms (variant text, low double precision, high double precision)
        on upnext.bucket('experience:' || definitions.experience, members.user_id) >= arms.low
        and upnext.bucket('experience:' || definitions.experience, members.user_id) < arms.high
    where not exists (
        select from experiences.assignments
        where assignments.experience = definitions.experience and assignments.user_id = members.user_id
    )
    on conflict (experience, user_id) do nothing
""")


def load_experiences(segments: set[str], folder: Path = EXPERIENCES) -> dict[str, Experience]:
    """Return the declared experiences by name. Raises `UpnextError` for an unknown segment."""
    experiences = load_folder(folder, Experience)
    for name, experience in experiences.items():
        if experience.segment not in segments:
            path = folder / f"{name}.yml"
            hint = nearest(experience.segment, segments)
            raise UpnextError(f"{path}:{line_of(path, ['segment'])}: unknown segment '{experience.segment}'{hint}")
    return experiences


def assign(engine: Engine, experiences: dict[str, Experience], *, as_of: datetime) -> int:
    """Give each current member a variant of each experience of the segment, and return how many were new."""
    rows = [
        {"experience": name, "definition": msgspec.json.encode(as_json(experience)).decode()}
        for name, experience in experiences.items()
    ]
    with engine.begin() as connection:
        if rows:
            connection.execute(_RECORD, rows)
        connection.execute(_FORGET, {"experiences": list(experiences)})
        published_tick = newest_published(connection)
        assigned = connection.execute(_ASSIGN, {"as_of": as_of}).rowcount
        record_consumed(connection, CONSUMER, published_tick, as_of)
    return assigned
