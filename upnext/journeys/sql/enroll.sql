-- Users who enter a journey.

-- name: create_affected_users
create temporary table if not exists affected_users (user_id text primary key) on commit drop;

-- name: forget_affected_users
delete from affected_users;

-- name: find_affected_users
-- Users with an event of the journey that was loaded, or occurred, since the last dispatch, and merged users.
insert into affected_users (user_id)
select user_id from events.user_events
where
    event = any(:events)
    and load_id = any(array(select load_id from raw.loads where tick_id is null or tick_id > :consumed_tick))
union
select user_id from events.user_events
where event = any(:events) and occurred_at > :consumed_as_of and occurred_at <= :as_of
union
select user_id from segments.merged_users where tick_id > :consumed_tick
union
select user_id from segments.published_changes
where segment = any(cast(:followed as text [])) and tick_id > :consumed_tick
union
-- Any user's traits and features may have changed with a tick. The time for the goal may outlast the entry.
select entries.user_id
from journeys.entries
inner join journeys.definitions
    on definitions.journey = entries.journey and definitions.version = entries.version
where
    :follows_users
    and entries.journey = :journey
    and (
        entries.ended_at is null
        or (
            entries.arm is not null
            and entries.goal_reached_at is null
            and entries.entered_at + cast(definitions.definition -> 'goal' ->> 'within' as interval) >= :consumed_as_of
        )
    );

-- name: published_since
select tick_id, as_of from segments.published_ticks
where tick_id > :consumed_tick and tick_id <= :published_tick
order by tick_id;

-- name: enroll
-- Checks eligibility, then the exclusive group, then the holdouts. Open entries of `weaker` journeys end.
with entered as (
    select * from journeys.entering_by_change(:segment, :tick_id, :is_enrolling_members)
    where :entering_by = 'change'
    union all
    select * from journeys.entering_as_member(:segment, :tick_id, :as_of) where :entering_by = 'membership'
    union all
    select * from journeys.entering_by_event(
        :journey, cast(:entry as jsonb), :keyed_by, :consumed_tick, :consumed_as_of, :as_of
    )
    where :entering_by = 'event'
    union all
    select * from journeys.entering_by_start(:journey, :keyed_by) where :entering_by = 'start'
),

eligible as (
    select distinct on (user_id, key) *
    from entered
    where
        (cast(:keyed_by as text) is null or key is not null)
        and entered_at >= coalesce(cast(cast(:starts_on as text) as timestamp) at time zone 'UTC', '-infinity')
        and entered_at < coalesce(cast(cast(:ends_on as text) as timestamp) at time zone 'UTC', 'infinity')
        and not exists (
            select from journeys.entries
            where
                entries.journey = :journey
                and entries.user_id = entered.user_id
                and coalesce(entries.key, '') = coalesce(entered.key, '')
                -- Whoever was taken over by another journey was in this one all the same.
                and (entries.status <> 'excluded' or entries.arm is not null)
                and (
                    :reentry = 'never'
                    or entries.ended_at is null
                    or (
                        :reentry = 'after'
                        and entries.entered_at > entered.entered_at - cast(:reentry_after as interval)
                    )
                    or entries.cause = entered.cause
                )
        )
        and (
            cast(:audience as jsonb) is null
            or (
                select answer.is_so
                from journeys.answers(
                    entered.user_id, null, null, null, null, cast(:audience as jsonb), entered.entered_at, :as_of
                ) as answer
            )
        )
    order by user_id, key, entered_at, cause
),

placed as (
    select
        eligible.*,
        occupied.journey as occupied_by,
        :global_holdout > 0
        and (
            upnext.bucket('global holdout', eligible.user_id) < :global_holdout
            or experiences.was_held_out(eligible.user_id)
        ) as is_held_out_globally,
        -- A user who was assigned before, at any size of the holdout, stays in that arm.
        coalesce(
            drawn.arm = 'held_out', upnext.bucket('journey:' || :journey, eligible.user_id) < :holdout
        ) as is_held_out
    from eligible
    left join lateral (
        select entries.arm from journeys.entries
        where
            entries.user_id = eligible.user_id
            and entries.journey = :journey
            and entries.arm is not null
            and not entries.is_held_out_globally
        order by entries.entered_at, entries.entry_id
        limit 1
    ) as drawn on true
    left join lateral (
        select entries.journey from journeys.entries
        where
            entries.user_id = eligible.user_id and entries.ended_at is null and entries.journey = any(:stronger)
        order by entries.entered_at, entries.entry_id
        limit 1
    ) as occupied on true
),

displaced as (
    update journeys.entries
    set status = 'excluded', reason = 'taken over by ' || :journey, ended_at = placed.entered_at,
        step = null, next_due_at = null
    from placed
    where
        placed.occupied_by is null
        and entries.user_id = placed.user_id
        and entries.ended_at is null
        and entries.journey = any(:weaker)
),

