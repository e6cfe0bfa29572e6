-- Who may send events and ask for calls to action. A key itself is kept nowhere, only its hash.
create table edge.keys (
    key_id bigint generated always as identity primary key,
    kind text not null check (kind in ('write', 'server')),
    source text not null,
    hash bytea not null unique,
    origins text [] not null default '{}',
    identity text not null default 'required' check (identity in ('required', 'optional')),
    events_per_second integer not null default 500 check (events_per_second > 0),
    created_at timestamptz not null,
    disabled_at timestamptz
);

-- What was answered 4xx or 503, by minute. Key 0 stands for requests without a key that is known.
create table edge.refusals (
    minute timestamptz not null,
    key_id bigint not null,
    reason text not null,
    count bigint not null,
    primary key (minute, key_id, reason)
);

-- Lines leave the inbox soon after they come.
alter table edge.inbox set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
