create schema if not exists journeys;

-- Each version of a journey's YAML that was ever dispatched; entries go on with the version they entered with.
create table journeys.definitions (
    journey text not null,
    version text not null,
    definition jsonb not null,
    first_dispatched_at timestamptz not null,
    primary key (journey, version)
);

create table journeys.entries (
    entry_id bigint generated always as identity primary key,
    journey text not null,
    version text not null,
    user_id text not null,
    change_id bigint not null,
    entered_at timestamptz not null,
    status text not null
        check (status in ('active', 'completed', 'converted', 'left', 'excluded', 'held_out')),
    reason text,
    next_step integer,
    next_due_at timestamptz,
    ended_at timestamptz,
    unique (journey, change_id),
    foreign key (journey, version) references journeys.definitions
);
create index entries_by_user on journeys.entries (journey, user_id, entered_at);
create index entries_due on journeys.entries (next_due_at) where status = 'active';

create table journeys.messages (
    message_id text primary key,
    entry_id bigint not null references journeys.entries,
    journey text not null,
    step text not null,
    channel text not null,
    user_id text not null,
    variant text,
    due_at timestamptz not null,
    status text not null
        check (status in ('pending', 'sending', 'sent', 'failed', 'unknown', 'skipped')),
    reason text,
    sent_at timestamptz,
    lease_until timestamptz,
    fence bigint not null default 0,
    attempts integer not null default 0,
    ends_at timestamptz,
    unique (entry_id, step)
);
create index messages_pending on journeys.messages (due_at, message_id) where status = 'pending';
create index messages_sending on journeys.messages (lease_until) where status = 'sending';
create index messages_by_user on journeys.messages (user_id);

create table journeys.suppressions (
    user_id text not null,
    channel text not null,
    reason text not null,
    since timestamptz not null,
    primary key (user_id, channel)
);
