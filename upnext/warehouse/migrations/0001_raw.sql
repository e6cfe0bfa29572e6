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
    unique (source, path, fingerprint),
    check (received = stored + duplicate + rejected)
);

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
    primary key (source, message_id)
);
create index events_by_user on raw.events (user_id, event, occurred_at);
-- Consent is looked up while a message is claimed.
create index events_of_consent on raw.events ((properties ->> 'message_id'))
where event in ('message unsubscribed', 'message bounced');
create index events_by_name on raw.events (event, occurred_at);

create table raw.rejected_events (
    source text not null,
    load_id bigint not null,
    line bigint not null,
    reason text not null,
    detail text not null,
    payload text not null,
    primary key (load_id, line)
);