judged as (
    select
        *,
        case
            when occupied_by is not null then 'excluded'
            when is_held_out_globally or is_held_out then 'held_out'
            else 'active'
        end as status,
        case
            when occupied_by is not null then 'is in ' || occupied_by
            when is_held_out_globally then 'global holdout'
            when is_held_out then 'holdout of the journey'
        end as reason,
        case
            when occupied_by is not null then null
            when is_held_out_globally or is_held_out then 'held_out'
            else 'treated'
        end as arm
    from placed
),

enrolled as (
    insert into journeys.entries
        (journey, version, user_id, key, change_id, cause, seed, entered_at, status, reason, arm, is_held_out_globally,
            trigger_source, trigger_id, step, reached_at, next_due_at, ended_at)
    select
        :journey,
        :version,
        judged.user_id,
        judged.key,
        judged.change_id,
        judged.cause,
        case
            when judged.change_id is null or exists (
                select from journeys.entries where md5(entries.seed) = md5(drawn.seed)
            ) then cast(jsonb_build_array(drawn.seed, judged.cause) as text)
            else drawn.seed
        end,
        judged.entered_at,
        judged.status,
        judged.reason,
        judged.arm,
        judged.occupied_by is null and judged.is_held_out_globally,
        judged.trigger_source,
        judged.trigger_id,
        case when judged.status = 'active' then steps.step end,
        judged.entered_at,
        case judged.status
            when 'active' then judged.entered_at + coalesce(steps.after, steps.wait, steps.within, interval '0')
            when 'held_out' then judged.entered_at + cast(:longest as interval)
        end,
        case when judged.status = 'excluded' then judged.entered_at end
    from judged
    inner join journeys.steps
        on steps.journey = :journey and steps.version = :version and steps.position = 0
    cross join lateral (
        select concat_ws('/', cast(:journey as text), judged.user_id, extract(epoch from judged.entered_at)) as seed
    ) as drawn
    order by judged.entered_at, judged.user_id
    on conflict (journey, cause) do nothing
    returning user_id, status
),

touched as (
    insert into affected_users (user_id) select distinct user_id from enrolled on conflict do nothing
)

select status, count(*) as entries from enrolled group by status;

-- name: note_events_inside
-- An entry event that lets nobody in is recorded too, to explain why: its user is in the journey, with the same key, or
-- the event lacks the key.
insert into journeys.entries
    (journey, version, user_id, key, cause, seed, entered_at, status, reason, reached_at, ended_at)
select
    :journey,
    :version,
    entered.user_id,
    entered.key,
    entered.cause,
    cast(jsonb_build_array('inside', cast(:journey as text), entered.cause) as text),
    entered.entered_at,
    'excluded',
    case when is_keyed and entered.key is null then 'the event has no ' || :keyed_by else 'is in the journey' end,
    entered.entered_at,
    entered.entered_at
from journeys.entering_by_event(
        :journey, cast(:entry as jsonb), :keyed_by, :consumed_tick, :consumed_as_of, :as_of
    ) as entered
cross join lateral (select cast(:keyed_by as text) is not null as is_keyed) as asked
where (is_keyed and entered.key is null) or exists (
    select from journeys.entries
    where
        entries.journey = :journey
        and entries.user_id = entered.user_id
        and coalesce(entries.key, '') = coalesce(entered.key, '')
        and (entries.status <> 'excluded' or entries.arm is not null)
        and entries.cause <> entered.cause
        and entries.entered_at <= entered.entered_at
        and (entries.ended_at is null or entries.ended_at > entered.entered_at)
)
order by entered.entered_at, entered.user_id, entered.cause
on conflict (journey, cause) do nothing;

-- name: take_starts
-- Those who waited to be let in are in now, or may not enter.
update journeys.messages
set
    status = case when entered.entry_id is null then 'skipped' else 'sent' end,
    reason = case
        when entered.entry_id is not null then null
        when cast(:keyed_by as text) is not null and waiting.key is null
            then 'the event that began ' || messages.journey || ' has no ' || :keyed_by
        else 'may not enter the journey, or not again'
    end,
    sent_at = case when entered.entry_id is not null then cast(:as_of as timestamptz) end
from journeys.entering_by_start(:journey, :keyed_by) as waiting
left join journeys.entries as entered on entered.journey = :journey and entered.cause = waiting.cause
where messages.message_id = substr(waiting.cause, 9);

-- name: refuse_starts
update journeys.messages
set status = 'skipped', reason = 'the journey is not started'
from journeys.entries
inner join journeys.steps on steps.journey = entries.journey and steps.version = entries.version
where
    messages.channel = 'start'
    and messages.status = 'pending'
    and messages.journey = :journey
    and entries.entry_id = messages.entry_id
    and steps.step = messages.step
    and steps.definition ->> 'journey' not in (select name from upnext.started);

-- name: started_by_steps
-- The journeys that steps of others let users into, and that have yet to.
select distinct steps.definition ->> 'journey'
from journeys.messages
inner join journeys.entries on entries.entry_id = messages.entry_id
inner join journeys.steps
    on steps.journey = entries.journey and steps.version = entries.version and steps.step = messages.step
where messages.channel = 'start' and messages.status = 'pending';
