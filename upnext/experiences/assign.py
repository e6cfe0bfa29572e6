"""Assigning members to the arms of their segment's experiences, by hash, once, for good; and what each then sees."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from upnext.experiences.definition import Experience, as_json
from upnext.ticks.lifecycle import newest_published
from upnext.ticks.offsets import changed_states, consumed, record_consumed

CONSUMER = "experiences"
_SHOWN = "experiences.live_ctas"

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
_MERGE = sa.text("""
    with merged as (select absorbed, user_id from segments.merges_since(:consumed_tick)),

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
""")

_STATES = """
    select
        experience as name,
        case
            when experiences.is_running(definition, :as_of) then md5(cast(definition as text))
            else 'does not run'
        end as hash
    from experiences.definitions
"""

_ASSIGN = sa.text("""
    with running as (
        select experience, definition ->> 'segment' as segment, definition -> 'ranges' as ranges
        from experiences.definitions
        where experiences.is_running(definition, :as_of)
    ),

    candidates as (
        select running.experience, members.user_id
        from running
        inner join segments.current_members as members on members.segment = running.segment
        where running.experience = any(:changed)
        union all
        select running.experience, members.user_id
        from segments.published_changes as changes
        inner join segments.current_members as members
            on members.segment = changes.segment and members.user_id = changes.user_id
        inner join running on running.segment = members.segment
        where changes.tick_id > :consumed_tick and running.experience <> all(:changed)
    )

    insert into experiences.assignments (experience, user_id, variant, assigned_at)
    select candidates.experience, candidates.user_id, arms.variant, :as_of
    from candidates
    inner join running on running.experience = candidates.experience
    inner join lateral jsonb_to_recordset(running.ranges)
        as arms (variant text, low double precision, high double precision)
        on upnext.bucket('experience:' || candidates.experience, candidates.user_id) >= arms.low
        and upnext.bucket('experience:' || candidates.experience, candidates.user_id) < arms.high
    where
        not exists (
            select from experiences.assignments
            where assignments.experience = candidates.experience and assignments.user_id = candidates.user_id
        )
    on conflict (experience, user_id) do nothing
""")

# Only users for whom something has changed are looked at: each by index, which `offset 0` keeps from being one join of
# everybody. Of journeys all open offers are compared: they change by more than membership.
_SHOW = sa.text("""
    with touched as materialized (
        select user_id from segments.published_changes where tick_id > :consumed_tick
        union
        select unnest(array[merged.absorbed, merged.user_id]) from segments.merges_since(:consumed_tick) as merged
        union
        select user_id from experiences.assignments where experience = any(:changed)
        union
        select coalesce(offers.user_id, live.user_id)
        from experiences.journey_offers as offers
        full join (select * from experiences.live_ctas where source_kind = 'journey') as live
            on live.user_id = offers.user_id and live.surface = offers.surface and live.slot = offers.slot
        where
            (offers.source, offers.variant, offers.copy, offers.url, offers.starts_at, offers.ends_at)
            is distinct from (live.source, live.variant, live.copy, live.url, live.starts_at, live.ends_at)
    ),

    chosen as materialized (
        select chosen.*
        from touched
        cross join lateral (
            select * from experiences.chosen_ctas where chosen_ctas.user_id = touched.user_id offset 0
        ) as chosen
    ),

    gone as (
        delete from experiences.live_ctas as live
        using touched
        where live.user_id = touched.user_id and not exists (
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

    select (select count(*) from gone) + (select count(*) from written)
""")


def assign(engine: Engine, experiences: dict[str, Experience], *, started: Collection[str], as_of: datetime) -> int:
    """Give each current member a variant of each experience of the segment, and return how many were new.

    One that was never `started` is not there; of one that was stopped the results stay.
    """
    definitions = {
        name: msgspec.json.encode({**as_json(experience), "is_started": name in started}).decode()
        for name, experience in experiences.items()
    }
    with engine.begin() as connection:
        known = set(connection.scalars(sa.text("select experience from experiences.definitions")))
        rows = [
            {"experience": name, "as_of": as_of, "definition": definition}
            for name, definition in definitions.items()
            if name in started or name in known
        ]
        if rows:
            connection.execute(_RECORD, rows)
        connection.execute(_FORGET, {"experiences": list(experiences)})
        published_tick = newest_published(connection)
        consumed_tick = _consumed_tick(connection, CONSUMER)
        if published_tick:
            connection.execute(_MERGE, {"consumed_tick": consumed_tick})
        changed = _changed(connection, CONSUMER, as_of)
        assigned = connection.execute(
            _ASSIGN, {"as_of": as_of, "changed": changed, "consumed_tick": consumed_tick}
        ).rowcount
        record_consumed(connection, CONSUMER, published_tick, as_of)
    return assigned


def _consumed_tick(connection: Connection, consumer: str) -> int:
    since = consumed(connection, consumer)
    return 0 if since is None else since.tick_id


def _changed(connection: Connection, consumer: str, as_of: datetime) -> list[str]:
    return changed_states(connection, consumer, _STATES, {"as_of": as_of})


@dataclass(frozen=True)
class Shown:
    """How many calls to action are live, and how many rows it took to make them so."""

    live: int
    changed: int


def show(engine: Engine, *, as_of: datetime) -> Shown:
    """Bring `experiences.live_ctas` up to the newest published tick, which is of `as_of`."""
    with engine.begin() as connection:
        # Two at once would each put back what the other takes away.
        connection.execute(sa.text("select pg_advisory_xact_lock(hashtextextended('upnext:live_ctas', 0))"))
        # Whose variant is yet to be drawn is looked at again.
        until = min(newest_published(connection), _consumed_tick(connection, CONSUMER))
        values = {
            "consumed_tick": _consumed_tick(connection, _SHOWN), "changed": _changed(connection, _SHOWN, as_of)
        }  # fmt: skip
        changed = connection.scalar(_SHOW, values)
        live = connection.scalar(sa.text("select count(*) from experiences.live_ctas"))
        record_consumed(connection, _SHOWN, until, as_of)
    return Shown(int(live or 0), int(changed or 0))
