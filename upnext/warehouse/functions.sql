-- Functions that all schemas share, re-created when this file changes. Use only `create or replace`: objects use them.

-- A number in [0, 1) that is always the same for a salt and a unit. It assigns holdouts and variants.
create or replace function upnext.bucket(salt text, unit text) returns double precision
language sql immutable strict parallel safe
return ('x' || substr(md5(salt || '/' || unit), 1, 8))::bit(32)::bigint / 4294967296.0::double precision;

-- The id under which somebody has features: a user's own, and for a visitor who is not identified one with a prefix,
-- which no user's id may have.
create or replace function upnext.person(kind text, id text) returns text
language sql immutable parallel safe
return case when kind = 'visitor' then 'visitor:' || id else id end;

-- The person that an event names. Mail providers tell of messages, and are nobody.
create or replace function upnext.said_by(user_id text, anonymous_id text) returns text
language sql immutable parallel safe
return coalesce(
    user_id, case when starts_with(anonymous_id, 'mail provider ') then '' end, 'visitor:' || anonymous_id, ''
);

create or replace function upnext.is_visitor(person text) returns boolean
language sql immutable parallel safe
return starts_with(person, 'visitor:');

-- Somebody who was erased, and of whom only the part in a result is kept, under an id that leads nowhere.
create or replace function upnext.is_nobody(person text) returns boolean
language sql immutable parallel safe
return starts_with(person, 'erased:');

-- Whether a table is spread over the nodes of a Citus cluster.
create or replace function upnext.is_spread(relation regclass) returns boolean language plpgsql stable as $$
begin
    if to_regclass('pg_dist_partition') is null then
        return false;
    end if;
    return exists (select from pg_dist_partition where logicalrelid = relation);
end $$;

-- Spread a table over the nodes of a Citus cluster by a column, which joins its primary key unless it is part of it, as
-- in a restored copy of a cluster. Without Citus, and where the table is spread already, nothing happens.
create or replace function upnext.spread(relation regclass, by_column text) returns void language plpgsql as $$
declare
    key record;
begin
    if not exists (select from pg_extension where extname = 'citus') or upnext.is_spread(relation) then
        return;
    end if;
    select
        conname,
        pg_get_constraintdef(oid) as definition,
        (select attnum from pg_attribute where attrelid = relation and attname = by_column) = any(conkey) as has_column
    into key
    from pg_constraint where conrelid = relation and contype = 'p';
    if not key.has_column then
        execute concat(
            'alter table ', relation, ' drop constraint ', quote_ident(key.conname),
            ', add ', replace(key.definition, ')', ', ' || quote_ident(by_column) || ')')
        );
    end if;
    execute 'select create_distributed_table($1, $2)' using relation, by_column;
    -- The rows are copies by now, which nobody sees here any more.
    execute 'select truncate_local_data_after_distributing_table($1)' using relation;
    -- A join of a local table with a spread one can lose rows without an error (Citus 13); this makes it an error.
    execute concat(
        'alter database ', quote_ident(current_database()), ' set citus.local_table_join_policy = never'
    );
end $$;

