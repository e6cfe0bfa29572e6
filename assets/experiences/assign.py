"""Assigning members to the arms of their segment's experiences, by hash, once, for good; and what each then sees."""

from dataclasses import dataclass
from datetime import datetime

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from assets.experiences.definition import Experience, as_json
from orchestration.ticks import MERGED_SINCE, consumed, newest_published, record_consumed

CONSUMER = "experiences"

_RECORD = sa.text("""
    with changed as (
        insert into experiences.shares (experience, since, weights)
        select
            :experience,
            case when exists (select from experiences.shares where experience = :experience)
                then cast(:as_of as timestamptz) else '-infinity' end,
            cast(:definition as jsonb) -> 'weights'
        where cast(:definition as jsonb) -> 'weights' is distinct from (
            select weights from experiences.shares
            where experience = :experience and since <= :as_of
            order by since desc
            limit 1
        )
        on conflict (experience, since) do update set weights = excluded.weights
    )

    insert into experiences.definitions (experience, definition) values (:experience, cast(:definition as jsonb))
    on conflict (experience) do update set definition = excluded.definition
    where experiences.definitions.definition is distinct from excluded.definition
""")

_FORGET = sa.text("delete from experiences.definitions where experience <> all(:experiences)")

# By a merge the earliest assignment of a person stands; who was in two arms is told from others.
_MERGE = sa.text(f"""
    with merged as ({MERGED_SINCE}),

    assigned as (
        select assignments.experience, merged.user_id, assignments.variant, assignments.assigned_at
        from merged
        inner join experiences.assignments on assignments.user_id = merged.absorbed
        union all
        select experience, user_id, variant, assigned_at
        from experiences.assignments
        where user_id in (select user_id from merged)
    )

    insert into experiences.assignments (experience, user_id, variant, assigned_at, is_in_both_arms)
    select
        experience,
        user_id,
        (array_agg(variant order by assigned_at, variant)) [1],
        min(assigned_at),
        count(distinct variant) > 1
    from assigned
    group by experience, user_id
    on conflict (experience, user_id) do update
    set
        variant = excluded.variant,
        assigned_at = excluded.assigned_at,
        is_in_both_arms = experiences.assignments.is_in_both_arms or excluded.is_in_both_arms
""")  # noqa: S608 - made of a constant

_ASSIGN = sa.text("""
    insert into experiences.assignments (experience, user_id, variant, assigned_at)
    select definitions.experience, members.user_id, arms.variant, :as_of
    from experiences.definitions
    inner join segments.current_members as members on members.segment = definitions.definition ->> 'segment'
    inner join lateral jsonb_to_recordset(definitions.definition -> 'ranges')
        as arms (variant text, low double precision, high double precision)
        on upnext.bucket('experience:' || definitions.experience, members.user_id) >= arms.low
        and upnext.bucket('experience:' || definitions.experience, members.user_id) < arms.high
    where
        coalesce(:as_of >= cast(definitions.definition ->> 'starts_at' as timestamptz), true)
        and coalesce(:as_of < cast(definitions.definition ->> 'ends_at' as timestamptz), true)
        and not exists (
            select from experiences.assignments
            where assignments.experience = definitions.experience and assignments.user_id = members.user_id
        )
    on conflict (experience, user_id) do nothing
""")

# Equal rows are left alone, so that a dispatch writes what has changed.
_SHOW = sa.text("""
    with chosen as materialized (select * from experiences.chosen_ctas),

    gone as (
        delete from experiences.live_ctas as live
        where not exists (
            select from chosen
            where chosen.user_id = live.user_id and chosen.surface = live.surface and chosen.slot = live.slot
        )
        returning 1
    ),

    written as (
        insert into experiences.live_ctas as live
        select * from chosen
        on conflict (user_id, surface, slot) do update
        set
            source = excluded.source,
            source_kind = excluded.source_kind,
            variant = excluded.variant,
            copy = excluded.copy,
            url = excluded.url,
            starts_at = excluded.starts_at,
            ends_at = excluded.ends_at,
            trigger = excluded.trigger
        where live is distinct from excluded
        returning 1
    )

    select
        (select count(*) from chosen) as live,
        (select count(*) from gone) + (select count(*) from written) as changed
""")


def assign(engine: Engine, experiences: dict[str, Experience], *, as_of: datetime) -> int:
    """Give each current member a variant of each experience of the segment, and return how many were new."""
    rows = [
        {"experience": name, "as_of": as_of, "definition": msgspec.json.encode(as_json(experience)).decode()}
        for name, experience in experiences.items()
    ]
    with engine.begin() as connection:
        if rows:
            connection.execute(_RECORD, rows)
        connection.execute(_FORGET, {"experiences": list(experiences)})
        published_tick = newest_published(connection)
        since = consumed(connection, CONSUMER)
        if published_tick:
            connection.execute(_MERGE, {"consumed_tick": since.tick_id if since is not None else 0})
        assigned = connection.execute(_ASSIGN, {"as_of": as_of}).rowcount
        record_consumed(connection, CONSUMER, published_tick, as_of)
    return assigned


@dataclass(frozen=True)
class Shown:
    """How many calls to action are live, and how many rows it took to make them so."""

    live: int
    changed: int


def show(engine: Engine) -> Shown:
    """Bring `experiences.live_ctas` up to the newest published tick."""
    with engine.begin() as connection:
        # Two at once would each put back what the other takes away.
        connection.execute(sa.text("select pg_advisory_xact_lock(hashtextextended('upnext:live_ctas', 0))"))
        row = connection.execute(_SHOW).one()
    return Shown(row.live, row.changed)
