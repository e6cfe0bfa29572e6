-- name: load_counts
select
    coalesce(sum(received), 0) as received,
    coalesce(sum(stored), 0) as stored,
    coalesce(sum(duplicate), 0) as duplicate,
    coalesce(sum(rejected), 0) as rejected,
    max(loaded_at) as last_loaded_at
from raw.loads;

-- name: last_tick
select tick_id, as_of, published_at from segments.ticks order by tick_id desc limit 1;

-- name: members
select segment, count(*) as members from segments.current_members group by 1
union all
select segment, count(*) from segments.account_members group by 1
order by 1;

-- name: messages
select status, count(*) as messages from journeys.messages group by 1 order by 1;

-- name: held
select segment, changes from segments.held order by segment;

-- name: published_as_of
select max(as_of) from segments.published_ticks;

-- name: last_event_at
-- By the names of events, so that an index answers.
select greatest(raw.last_seen(null, now()), max(raw.last_seen(event, now()))) from raw.event_names;

-- name: inbox
select count(*) as waiting, min(received_at) as oldest_at from edge.inbox;

-- name: count_refused_files
select count(*) from raw.refused_files;

-- name: paused
select journey from journeys.pauses order by journey;

-- name: drift
select cast(sum(coalesce(drift, 0)) as bigint)
from (
    select distinct on (model) drift
    from features.rebuilds
    where drift is not null
    order by model, rebuilt_at desc
) as newest;