-- A JSON number, or a text that is written like one, as CSV's are; null for anything else, and for thousands of digits,
-- which no reader of features takes. Not STRICT, which would keep the planner from inlining it: four times the time.
create or replace function upnext.number(value jsonb) returns numeric
language sql immutable parallel safe
return case
    when jsonb_typeof(value) = 'number' then case when abs(value::numeric) < 1e300 then value::numeric end
    when
        length(value #>> '{}') <= 100
        and value #>> '{}' ~ '^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$'
        then (value #>> '{}')::numeric
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

-- Whether a JSON value is another, as text, number or boolean by the type of that one.
create or replace function upnext.equals(value jsonb, expected jsonb, ignore_case boolean) returns boolean
language sql immutable parallel safe
return case
    when jsonb_typeof(expected) = 'number' then upnext.number(value) = expected::numeric
    when ignore_case then lower(value #>> '{}') = lower(expected #>> '{}')
    else value #>> '{}' = expected #>> '{}'
end;

-- Whether a JSON value passes each test of a condition. macros/engine/conditions.sql writes the same tests as SQL, for
-- conditions that are known when dbt compiles; a test compares the two.
create or replace function upnext.passes_all(value jsonb, tests jsonb) returns boolean
language sql stable parallel safe
return (
    select coalesce(bool_and(coalesce(
        case test.name
            when 'equals' then upnext.equals(value, expected, ignore_case)
            when 'not' then not coalesce(upnext.equals(value, expected, ignore_case), false)
            when 'one_of' then exists (
                select from jsonb_array_elements(expected) as listed (one)
                where upnext.equals(passes_all.value, listed.one, ignore_case)
            )
            when 'none_of' then not exists (
                select from jsonb_array_elements(expected) as listed (one)
                where upnext.equals(passes_all.value, listed.one, ignore_case)
            )
            when 'at_least' then upnext.number(value) >= upnext.number(expected)
            when 'at_most' then upnext.number(value) <= upnext.number(expected)
            when 'more_than' then upnext.number(value) > upnext.number(expected)
            when 'less_than' then upnext.number(value) < upnext.number(expected)
            when 'between'
                then upnext.number(value) between upnext.number(expected -> 0) and upnext.number(expected -> 1)
            when 'contains' then strpos(cased.text, cased.sought) > 0
            when 'starts_with' then starts_with(cased.text, cased.sought)
            when 'ends_with' then right(cased.text, length(cased.sought)) = cased.sought
            when 'matches' then case
                when ignore_case then left(value #>> '{}', 1000) ~* (expected #>> '{}')
                else left(value #>> '{}', 1000) ~ (expected #>> '{}')
            end
            when 'before' then upnext.instant(value) < upnext.instant(expected)
            when 'after' then upnext.instant(value) > upnext.instant(expected)
            when 'exists' then (value #>> '{}' is not null) = expected::boolean
            when 'is_null' then coalesce(jsonb_typeof(value) = 'null', false) = expected::boolean
            when 'ignore_case' then true
        end,
        false
    )), true)
    from jsonb_each(tests) as test (name, expected)
    cross join lateral (select coalesce((tests -> 'ignore_case')::boolean, false) as ignore_case) as given
    cross join lateral (
        select
            case when ignore_case then lower(value #>> '{}') else value #>> '{}' end as text,
            case when ignore_case then lower(expected #>> '{}') else expected #>> '{}' end as sought
    ) as cased
);

-- Whether conditions hold for a JSON document; without any, they do.
create or replace function upnext.holds(document jsonb, conditions jsonb) returns boolean
language plpgsql stable parallel safe as $$
declare
    path text;
    test jsonb;
    passed boolean;
begin
    if jsonb_typeof(conditions) is distinct from 'object' then
        return true;
    end if;
    for path, test in select * from jsonb_each(conditions) loop
        if path in ('any', 'all') then
            passed := (
                select case path when 'any' then bool_or(each.holds) else bool_and(each.holds) end
                from (
                    select upnext.holds(document, listed.one) from jsonb_array_elements(test) as listed (one)
                ) as each (holds)
            );
        elsif path = 'not' then
            passed := not upnext.holds(document, test);
        else
            passed := upnext.passes_all(
                document #> string_to_array(path, '.'),
                case jsonb_typeof(test) when 'object' then test else jsonb_build_object('equals', test) end
            );
        end if;
        if not passed then
            return false;
        end if;
    end loop;
    return true;
end
$$;

-- Whether an event meets the `where` and the `context` of what asks for it, such as the entry of a journey or a wait,
-- and has the key of the run that asks (null: the run has none).
create or replace function upnext.is_asked_for(properties jsonb, context jsonb, asked jsonb, key text)
returns boolean
language sql stable parallel safe
return (key is null or properties #>> string_to_array(asked ->> 'keyed_by', '.') = key)
and upnext.holds(properties, asked -> 'where')
and upnext.holds(context, asked -> 'context');

create or replace function upnext.is_time_zone(name text) returns boolean
language plpgsql stable parallel safe as $$
begin
    perform now() at time zone name;
    -- Postgres also reads `UTC+2` as a zone, with the sign of POSIX: two hours to the west.
    return name ~ '^[A-Za-z]' and (
        name !~ '[0-9:]' or name ~* '^(etc/gmt[+-]?[0-9]{1,2}|est5edt|cst6cdt|mst7mdt|pst8pdt|(utc|gmt)[+-]?0+)$'
    );
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
        -- Two weeks: the only hour of a week may be the one that a change to summer time leaves out.
        from generate_series(-1, 15) as days (number)
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

-- The session of each event, from 0 on: half an hour without an event ends one. `times` must be in order.
create or replace function upnext.sessions_of(times timestamptz[]) returns integer[]
language plpgsql immutable parallel safe as $$
declare
    sessions integer[] := '{}';
    session integer := 0;
begin
    for nth in 1 .. coalesce(cardinality(times), 0) loop
        if nth > 1 and times[nth] - times[nth - 1] >= interval '30 minutes' then
            session := session + 1;
        end if;
        sessions[nth] := session;
    end loop;
    return sessions;
end $$;

-- The places of events with a key, those of the same key one after the other; null where all are of one.
create or replace function upnext.places_by_key(keys text[]) returns integer[]
language sql immutable parallel safe
return case
    when keys is not null then array(
        select given.nth::integer
        from unnest(keys) with ordinality as given (key, nth)
        where given.key is not null
        order by given.key collate "C", given.nth
    )
end;

-- Whether these events, in their order, hold the steps of a sequence. `matched` has a bit for each step that an event
-- is, and bit 30 for an event that must not lie between. Events of different `keys` (null: all are of one) are apart,
-- and without `within` also those of different sessions. `ordering` is given, strict (nothing lies between), or any,
-- which needs each step `needed` times.
--
-- `begun` has, for each step, the latest beginning of a run of events up to it; an earlier one never serves better. A
-- loop, because a query takes longer to begin than most people's events to be read.
create or replace function upnext.has_sequence(
    matched integer[], times timestamptz[], keys text[], needed integer[], within interval, ordering text
)
returns boolean
language plpgsql immutable parallel safe as $$
declare
    places integer[] := upnext.places_by_key(keys);
    sessions integer[] := case when within is null then upnext.sessions_of(times) end;
    begun timestamptz[] := '{}';
    steps integer := cardinality(needed);
    nth integer;
    before integer;
begin
    if ordering = 'any' then
        return upnext.has_all(matched, times, keys, needed, within);
    end if;
    for place in 1 .. coalesce(cardinality(places), cardinality(matched), 0) loop
        nth := case when places is null then place else places[place] end;
        if keys[nth] <> keys[before] or sessions[nth] <> sessions[before] then
            begun := '{}';
        end if;
        before := nth;
        for step in reverse steps .. 2 loop
            begun[step] := case
                when matched[nth] & (1 << (step - 1)) = 0 then case when ordering <> 'strict' then begun[step] end
                when ordering = 'strict' then begun[step - 1]
                else greatest(begun[step], begun[step - 1])
            end;
        end loop;
        begun[1] := case
            when matched[nth] & 1 > 0 then times[nth] when ordering <> 'strict' then begun[1]
        end;
        if matched[nth] & (1 << (steps - 1)) > 0
            and (within is null or times[nth] <= begun[steps] + within)
            and begun[steps] is not null
        then
            return true;
        end if;
        if matched[nth] & (1 << 30) > 0 then
            begun := case when matched[nth] & 1 > 0 then array[times[nth]] else '{}' end;
        end if;
    end loop;
    return false;
end $$;

-- Whether each step comes as often as it is needed, in any order, from some event on: a window over the events that
-- takes in the next one, and leaves out those that are too old beside it.
create or replace function upnext.has_all(
    matched integer[], times timestamptz[], keys text[], needed integer[], within interval
)
returns boolean
language plpgsql immutable parallel safe as $$
declare
    places integer[] := upnext.places_by_key(keys);
    sessions integer[] := case when within is null then upnext.sessions_of(times) end;
    missing integer[] := needed;
    oldest integer := 1;
    nth integer;
    before integer;
    gone integer;
begin
    for place in 1 .. coalesce(cardinality(places), cardinality(matched), 0) loop
        nth := case when places is null then place else places[place] end;
        if keys[nth] <> keys[before] or sessions[nth] <> sessions[before] then
            missing := needed;
            oldest := place;
        end if;
        before := nth;
        for step in 1 .. cardinality(needed) loop
            if matched[nth] & (1 << (step - 1)) > 0 then
                missing[step] := missing[step] - 1;
            end if;
        end loop;
        loop
            gone := case when places is null then oldest else places[oldest] end;
            exit when within is null or times[nth] <= times[gone] + within;
            for step in 1 .. cardinality(needed) loop
                if matched[gone] & (1 << (step - 1)) > 0 then
                    missing[step] := missing[step] + 1;
                end if;
            end loop;
            oldest := oldest + 1;
        end loop;
        if 0 >= all (missing) then
            return true;
        end if;
    end loop;
    return false;
end $$;

-- When each begun event turns out as not finished: `within` after it, if no finished one of its key follows until then.
create or replace function upnext.unfinished(
    begun boolean[], finished boolean[], times timestamptz[], keys text[], within interval
)
returns setof timestamptz
language sql immutable parallel safe
begin atomic
with did as (
    select given.is_begun, given.is_finished, given.at, given.nth, given.key
    from unnest(begun, finished, times, keys) with ordinality as given (is_begun, is_finished, at, key, nth)
    where keys is null or given.key is not null
),

-- From the last to the first, so that each row adds to what the one before it knows.
followed as (
    select
        did.is_begun,
        did.at,
        min(did.at) filter (where did.is_finished) over (
            partition by did.key order by did.nth desc rows between unbounded preceding and 1 preceding
        ) as finished_at
    from did
)

select followed.at + within
from followed
where followed.is_begun and (followed.finished_at is null or followed.finished_at > followed.at + within);
end;

-- Whether an event after `since` came at least `gap` after the one before it. `times` must be in order.
create or replace function upnext.has_resumed(times timestamptz[], gap interval, since timestamptz) returns boolean
language sql immutable parallel safe
return (
    select coalesce(bool_or(in_order.at > since and in_order.at >= in_order.before + gap), false)
    from (
        select given.at, lag(given.at) over (order by given.nth) as before
        from unnest(times) with ordinality as given (at, nth)
    ) as in_order
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
exception when data_exception or cardinality_violation then
    return case sqlstate
        when '22P02' then 'a value is not of the type that it is read as'
        when '22003' then 'a number is out of range'
        when '22007' then 'a value is no time'
        when '22008' then 'a time is out of range'
        when '22012' then 'division by zero'
        when '22023' then 'a function does not take a value that it was given'
        when '21000' then 'a subquery that stands for one value has several rows'
        else 'a value cannot be computed with'
    end || ' (SQLSTATE ' || sqlstate || ')';
end
$$;

-- The server and the number of this database there. A restored dump is another database; a server that takes over for a
-- failed one has the same.
create or replace function upnext.this_database() returns text language sql stable as $$
    select system.system_identifier || '/' || databases.oid
    from pg_control_system() as system
    cross join pg_database as databases
    where databases.datname = current_database()
$$;

-- Started journeys and experiences, with the time and the author of the start.
create or replace view upnext.started as
select name, changed_at as since, changed_by as started_by
from (select distinct on (name) * from upnext.switches order by name, switch_id desc) as newest
where is_started;

-- Before release 17, a block with an EXCEPTION fails in a parallel query, and so does what calls such a function.
do $$
begin
    if current_setting('server_version_num')::integer < 170000 then
        alter function upnext.instant parallel unsafe;
        alter function upnext.is_time_zone parallel unsafe;
        alter function upnext.passes_all parallel unsafe;
        alter function upnext.holds parallel unsafe;
        alter function upnext.is_asked_for parallel unsafe;
    end if;
end $$;
