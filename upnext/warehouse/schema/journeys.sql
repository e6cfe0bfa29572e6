-- Journeys: definitions by version, entries, and the outbox.
create schema if not exists journeys;

-- Each version of a journey that was ever dispatched; entries keep the version that they entered with.
create table journeys.definitions (
    journey text not null,
    version text not null,
    definition jsonb not null,
    first_dispatched_at timestamptz not null,
    primary key (journey, version)
);

-- The steps of each version: where each leads (`next`, and `otherwise` where a wait runs out or a branch is not taken;
-- null is the end) and when it is due.
create table journeys.steps (
    journey text not null,
    version text not null,
    step text not null,
    position integer not null,
    kind text not null check (kind in ('email', 'webhook', 'cta', 'wait', 'branch')),
    next text,
    otherwise text,
    after interval,
    wait interval,
    within interval,
    any_of text [],
    -- The step whose message a wait or a branch asks about.
    of_step text,
    late text check (late in ('send', 'skip', 'shift')),
    variants jsonb,
    definition jsonb not null,
    primary key (journey, version, step),
    foreign key (journey, version) references journeys.definitions
);

create table journeys.entries (
    entry_id bigint generated always as identity primary key,
    journey text not null,
    version text not null,
    user_id text not null,
    -- The cause of the entry: a membership change or an event.
    change_id bigint,
    cause text not null,
    -- The ids of the entry's messages derive from this. It stays the same when a merge changes the user.
    seed text not null,
    entered_at timestamptz not null,
    status text not null
    check (status in ('active', 'completed', 'converted', 'left', 'excluded', 'held_out')),
    reason text,
    -- The assigned arm; null where none was assigned. Unlike the status it never changes, so results compare by it.
    arm text check (arm in ('treated', 'held_out')),
    is_held_out_globally boolean not null default false,
    is_in_both_arms boolean not null default false,
    step text,
    reached_at timestamptz not null,
    next_due_at timestamptz,
    is_woken boolean not null default false,
    -- How far pauses and lateness have postponed later steps.
    shifted interval not null default '0',
    goal_reached_at timestamptz,
    ended_at timestamptz,
    unique (journey, cause),
    foreign key (journey, version) references journeys.definitions
);
create unique index entries_by_seed on journeys.entries (md5(seed));
create index entries_by_user on journeys.entries (user_id, journey, entered_at);
create index entries_due on journeys.entries (journey, next_due_at) where ended_at is null;
create index entries_at_the_end on journeys.entries (journey) where status = 'active' and next_due_at is null;

create table journeys.messages (
    message_id text primary key,
    entry_id bigint not null references journeys.entries,
    journey text not null,
    step text not null,
    -- The place of the step, for messages of one user that are due at one instant.
    position integer not null default 0,
    -- A loop can reach a step again.
    visit integer not null default 1,
    channel text not null,
    user_id text not null,
    variant text,
    due_at timestamptz not null,
    -- The first time that the user's own clock allows.
    not_before timestamptz,
    status text not null
    check (status in ('pending', 'sending', 'sent', 'failed', 'unknown', 'skipped')),
    reason text,
    sent_at timestamptz,
    ends_at timestamptz,
    -- The recipient, in lower case.
    address text,
    attempts integer not null default 0,
    -- Retry and lease use the clock of the database.
    retry_at timestamptz,
    lease_until timestamptz,
    fence bigint not null default 0,
    unique (entry_id, step, visit)
);
create index messages_pending on journeys.messages (due_at, user_id, position, message_id) where status = 'pending';
create index messages_sending on journeys.messages (lease_until) where status = 'sending';
create index messages_by_user on journeys.messages (user_id, sent_at);
create index messages_by_address on journeys.messages using hash (address) where address is not null;
create index messages_of_ctas on journeys.messages (ends_at) where channel = 'cta' and status = 'sent';

-- A suppression stops a user, an address, or both ('' where the address is not known). `address` is in lower case.
create table journeys.suppressions (
    user_id text not null,
    channel text not null,
    address text not null default '',
    reason text not null,
    since timestamptz not null,
    primary key (user_id, channel, address)
);
create index suppressions_by_address on journeys.suppressions using hash (address) where address <> '';

-- The last load whose consent events were applied. Each is applied once, so a deleted suppression stays deleted.
create table journeys.consent_read (
    load_id bigint not null
);
insert into journeys.consent_read (load_id) values (0);

create table journeys.pauses (
    journey text primary key,
    paused_at timestamptz not null
);

-- Click targets. A link in a message names one of these ids, never a URL.
create table journeys.links (
    link_id text primary key,
    url text not null
);

-- Endpoints of webhooks that answered that they are gone.
create table journeys.disabled_endpoints (
    endpoint text primary key,
    disabled_at timestamptz not null,
    reason text not null
);
