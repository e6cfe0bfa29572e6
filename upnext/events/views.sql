-- Loads that are new to a consumer that has acted on all ticks up to this one: later ticks read them, or none has yet.
create or replace function raw.loads_since(tick bigint) returns setof bigint
language sql stable rows 10
as $$ select load_id from raw.loads where tick_id is null or tick_id > tick $$;

-- One row per event name, with its first and last occurrence. It reads the index once per name instead of a scan.
create or replace view raw.event_names as
with recursive names as (
    (select event from raw.events where event is not null order by event limit 1)
    union all
    select (select events.event from raw.events where events.event > names.event order by events.event limit 1)
    from names
    where names.event is not null
)

select names.event, span.first_at, span.last_at
from names
cross join lateral (
    select min(events.occurred_at) as first_at, max(events.occurred_at) as last_at
    from raw.events
    where events.event = names.event
) as span
where names.event is not null;
