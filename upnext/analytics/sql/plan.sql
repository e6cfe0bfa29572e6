-- What is known before an experiment starts.

-- name: entrants_of_segment
-- Members now; those who entered in the four weeks before `until`, each once; and how many of them reached the goal.
with since as (
    select greatest(
        cast(:until as timestamptz) - interval '28 days',
        (select min(as_of) from segments.published_ticks)
    ) as at
),

entrants as (
    select changes.user_id, min(changes.as_of) as entered_at
    from segments.published_changes as changes
    where
        changes.segment = :segment
        and changes.change = 'entered'
        and changes.as_of > (select at from since)
        and changes.as_of <= :until
    group by changes.user_id
)

select
    (select count(*) from segments.members where segment = :segment) as members,
    count(*) as entrants,
    extract(epoch from cast(:until as timestamptz) - (select at from since)) / 86400 as days,
    count(goal.event) as converted
from entrants
left join lateral journeys.goal_reached(
    entrants.user_id, null, cast(:goal as jsonb), entrants.entered_at, :as_of
) as goal on true;

-- name: entrants_by_event
with since as (
    select greatest(
        cast(:until as timestamptz) - interval '28 days',
        (select min(occurred_at) from raw.events)
    ) as at
),

entrants as (
    select events.user_id, min(events.occurred_at) as entered_at
    from events.user_events as events
    where
        events.event = any(:events)
        and upnext.is_asked_for(events.properties, events.context, cast(:entry as jsonb), null)
        and events.occurred_at > (select at from since)
        and events.occurred_at <= :until
    group by events.user_id
)

select
    cast(0 as bigint) as members,
    count(*) as entrants,
    extract(epoch from cast(:until as timestamptz) - (select at from since)) / 86400 as days,
    count(goal.event) as converted
from entrants
left join lateral journeys.goal_reached(
    entrants.user_id, null, cast(:goal as jsonb), entrants.entered_at, :as_of
) as goal on true;
