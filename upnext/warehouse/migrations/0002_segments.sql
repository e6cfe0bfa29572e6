create schema if not exists events;
create schema if not exists features;
create schema if not exists segments;

-- At most one tick is open (published_at is null). What it has written is seen by nobody until it is published.
create table segments.ticks (
    tick_id bigint generated always as identity primary key,
    as_of timestamptz not null,
    published_at timestamptz
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

-- The newest published tick that each consumer of membership changes has acted on.
create table segments.consumers (
    consumer text primary key,
    tick_id bigint not null
);

create view segments.published_changes as
select change_id, tick_id, segment, user_id, change, as_of
from segments.membership_changes
where tick_id is distinct from (select tick_id from segments.ticks where published_at is null);

create view segments.current_members as
select segment, user_id, as_of as entered_at
from (
    select distinct on (segment, user_id) segment, user_id, change, as_of
    from segments.published_changes
    order by segment, user_id, change_id desc
) as latest
where change = 'entered';

-- A number in [0, 1) that is always the same for a salt and a unit: who is held out, who gets which variant.
create function upnext.bucket(salt text, unit text) returns double precision
language sql immutable strict parallel safe
return ('x' || substr(md5(salt || '/' || unit), 1, 8))::bit(32)::bigint / 4294967296.0::double precision;
