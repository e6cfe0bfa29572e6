-- Triggers that queue the users of a write for the next analysis.
create or replace function analytics.invalidate_users() returns trigger language plpgsql as $$
begin
    insert into analytics.invalidated_users select distinct user_id from written;
    return null;
end
$$;

create or replace function analytics.invalidate_user() returns trigger language plpgsql as $$
begin
    insert into analytics.invalidated_users values (old.user_id), (new.user_id);
    return null;
end
$$;

-- A user assigned at a tick is exposed only after it, and the analysis finds the user by that exposure.
create or replace function analytics.invalidate_late_assignments() returns trigger language plpgsql as $$
begin
    insert into analytics.invalidated_users
    select distinct user_id from written
    where assigned_at < (select max(as_of) from segments.published_ticks);
    return null;
end
$$;

create or replace trigger entries_inserted after insert on journeys.entries
referencing new table as written for each statement execute function analytics.invalidate_users();

create or replace trigger entries_deleted after delete on journeys.entries
referencing old table as written for each statement execute function analytics.invalidate_users();

-- Most updates move an entry from one step to the next: these change nothing for an experiment.
create or replace trigger entries_updated after update on journeys.entries
for each row when (
    (old.user_id, old.version, old.entered_at, old.is_in_both_arms, old.arm, old.is_held_out_globally,
        old.goal_reached_at)
    is distinct from
    (new.user_id, new.version, new.entered_at, new.is_in_both_arms, new.arm, new.is_held_out_globally,
        new.goal_reached_at)
) execute function analytics.invalidate_user();

create or replace trigger assignments_inserted after insert on experiences.assignments
referencing new table as written for each statement execute function analytics.invalidate_late_assignments();

create or replace trigger assignments_deleted after delete on experiences.assignments
referencing old table as written for each statement execute function analytics.invalidate_users();

create or replace trigger assignments_updated after update on experiences.assignments
for each row when ((old.variant, old.assigned_at) is distinct from (new.variant, new.assigned_at))
execute function analytics.invalidate_user();
