-- The events that the exposures and outcomes of stale users are computed from, while an analysis runs. It is empty
-- otherwise, so it needs no log.
create unlogged table analytics.stale_events (
    user_id text not null,
    type text not null,
    event text,
    occurred_at timestamptz not null,
    source text not null,
    message_id text not null,
    properties jsonb not null,
    context jsonb not null,
    is_derived boolean not null
);
create index stale_events_by_user on analytics.stale_events (user_id);
