-- Start, stop, pause and resume.

-- name: end
-- Ends journeys: users inside exit, and pending messages are skipped.
with ended as (
    update journeys.entries
    set
        status = case when status = 'held_out' then status else 'left' end,
        reason = case when status = 'held_out' then reason else :reason end,
        ended_at = :at,
        step = null,
        next_due_at = null
    where journey = any(:journeys) and ended_at is null
    returning 1
),

skipped as (
    update journeys.messages
    set status = 'skipped', reason = :reason
    where journey = any(:journeys) and status = 'pending'
)

select count(*) from ended;

-- name: forget_consumed
delete from segments.consumer_offsets where consumer = :consumer;

-- name: removed
-- Undeclared journeys that have open entries or pending messages, or that are started.
select journey from journeys.entries where ended_at is null and journey <> all(:declared)
union
select journey from journeys.messages where status = 'pending' and journey <> all(:declared)
union
select name from upnext.started where name <> all(:declared);

-- name: pause
-- A pause stops all entries. Resuming postpones all later steps by the length of the pause, so that no steps pile up.
-- Whoever waits for a date or a time of day waits for the same one as before; of the pause, what lies after it counts.
insert into journeys.pauses (journey, paused_at, reason) values (:journey, :at, 'by hand')
on conflict (journey) do nothing;

-- name: resume
with ended as (
    delete from journeys.pauses where journey = :journey returning paused_at
),

counted_anew as (
    update journeys.limits set counted_since = :at where journey = :journey
),

inside as (
    select
        entries.entry_id,
        greatest(
            interval '0',
            cast(:at as timestamptz) - case
                when steps.definition ->> 'until' is not null then greatest(ended.paused_at, entries.next_due_at)
                else ended.paused_at
            end
        ) as length
    from ended
    inner join journeys.entries
        on entries.journey = :journey and entries.status = 'active' and entries.ended_at is null
    left join journeys.steps
        on steps.journey = entries.journey and steps.version = entries.version and steps.step = entries.step
),

shifted as (
    update journeys.entries
    set
        shifted = shifted + inside.length,
        next_due_at = next_due_at + inside.length
    from inside
    where entries.entry_id = inside.entry_id
),

-- What waited in the pause is not late for it, unless it belongs to a date.
waited as (
    update journeys.messages
    set not_before = least(
        greatest(messages.due_at, messages.not_before) + (cast(:at as timestamptz) - ended.paused_at),
        greatest(cast(:at as timestamptz), messages.due_at, messages.not_before)
    )
    from ended, journeys.entries
    where
        messages.journey = :journey
        and messages.status = 'pending'
        and entries.entry_id = messages.entry_id
        and not exists (
            select from journeys.steps as dates
            where
                dates.journey = entries.journey
                and dates.version = entries.version
                and dates.next = messages.step
                and dates.definition ->> 'until' is not null
        )
)

select (select count(*) from ended) as ended, (select count(*) from inside) as entries;

-- name: is_paused
select 1 from journeys.pauses where journey = :journey;

-- name: journeys_with_work
select journeys.name
from unnest(cast(:journeys as text [])) as journeys (name)
where
    not exists (select from journeys.pauses where pauses.journey = journeys.name)
    and (
        exists (
            select from journeys.entries
            inner join journeys.steps
                on steps.journey = entries.journey and steps.version = entries.version and steps.step = entries.step
            where
                entries.journey = journeys.name
                and entries.status = 'active'
                and entries.ended_at is null
                and entries.next_due_at <= :now
                and (steps.of_steps = '{}' or not journeys.is_asked_too_early(entries.entry_id, steps.of_steps))
        )
        or exists (
            select from journeys.messages
            where
                messages.journey = journeys.name
                and (
                    messages.status = 'pending'
                    and (messages.not_before is null or messages.not_before <= :now)
                    and (messages.retry_at is null or messages.retry_at <= clock_timestamp())
                    and not (messages.is_limited and journeys.is_full(messages.journey, :now))
                    or messages.status = 'sending' and messages.lease_until < clock_timestamp()
                )
        )
    );
