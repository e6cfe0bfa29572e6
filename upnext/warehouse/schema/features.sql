-- State of the tables that dbt keeps up to date; the tables themselves are dbt's.
create schema if not exists events;
create schema if not exists features;

-- The tick and the instant that a table is computed up to, written together with its rows.
create table features.states (
    model text primary key,
    tick_id bigint not null,
    as_of timestamptz not null,
    definition text not null,
    -- The tick for which any row may have changed, not only those of changed keys.
    all_touched_by bigint
);

-- Keys of rows that a tick has changed, kept until all dependent tables have consumed them.
create table features.changed_keys (
    model text not null,
    tick_id bigint not null,
    key text not null
);
create index changed_keys_by_tick on features.changed_keys (model, tick_id);

-- One row per table that was recomputed. `drift` counts the rows that the incremental table had wrong; null where the
-- two cannot be compared: another definition, or another instant.
create table features.rebuilds (
    model text not null,
    as_of timestamptz not null,
    rebuilt_at timestamptz not null default now(),
    rows bigint not null,
    drift bigint
);
