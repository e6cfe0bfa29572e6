-- Due entries move forward, step by step.

-- name: wake
-- When what is waited for is so, the wait ends at that instant.
update journeys.entries
set is_woken = true, next_due_at = heard.occurred_at
from (
    select waiting.entry_id, answer.occurred_at
    from affected_users
    inner join journeys.entries as waiting
        on waiting.user_id = affected_users.user_id and waiting.journey = :journey and waiting.status = 'active'
    inner join journeys.steps
        on steps.journey = waiting.journey and steps.version = waiting.version and steps.step = waiting.step
    cross join lateral journeys.answered_at(
        waiting.user_id, waiting.key, waiting.entry_id, steps.asks, waiting.entered_at, waiting.reached_at,
        least(waiting.next_due_at, :as_of)
    ) as answer
    where steps.kind = 'wait' and not waiting.is_woken
) as heard
where entries.entry_id = heard.entry_id;

-- name: advance
-- One statement moves each due entry one step forward, and inserts a row for each due message. Later steps count from
-- when this step was due, however late the dispatch runs, unless lateness shifts them. A message that the user's own
-- clock does not allow yet is postponed, and later steps count from when it may be sent.
with due as (
    select
        entries.entry_id,
        entries.version,
        entries.user_id,
        entries.seed,
        entries.entered_at,
        entries.shifted,
        delay.ends_at,
        case
            when delay.ends_at >= entries.reached_at then delay.ends_at else entries.next_due_at
        end as due_at,
        steps.step,
        steps.position,
        steps.kind,
        steps.late,
        steps.variants,
        allowed.allowed_at,
        case
            when steps.kind = 'wait' and not entries.is_woken then steps.otherwise
            when steps.definition ->> 'until' is not null and delay.ends_at >= entries.reached_at then steps.next
            when steps.definition ->> 'until' is not null then steps.otherwise
            when steps.arms is not null and arm.nth is null then steps.otherwise
            when steps.arms is not null then arm.target
            else steps.next
        end as target,
        steps.definition ->> 'reason' as reason,
        steps.definition ->> 'until' is not null as is_dated,
        coalesce(cast(steps.definition ->> 'transactional' as boolean), false) as is_transactional,
        steps.definition ->> 'out_of_hours' = 'skip' as is_skipping,
        steps.kind in ('email', 'webhook', 'cta')
        and cast(:as_of as timestamptz)
            > coalesce(allowed.due_on, entries.next_due_at) + cast(:late_after as interval) as is_late
    from journeys.entries
    inner join journeys.steps
        on steps.journey = entries.journey and steps.version = entries.version and steps.step = entries.step
    left join lateral (
        select arms.nth, arms.arm ->> 'to' as target
        from jsonb_array_elements(steps.arms) with ordinality as arms (arm, nth)
        cross join lateral journeys.answers(
            entries.user_id, entries.key, entries.entry_id, entries.trigger_source, entries.trigger_id,
            arms.arm -> 'asks', entries.entered_at, :as_of
        ) as answer
        where steps.arms is not null and case steps.kind
            when 'split' then (
                select draw.bucket >= cast(arms.arm ->> 'low' as double precision)
                and draw.bucket < cast(arms.arm ->> 'high' as double precision)
                from (
                    select upnext.bucket('split:' || :journey || '/' || steps.step, entries.user_id) as bucket
                ) as draw
            )
            else answer.is_so
        end
        order by arms.nth
        limit 1
    ) as arm on true
    left join lateral (
        select journeys.end_of_delay(
            entries.user_id, entries.trigger_source, entries.trigger_id, steps.definition -> 'until',
            entries.reached_at, :time_zone_trait, :time_zone, :as_of
        ) as ends_at
        where steps.kind = 'delay' and steps.definition ->> 'until' is not null
        -- Keeps the planner from computing the end for entries at other steps.
        offset 0
    ) as delay on true
    left join lateral (
        select
            due_on,
            -- A message allowed now counts from when it was first allowed, however late the dispatch runs.
            case when now_on = cast(:as_of as timestamptz) then least(due_on, now_on) else now_on end as allowed_at
        from (
            select
                upnext.first_allowed(entries.next_due_at, zone, send_window, quiet_hours) as due_on,
                upnext.first_allowed(:as_of, zone, send_window, quiet_hours) as now_on
            from (
                select
                    coalesce(
                        journeys.time_zone_of(entries.user_id, :time_zone_trait, :as_of), :time_zone
                    ) as zone,
                    nullif(steps.definition -> 'send_window', 'null') as send_window,
                    nullif(steps.definition -> 'quiet_hours', 'null') as quiet_hours
                where steps.kind in ('email', 'webhook') and journeys.has_hours(steps.definition)
                -- Keeps the planner from looking up every clock before it checks whether one is needed.
                offset 0
            ) as clock
        ) as instants
    ) as allowed on true
    where
        entries.journey = :journey
        and entries.status = 'active'
        and entries.ended_at is null
        and entries.next_due_at <= :as_of
        and (steps.of_steps = '{}' or not journeys.is_asked_too_early(entries.entry_id, steps.of_steps))
),

-- The date of a delay may have moved since the step was reached, and is read again when the delay ends.
postponed as (
    update journeys.entries
    set next_due_at = due.ends_at
    from due
    where entries.entry_id = due.entry_id and due.ends_at > :as_of
),

