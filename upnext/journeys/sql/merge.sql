-- The rows of a merged user move to the survivor. Run in this order, in one transaction.

-- name: find_merged
-- The users merged since the consumed tick, each with its survivor.
create temporary table merged on commit drop as select absorbed, user_id from segments.merges_since(:consumed_tick);

-- name: move_entries
update journeys.entries set user_id = merged.user_id from merged where entries.user_id = merged.absorbed;

-- name: move_messages
update journeys.messages set user_id = merged.user_id from merged where messages.user_id = merged.absorbed;

-- name: merge_suppressions
insert into journeys.suppressions (user_id, channel, address, reason, source, since)
select
    merged.user_id,
    suppressions.channel,
    suppressions.address,
    (array_agg(suppressions.reason order by suppressions.reason = 'bounced', suppressions.since))[1],
    (array_agg(suppressions.source order by suppressions.reason = 'bounced', suppressions.since))[1],
    min(suppressions.since)
from merged
inner join journeys.suppressions on suppressions.user_id = merged.absorbed
group by merged.user_id, suppressions.channel, suppressions.address
on conflict (user_id, channel, address) do update
set reason = excluded.reason, source = excluded.source, since = excluded.since
where suppressions.reason = 'bounced';

-- name: merge_consents
-- What was said last counts, and a refusal where both were said at one instant.
insert into journeys.consents as known (user_id, topic, is_granted, source, since)
select distinct on (merged.user_id, consents.topic)
    merged.user_id, consents.topic, consents.is_granted, consents.source, consents.since
from merged
inner join journeys.consents on consents.user_id = merged.absorbed
order by merged.user_id, consents.topic, consents.since desc, consents.is_granted
on conflict (user_id, topic) do update
set is_granted = excluded.is_granted, source = excluded.source, since = excluded.since
where (excluded.since, not excluded.is_granted) > (known.since, not known.is_granted);

-- name: end_double_entries
with entries_of_merged as (
    select
        entries.entry_id,
        entries.journey,
        entries.user_id,
        entries.status,
        entries.ended_at,
        row_number() over (
            partition by entries.journey, entries.user_id, entries.key
            order by entries.ended_at is not null, entered_at, entry_id
        ) as nth,
        bool_or(entries.arm = 'held_out') over (partition by entries.journey, entries.user_id)
        and bool_or(entries.arm = 'treated')
            over (partition by entries.journey, entries.user_id) as is_in_both_arms
    from journeys.entries
    where entries.user_id in (select user_id from merged)
)

update journeys.entries
set
    is_in_both_arms = entries_of_merged.is_in_both_arms,
    status = case when is_double then 'excluded' else entries.status end,
    reason = case when is_double then 'merged' else entries.reason end,
    ended_at = case when is_double then :as_of else entries.ended_at end,
    step = case when not is_double then entries.step end,
    next_due_at = case when not is_double then entries.next_due_at end
from entries_of_merged
cross join lateral (select nth > 1 and entries_of_merged.ended_at is null as is_double) as judged
where entries.entry_id = entries_of_merged.entry_id and (is_double or entries_of_merged.is_in_both_arms);
