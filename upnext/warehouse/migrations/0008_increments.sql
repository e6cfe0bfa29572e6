-- The tick that took a load in; null while none has. What a tick computes is about the loads taken in so far.
alter table raw.loads add column tick_id bigint;
create index loads_by_tick on raw.loads (tick_id);
create index events_by_load on raw.events (load_id);
create index events_by_time on raw.events (occurred_at);
drop index raw.events_of_identity;
create index events_of_identity on raw.events (user_id, occurred_at) where type in ('identify', 'alias', 'group');

-- Up to which tick, and which instant, a table that is kept up to date has come; written with its rows.
create table features.states (
    model text primary key,
    tick_id bigint not null,
    as_of timestamptz not null,
    definition text not null,
    -- The tick for which any row may have changed, and not just those of touched keys.
    all_touched_by bigint
);

-- Whose rows a tick has changed, until all that follows from them has consumed it.
create table features.touched (
    model text not null,
    tick_id bigint not null,
    key text not null
);
create index touched_by_tick on features.touched (model, tick_id);

-- One row per table that was computed afresh; `drift` is by how many rows the one kept up to date was wrong, null
-- where that cannot be said: another definition, or another instant.
create table features.rebuilds (
    model text not null,
    as_of timestamptz not null,
    rebuilt_at timestamptz not null default now(),
    rows bigint not null,
    drift bigint
);

-- Tables that are built anew, as ones that are kept up to date.
drop table if exists features.user_features, features.account_features, events.identity_links, events.account_members
cascade;

-- Members by the published log, so that nobody has to read all of it. The log is the truth, this follows from it.
create table segments.members (
    segment text not null,
    user_id text not null,
    entered_at timestamptz not null,
    primary key (segment, user_id)
);
insert into segments.members (segment, user_id, entered_at)
select segment, user_id, entered_at from segments.current_members;
create index members_by_user on segments.members (user_id);
create or replace view segments.current_members as
select segment, user_id, entered_at from segments.members;

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

-- Up to which tick a segment has looked at whom, and what came of it; a tick that is never published takes its rows
-- back. A change beyond the segment's limit is held where its owner says so, until it is released.
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
    primary key (segment, tick_id)
);

-- One row per segment and day (UTC), for plots; `members` is how many there were when the day's last tick had ended.
create view segments.daily_changes as
select
    segment,
    day,
    entered,
    exited,
    sum(entered - exited) over (partition by segment order by day)::bigint as members
from (
    select
        changes.segment,
        (changes.as_of at time zone 'UTC')::date as day,
        count(*) filter (where changes.change = 'entered') as entered,
        count(*) filter (where changes.change = 'exited') as exited
    from (
        select tick_id, segment, change, as_of from segments.membership_changes
        union all
        select tick_id, segment, change, as_of from segments.account_membership_changes
    ) as changes
    inner join segments.ticks on changes.tick_id = ticks.tick_id
    where ticks.published_at is not null
    group by changes.segment, day
) as days;

-- Whether these events, in their order, hold the wanted ones one after the other, from first to last in `within`.
create function upnext.has_sequence(events text[], times timestamptz[], wanted text[], within interval)
returns boolean
language sql immutable parallel safe
return (
    with recursive did as (
        select event, at, nth
        from unnest(events, times) with ordinality as did (event, at, nth)
    ),

    reached (step, nth, started_at) as (
        select 1, did.nth, did.at
        from did
        where did.event = wanted[1]
        union
        select
            reached.step + 1,
            (select min(did.nth) from did where did.nth > reached.nth and did.event = wanted[reached.step + 1]),
            reached.started_at
        from reached
        where reached.step < cardinality(wanted) and reached.nth is not null
    )

    select coalesce(bool_or(did.at <= reached.started_at + within), false)
    from reached
    inner join did on did.nth = reached.nth
    where reached.step = cardinality(wanted)
);

-- The most that was counted in one session, which ends with half an hour without an event. Times come in their order.
create function upnext.most_in_session(times timestamptz[], counted boolean[])
returns bigint
language sql immutable parallel safe
return (
    with did as (
        select at, is_counted, nth, at - lag(at) over (order by nth) >= interval '30 minutes' as is_first
        from unnest(times, counted) with ordinality as did (at, is_counted, nth)
    ),

    in_sessions as (
        select is_counted, count(*) filter (where is_first) over (order by nth) as session
        from did
    )

    select coalesce(max(sessions.counted), 0)
    from (
        select count(*) filter (where in_sessions.is_counted) as counted
        from in_sessions
        group by in_sessions.session
    ) as sessions
);
