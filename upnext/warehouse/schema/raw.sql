-- Raw events, rejected lines, and the ledger of loads.
create schema if not exists raw;

create table raw.loads (
    load_id bigint generated always as identity primary key,
    source text not null,
    path text not null,
    fingerprint text not null,
    size bigint not null,
    modified_at timestamptz not null,
    received bigint not null,
    stored bigint not null,
    duplicate bigint not null,
    rejected bigint not null,
    loaded_at timestamptz not null,
    -- How much of the content this load has read, and the fingerprint of that part. A grown file is read from there.
    read_to bigint,
    read_lines bigint,
    prefix text,
    change text check (change in ('grew', 'cut', 'replaced')),
    replayed bigint not null default 0,
    replay_of bigint references raw.loads,
    -- The tick that took the load in; null while none has.
    tick_id bigint,
    -- Some programs replace a file by one of the same size and keep its time (`cp -p`, `rsync -t`).
    inode numeric,
    changed_at timestamptz,
    -- The last row of a CSV file has no newline and may be half written: the file is read on from this time.
    look_again_at timestamptz,
    check (received = stored + duplicate + rejected)
);
create unique index loads_once on raw.loads (source, md5(path), fingerprint) where replay_of is null;
create index loads_by_content on raw.loads (source, fingerprint);
-- A B-tree refuses texts of over 2.7 KB, a hash does not.
create index loads_by_path on raw.loads using hash (path);
create index loads_by_tick on raw.loads (tick_id);

-- No foreign key to raw.loads: both are written in one transaction, and a check per row would slow every load.
create table raw.events (
    source text not null,
    message_id text not null,
    type text not null,
    event text,
    user_id text,
    anonymous_id text,
    account_id text,
    previous_id text,
    occurred_at timestamptz not null,
    "timestamp" timestamptz,
    original_timestamp timestamptz,
    sent_at timestamptz,
    received_at timestamptz,
    load_id bigint not null,
    properties jsonb not null default '{}',
    context jsonb not null default '{}',
    -- Anomalies of the event's times; null where there are none.
    flags text [],
    primary key (source, message_id)
);
create index events_by_user on raw.events (user_id, event, occurred_at);
create index events_by_name on raw.events (event, occurred_at);
create index events_by_load on raw.events (load_id);
create index events_by_time on raw.events (occurred_at);
create index events_flagged on raw.events (load_id) where flags is not null;
-- Activity of visitors before they were identified.
create index events_by_visitor on raw.events (anonymous_id, event, occurred_at) where user_id is null;
-- Identities and accounts are resolved from these few.
create index events_of_identity on raw.events (user_id, occurred_at) where type in ('identify', 'alias', 'group');
create index events_of_accounts on raw.events (account_id, occurred_at) where type = 'group';
-- Consent is looked up while a message is claimed.
create index events_of_consent on raw.events using hash ((properties ->> 'message_id'))
where event in ('message unsubscribed', 'message bounced', 'message complained', 'message resubscribed');

create table raw.rejected_events (
    source text not null,
    load_id bigint not null,
    line bigint not null,
    reason text not null,
    detail text not null,
    payload text not null,
    -- The exact bytes, where the payload is only a way to show them.
    payload_bytes bytea,
    primary key (load_id, line)
);

-- One row per file that was refused as a whole; it is tried again when it has changed.
create table raw.refused_files (
    path text not null,
    source text not null,
    size bigint not null,
    modified_at timestamptz not null,
    reason text not null,
    refused_at timestamptz not null,
    inode numeric,
    changed_at timestamptz
);
create unique index refused_files_once on raw.refused_files (md5(path));
