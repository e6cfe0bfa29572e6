-- Loads that are new to a consumer that has acted on all ticks up to this one: later ticks read them, or none has yet.
create or replace function raw.loads_since(tick bigint) returns setof bigint
language sql stable rows 10
as $$ select load_id from raw.loads where tick_id is null or tick_id > tick $$;

-- These functions plan each look-up for its values: names and loads differ in size by orders of magnitude.

-- Whether a person has an event in an account, or one that names none.
create or replace function raw.has_events(of_person text, of_account text) returns boolean
language plpgsql stable
set plan_cache_mode = force_custom_plan as $$
begin
    return exists (
        select 1 from raw.events where person_id = of_person and account_id is not distinct from of_account
    );
end $$;

-- Whether any event of a load is there.
create or replace function raw.has_stored(of_load bigint) returns boolean
language plpgsql stable
set plan_cache_mode = force_custom_plan as $$
begin
    return exists (select 1 from raw.events where load_id = of_load);
end $$;

-- The number of events of a name after one instant and up to another.
create or replace function raw.count_events(of_event text, since timestamptz, up_to timestamptz) returns bigint
language plpgsql stable
set plan_cache_mode = force_custom_plan as $$
begin
    return (
        select count(*) from raw.events where event = of_event and occurred_at > since and occurred_at <= up_to
    );
end $$;

-- When events of a name last came, up to an instant; of those without a name, where it is null.
create or replace function raw.last_seen(of_event text, up_to timestamptz) returns timestamptz
language plpgsql stable
set plan_cache_mode = force_custom_plan as $$
begin
    if of_event is null then
        return (select max(occurred_at) from raw.events where event is null and occurred_at <= up_to);
    end if;
    return (select max(occurred_at) from raw.events where event = of_event and occurred_at <= up_to);
end $$;

-- The names of events, each with its first and last occurrence, for whoever may read the views over it. A loop reads
-- the index once per name, which takes less than a scan; a recursive query does too, but not over a spread table.
create or replace function raw.seen_names() returns table (event text, first_at timestamptz, last_at timestamptz)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan as $$
begin
    event := '';
    loop
        select min(events.event) into event from raw.events where events.event > seen_names.event;
        exit when event is null;
        select min(events.occurred_at), max(events.occurred_at) into first_at, last_at
        from raw.events
        where events.event = seen_names.event;
        return next;
    end loop;
end $$;

create or replace view raw.event_names as
select event, first_at, last_at from raw.seen_names();
