-- Functions that all schemas share, re-created when this file changes. Use only `create or replace`: objects use them.

-- A number in [0, 1) that is always the same for a salt and a unit. It assigns holdouts and variants.
create or replace function upnext.bucket(salt text, unit text) returns double precision
language sql immutable strict parallel safe
return ('x' || substr(md5(salt || '/' || unit), 1, 8))::bit(32)::bigint / 4294967296.0::double precision;

-- A JSON number, or a text that is written like one, as CSV's are; null for anything else. Not STRICT, which would keep
-- the planner from inlining it: four times the time.
create or replace function upnext.number(value jsonb) returns numeric
language sql immutable parallel safe
return case
    when jsonb_typeof(value) = 'number' then value::numeric
    when value #>> '{}' ~ '^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$' then (value #>> '{}')::numeric
end;

-- A JSON boolean, or a text or a number that is written like one; null for anything else.
create or replace function upnext.boolean(value jsonb) returns boolean
language sql immutable parallel safe
return case
    when lower(value #>> '{}') in ('true', 't', 'yes', 'y', '1') then true
    when lower(value #>> '{}') in ('false', 'f', 'no', 'n', '0') then false
end;

-- An instant that a text states in ISO 8601, in UTC where it names no zone; null for anything else.
create or replace function upnext.instant(value jsonb) returns timestamptz
language plpgsql stable parallel safe as $$
begin
    if value #>> '{}' ~ '^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?( ?(Z|[+-]\d{2}(:?\d{2})?))?)?$' then
        return (value #>> '{}')::timestamptz;
    end if;
    return null;
exception when data_exception then
    return null;
end
$$;

-- Whether a value passes the test of a branch: one of equals, at_least, at_most.
create or replace function upnext.passes(value jsonb, test jsonb) returns boolean
language sql immutable parallel safe
return coalesce(
    case
        when test ->> 'equals' is not null then value = test -> 'equals'
        when test ->> 'at_least' is not null then upnext.number(value) >= upnext.number(test -> 'at_least')
        when test ->> 'at_most' is not null then upnext.number(value) <= upnext.number(test -> 'at_most')
    end,
    false
);

create or replace function upnext.is_time_zone(name text) returns boolean
language plpgsql stable parallel safe as $$
begin
    perform now() at time zone name;
    return name ~ '^[A-Za-z]';
exception when invalid_parameter_value then
    return false;
end $$;

-- Whether a clock shows a time between `hours.from` and `hours.to`; where these are equal, always.
create or replace function upnext.is_within(clock time, hours jsonb) returns boolean
language sql immutable parallel safe
return case
    when hours ->> 'from' < hours ->> 'to' then clock >= (hours ->> 'from')::time and clock < (hours ->> 'to')::time
    else clock >= (hours ->> 'from')::time or clock < (hours ->> 'to')::time
end;

-- The first instant from `at` on that lies in the send window and out of the quiet hours (null: any time) by the clock
-- of a time zone: `at` itself, or a beginning of the window, or an end of the quiet hours.
create or replace function upnext.first_allowed(at timestamptz, zone text, send_window jsonb, quiet_hours jsonb)
returns timestamptz
language sql stable parallel safe
return case when send_window is null and quiet_hours is null then at else (
    select min(candidates.instant)
    from (
        select at as instant
        union all
        select (((at at time zone zone)::date + days.number) + clocks.clock) at time zone zone
        from generate_series(-1, 8) as days (number)
        cross join (
            select (send_window ->> 'from')::time as clock union all select (quiet_hours ->> 'to')::time
        ) as clocks
    ) as candidates
    cross join lateral (select candidates.instant at time zone zone as wall) as local
    where
        candidates.instant >= at
        and (
            send_window is null
            or (
                upnext.is_within(local.wall::time, send_window)
                -- Past midnight, the window belongs to the day on which it began.
                and send_window -> 'days' ? lower(to_char(
                    local.wall - case
                        when
                            send_window ->> 'from' >= send_window ->> 'to'
                            and local.wall::time < (send_window ->> 'from')::time
                            then interval '1 day'
                        else interval '0'
                    end,
                    'FMdy'
                ))
            )
        )
        and (quiet_hours is null or not upnext.is_within(local.wall::time, quiet_hours))
) end;

-- Whether these events, in their order, hold the wanted ones one after the other, from first to last in `within`.
create or replace function upnext.has_sequence(events text[], times timestamptz[], wanted text[], within interval)
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

-- The highest count in one session. Half an hour without an event ends a session. `times` must be in order.
create or replace function upnext.most_in_session(times timestamptz[], counted boolean[])
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

-- When values, in the order of their times, last changed from one to another; null where they never have.
create or replace function upnext.last_change(changing text[], times timestamptz[]) returns timestamptz
language sql immutable parallel safe
return (
    select max(in_order.at) filter (where in_order.nth > 1 and in_order.value is distinct from in_order.before)
    from (
        select value, at, nth, lag(value) over (order by nth) as before
        from unnest(changing, times) with ordinality as given (value, at, nth)
    ) as in_order
);

-- Whether a session of this database holds the advisory lock of this name. With `holder`, only that server process
-- counts.
create or replace function upnext.is_locked(name text, holder integer default null) returns boolean
language sql volatile
return exists (
    select from pg_locks
    where
        locktype = 'advisory'
        and granted
        and database = (select oid from pg_database where datname = current_database())
        and classid::bigint << 32 | objid::bigint = hashtextextended('upnext:' || name, 0)
        and (holder is null or pid = holder)
);

-- The opener of a tick loses its lock with its session, and may not notice. So each transaction that writes for a tick
-- calls this first. Until it ends, no other session can take the tick over. After a takeover, this fails.
create or replace function upnext.fence_tick(number bigint) returns void language plpgsql as $$
begin
    perform from segments.ticks
    where tick_id = number and published_at is null and upnext.is_locked('tick', holder)
    for share;
    if not found then
        raise exception using message
            = concat('tick ', number, ' has lost its lock, or was taken over by a later one: it writes nothing more');
    end if;
end
$$;

-- Run a statement, and return the error that a value causes; null where there is none. An unreadable value undoes only
-- this statement. The server's message may quote personal data, so this returns its own text.
create or replace function upnext.attempt(statement text) returns text language plpgsql as $$
begin
    execute statement;
    return null;
exception when data_exception then
    return case sqlstate
        when '22P02' then 'a value is not of the type that it is read as'
        when '22003' then 'a number is out of range'
        when '22007' then 'a value is no time'
        when '22008' then 'a time is out of range'
        when '22012' then 'division by zero'
        when '22023' then 'a function does not take a value that it was given'
        else 'a value cannot be computed with'
    end || ' (SQLSTATE ' || sqlstate || ')';
end
$$;

-- Started journeys and experiences, with the time and the author of the start.
create or replace view upnext.started as
select name, changed_at as since, changed_by as started_by
from (select distinct on (name) * from upnext.switches order by name, switch_id desc) as newest
where is_started;
