-- dbt makes these anew: `experiment_users` is a table now, kept up by the analysis.
drop view if exists analytics.experiment_exposures, analytics.experiment_users, analytics.experiment_moments cascade;

-- Whose exposures and outcomes the newest analysis looked up again.
create table analytics.touched_users (
    user_id text primary key
);

-- Of which days (UTC) of first exposure it computed the moments again.
create table analytics.touched_days (
    experiment text not null,
    exposed_on date not null,
    primary key (experiment, exposed_on)
);

-- Whose entries or assignments were written since the last analysis. A dispatch may commit after an analysis of a later
-- tick, so no instant and no tick tells them.
create table analytics.changed_users (
    user_id text not null
);

create function analytics.note_changed_users() returns trigger language plpgsql as $$
begin
    insert into analytics.changed_users select distinct user_id from written;
    return null;
end
$$;

create function analytics.note_changed_user() returns trigger language plpgsql as $$
begin
    insert into analytics.changed_users values (old.user_id), (new.user_id);
    return null;
end
$$;

create trigger entries_inserted after insert on journeys.entries
referencing new table as written for each statement execute function analytics.note_changed_users();

create trigger entries_deleted after delete on journeys.entries
referencing old table as written for each statement execute function analytics.note_changed_users();

-- Most updates move an entry from one step to the next: these change nothing for an experiment.
create trigger entries_updated after update on journeys.entries
for each row when (
    (
        old.user_id, old.version, old.entered_at, old.is_in_both_arms,
        old.status = 'held_out', old.status = 'excluded', old.reason = 'global holdout'
    )
    is distinct from
    (
        new.user_id, new.version, new.entered_at, new.is_in_both_arms,
        new.status = 'held_out', new.status = 'excluded', new.reason = 'global holdout'
    )
) execute function analytics.note_changed_user();

-- Who is assigned by a tick sees something only after it, and is found by that.
create function analytics.note_late_assignments() returns trigger language plpgsql as $$
begin
    insert into analytics.changed_users
    select distinct user_id from written
    where assigned_at < (select max(as_of) from segments.ticks where published_at is not null);
    return null;
end
$$;

create trigger assignments_inserted after insert on experiences.assignments
referencing new table as written for each statement execute function analytics.note_late_assignments();

create trigger assignments_deleted after delete on experiences.assignments
referencing old table as written for each statement execute function analytics.note_changed_users();

create trigger assignments_updated after update on experiences.assignments
for each row when ((old.variant, old.assigned_at) is distinct from (new.variant, new.assigned_at))
execute function analytics.note_changed_user();

-- As before, but not STRICT, which kept the planner from writing it out where it is called: a quarter of the time.
create or replace function upnext.number(value jsonb) returns numeric
language sql immutable parallel safe
return case
    when jsonb_typeof(value) = 'number' then value::numeric
    when value #>> '{}' ~ '^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$' then (value #>> '{}')::numeric
end;
