-- State that all schemas share: migrations, re-created files, and switches.
create schema if not exists upnext;

-- Numbered migrations that were applied after the baseline, each once.
create table upnext.migrations (
    name text primary key,
    applied_at timestamptz not null default now()
);

-- Functions and views are re-created when the hash of their file changes.
create table upnext.recreated (
    file text primary key,
    hash text not null
);

-- Journeys and experiences do nothing until they are started. Each row is a start or a stop; the newest row of a name
-- applies.
create table upnext.switches (
    switch_id bigint generated always as identity primary key,
    name text not null,
    is_started boolean not null,
    changed_at timestamptz not null default now(),
    changed_by text not null
);
create index switches_by_name on upnext.switches (name, switch_id desc);

-- Dagster's own tables (upnext/dev.py).
create schema if not exists dagster;
