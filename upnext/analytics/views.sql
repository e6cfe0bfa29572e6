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
    where assigned_at < (select max(as_of) from segments.published_ticks) or (select analytics.has_programme());
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

create or replace trigger held_out_inserted after insert on experiences.held_out
referencing new table as written for each statement execute function analytics.invalidate_users();

create or replace trigger assignments_deleted after delete on experiences.assignments
referencing old table as written for each statement execute function analytics.invalidate_users();

create or replace trigger assignments_updated after update on experiences.assignments
for each row when (
    (old.variant, old.assigned_at, old.mode, old.rules) is distinct from
    (new.variant, new.assigned_at, new.mode, new.rules)
)
execute function analytics.invalidate_user();

-- What the programme was worth at each analysis: goals and revenue beyond those of users whom nothing reached. Users
-- count when their window is over. Bounds are those of the always-valid interval.
create or replace view analytics.programme_number as
select
    goals.as_of,
    started.since as started_at,
    goals.n_arm as users_reached,
    goals.n_control as users_held_out,
    goals.diff * goals.n_arm as goals,
    goals.diff_always_low * goals.n_arm as goals_low,
    goals.diff_always_high * goals.n_arm as goals_high,
    revenue.metric as revenue_metric,
    revenue.diff * revenue.n_arm as revenue,
    revenue.diff_always_low * revenue.n_arm as revenue_low,
    revenue.diff_always_high * revenue.n_arm as revenue_high,
    goals.p_always_valid,
    goals.decision,
    goals.reason
from analytics.experiment_results as goals
cross join analytics.programme
cross join lateral (
    select min(entries.entered_at) as since from journeys.entries where entries.arm is not null
) as of_journeys
cross join lateral (select min(held_out.since) as since from experiences.held_out) as of_experiences
cross join lateral (select least(of_journeys.since, of_experiences.since) as since) as started
left join analytics.experiment_results as revenue
    on
        revenue.as_of = goals.as_of
        and revenue.experiment = goals.experiment
        and revenue.arm = goals.arm
        and revenue.metric = programme.revenue
where goals.experiment = 'programme' and goals.metric = 'goal';
