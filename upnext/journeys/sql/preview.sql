-- What a dispatch has just done in a journey.

-- name: newest_entry
select coalesce(max(entry_id), 0) from journeys.entries;

-- name: entered_since
-- What a dispatch has just done in a journey: entries newer than `before`, and their messages.
select
    count(*) filter (where status = 'active') as enrolled,
    count(*) filter (where status = 'held_out') as held_out,
    count(*) filter (where status = 'excluded') as excluded,
    coalesce(array_agg(user_id order by user_id) filter (where status in ('active', 'completed')), '{}') as ids
from journeys.entries
where journey = :journey and entry_id > :before;

-- name: messages_of_entered
select
    messages.step || ' (' || messages.channel || ')'
    || case when messages.status = 'skipped' then ', skipped: ' || messages.reason else '' end as step,
    count(*) as messages
from journeys.messages
inner join journeys.entries on entries.entry_id = messages.entry_id
where entries.journey = :journey and entries.entry_id > :before
group by 1
order by 1;
