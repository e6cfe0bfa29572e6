-- Defects of the outbox, by the check that reports them.

-- name: steps_are_not_overdue
select journeys.name, entries.overdue + messages.overdue as found
from (select distinct journey as name from journeys.definitions) as journeys
cross join lateral (
    select count(*) as overdue from journeys.entries
    where
        entries.journey = journeys.name
        and entries.status = 'active'
        and entries.ended_at is null
        and entries.next_due_at < cast(:now as timestamptz) - interval '1 hour'
) as entries
cross join lateral (
    select count(*) as overdue from journeys.messages
    where
        messages.journey = journeys.name
        and messages.status = 'pending'
        and not (messages.is_limited and journeys.is_full(messages.journey, :now))
        and greatest(messages.due_at, messages.not_before, messages.retry_at)
            < cast(:now as timestamptz) - interval '1 hour'
) as messages
where
    entries.overdue + messages.overdue > 0
    and not exists (select from journeys.pauses where pauses.journey = journeys.name)
order by journeys.name;

-- name: outcomes_are_known
select journey as name, count(*) as found from journeys.messages
where status = 'unknown' and due_at > cast(:now as timestamptz) - interval '7 days'
group by journey
order by journey;

-- name: channels_do_not_fail
select channel as name, count(*) filter (where status = 'failed') as found from journeys.messages
where status in ('sent', 'failed') and due_at > cast(:now as timestamptz) - interval '1 day'
group by channel
having count(*) filter (where status = 'failed') * 20 > count(*)
order by channel;
