-- Ticks, the membership log, and the offset of each of its consumers. The log is the only state of segments.
create schema if not exists segments;

-- At most one tick is open (published_at is null). No consumer sees its changes until it is published.
create table segments.ticks (
    tick_id bigint generated always as identity primary key,
    as_of timestamptz not null,
    published_at timestamptz,
    -- The server process whose session holds the tick lock.
    holder integer
);
create unique index one_open_tick on segments.ticks ((published_at is null)) where published_at is null;

create table segments.membership_changes (
    change_id bigint generated always as identity primary key,
    tick_id bigint not null references segments.ticks,
    segment text not null,
    user_id text not null,
    change text not null check (change in ('entered', 'exited')),
    as_of timestamptz not null
);
create index membership_changes_latest on segments.membership_changes (segment, user_id, change_id desc);
create index membership_changes_by_tick on segments.membership_changes (tick_id, segment);

-- Members by the published log, so that readers need not read the whole log.
create table segments.members (
    segment text not null,
    user_id text not null,
    entered_at timestamptz not null,
    primary key (segment, user_id)
);
create index members_by_user on segments.members (user_id);

-- The same for segments of accounts.
create table segments.account_membership_changes (
    change_id bigint generated always as identity primary key,
    tick_id bigint not null references segments.ticks,
    segment text not null,
    account_id text not null,
    change text not null check (change in ('entered', 'exited')),
    as_of timestamptz not null
);
create index account_membership_changes_latest
on segments.account_membership_changes (segment, account_id, change_id desc);
create index account_membership_changes_by_tick on segments.account_membership_changes (tick_id, segment);

create table segments.account_members (
    segment text not null,
    account_id text not null,
    entered_at timestamptz not null,
    primary key (segment, account_id)
);
create index account_members_by_account on segments.account_members (account_id);

-- One row per segment and tick that evaluated it; a tick that is never published takes its rows back. A change beyond
-- the segment's limit is held if the segment asks for it, until it is released.
create table segments.evaluations (
    segment text not null,
    tick_id bigint not null references segments.ticks,
    definition text not null,
    looked_at bigint not null,
    members_before bigint not null,
    entered bigint not null,
    exited bigint not null,
    is_beyond_limit boolean not null,
    is_held boolean not null,
    is_released boolean not null default false,
    -- Why the segment could not be evaluated, so that its members stay as they are; null where it was.
    error text,
    primary key (segment, tick_id)
);

-- Absorbed and surviving users of each merge, by the tick that found the merge.
create table segments.merged_users (
    tick_id bigint not null references segments.ticks,
    user_id text not null,
    primary key (tick_id, user_id)
);

-- The last published tick whose changes a consumer has acted on, the instant up to which it has read events, and the
-- instant at which it began. It does not act on earlier events.
create table segments.consumer_offsets (
    consumer text primary key,
    tick_id bigint not null,
    as_of timestamptz,
    begun_at timestamptz
);

-- The definition by which a consumer last acted on an experience or a journey: if its hash changes, all its users are
-- read again.
create table segments.seen_definitions (
    consumer text not null,
    name text not null,
    hash text not null,
    primary key (consumer, name)
);