reached as (
    select
        *,
        greatest(
            case when is_late and late = 'shift' then cast(:as_of as timestamptz) else due_at end,
            case when not is_skipping then allowed_at end
        ) as reached_at,
        is_skipping and allowed_at > due_at as is_out_of_hours,
        case
            when is_late and late = 'shift' then shifted + (cast(:as_of as timestamptz) - due_at)
            else shifted
        end as shifted_by
    from due
    where due.ends_at is null or due.ends_at <= :as_of
),

moved as (
    update journeys.entries
    set
        step = reached.target,
        reached_at = reached.reached_at,
        shifted = reached.shifted_by,
        is_woken = false,
        next_due_at = case
            when targets.kind = 'wait' then reached.reached_at + targets.within
            when targets.wait is not null then reached.reached_at + targets.wait
            -- What follows a date at once keeps it, whatever a pause has put off.
            when targets.after is not null then greatest(
                reached.entered_at + targets.after
                + case when reached.is_dated then interval '0' else reached.shifted_by end,
                reached.reached_at
            )
            when targets.step is not null then reached.reached_at
        end,
        reason = case when reached.kind = 'exit' then reached.reason else entries.reason end
    from reached
    left join journeys.steps as targets
        on targets.journey = :journey and targets.version = reached.version and targets.step = reached.target
    where entries.entry_id = reached.entry_id
    returning entries.user_id, entries.version, entries.step
),

touched as (
    insert into affected_users (user_id)
    select distinct moved.user_id
    from moved
    inner join journeys.steps
        on steps.journey = :journey and steps.version = moved.version and steps.step = moved.step
    where steps.kind = 'wait'
    on conflict do nothing
),

written as (
    insert into journeys.messages
        (message_id, entry_id, journey, step, position, visit, channel, user_id, variant, due_at, not_before,
            is_transactional, is_limited, status, reason)
    select
        cast(cast(md5(concat_ws('/', reached.seed, reached.step, nullif(visits.visit, 1))) as uuid) as text),
        reached.entry_id,
        :journey,
        reached.step,
        reached.position,
        visits.visit,
        case when reached.kind in ('identify', 'track') then 'event' else reached.kind end,
        reached.user_id,
        (
            select ranges.variant
            from jsonb_to_recordset(reached.variants)
                as ranges (variant text, low double precision, high double precision)
            cross join lateral (
                select upnext.bucket('copy:' || :journey || '/' || reached.step, reached.user_id) as bucket
            ) as draw
            where draw.bucket >= ranges.low and draw.bucket < ranges.high
        ),
        reached.due_at,
        case when not is_out_of_hours and reached.allowed_at > reached.due_at then reached.allowed_at end,
        reached.is_transactional,
        reached.kind in ('email', 'webhook') and exists (select from journeys.limits where journey = :journey),
        case
            when cast(:is_replay as boolean) or is_out_of_hours or (is_late and late = 'skip') then 'skipped'
            else 'pending'
        end,
        case
            when cast(:is_replay as boolean) then 'replay'
            when is_out_of_hours then 'out of hours'
            when is_late and late = 'skip' then 'late'
        end
    from reached
    cross join lateral (
        select case when cast(:can_come_round as boolean) then (
            select cast(count(*) as integer)
            from journeys.messages
            where messages.entry_id = reached.entry_id and messages.step = reached.step
        ) else 0 end + 1 as visit
    ) as visits
    where reached.kind in ('email', 'webhook', 'cta', 'identify', 'track', 'start')
    order by reached.due_at, reached.user_id
    returning channel
)

select
    (select count(*) from moved) as moved,
    (select count(*) from written) as due,
    exists (select from written where channel = 'cta') as has_ctas;

-- name: show_ctas
-- A call to action needs no sender: it is shown from now on, for as long as its step defines. Of several for one user
-- the first one, because the cap counts it for the next.
with firsts as (
    select distinct on (user_id) message_id, entry_id
    from journeys.messages
    where journey = :journey and status = 'pending' and channel = 'cta'
    order by user_id, due_at, position, message_id
),

judged as materialized (
    select
        messages.message_id,
        stop.reason as stopped_by,
        cast(steps.definition ->> 'lasts' as interval) as lasts
    from firsts
    inner join journeys.messages on messages.message_id = firsts.message_id
    inner join journeys.entries on entries.entry_id = messages.entry_id
    inner join journeys.steps
        on steps.journey = entries.journey and steps.version = entries.version and steps.step = messages.step
    cross join lateral journeys.stop_reason(
        messages.message_id, null, :as_of, :late_after, :cap_channels, :cap_messages, :cap_per,
        :opt_out_topics
    ) as stop (reason)
)

update journeys.messages
set
    status = case when judged.stopped_by is null then 'sent' else 'skipped' end,
    reason = judged.stopped_by,
    sent_at = case when judged.stopped_by is null then cast(:as_of as timestamptz) end,
    ends_at = case when judged.stopped_by is null then cast(:as_of as timestamptz) + judged.lasts end
from judged
where messages.message_id = judged.message_id;

-- name: skip_ended
update journeys.messages
set status = 'skipped', reason = entries.status
from journeys.entries
where
    messages.journey = :journey
    and messages.status = 'pending'
    and entries.entry_id = messages.entry_id
    and entries.status in ('converted', 'left', 'excluded');

-- name: complete
update journeys.entries
set
    status = case when status = 'active' then 'completed' else status end,
    ended_at = :as_of
where
    entries.journey = any(:journeys)
    and entries.ended_at is null
    and (
        (
            entries.status = 'active'
            and entries.next_due_at is null
            and not exists (
                select from journeys.messages
                where messages.entry_id = entries.entry_id and messages.status in ('pending', 'sending')
            )
        )
        or (entries.status = 'held_out' and entries.next_due_at <= :as_of)
    )
returning entries.status;
