-- Postgres renames no parameter of a function.
drop function if exists journeys.stop_reason(
    text, text, timestamptz, interval, text [], integer, interval, text []
);

-- When a message was last handed over, by the clock of the dispatch, whatever became of it.
alter table journeys.messages add column tried_at timestamptz;
update journeys.messages
set tried_at = coalesce(sent_at, due_at)
where is_limited and status in ('sent', 'failed', 'unknown', 'sending');

-- The address that an endpoint was declared with when it answered that it is gone: another one is another endpoint.
alter table journeys.disabled_endpoints add column url text;
