-- name: lock
-- It takes no snapshot: an analysis that waits here then sees what the one before it has committed.
lock table analytics.stale_days in exclusive mode;

-- name: sessions
-- How many sessions compute the users of experiments: none but the analysis itself where some are computed already, or
-- few are there; else as many as the server has workers for one query.
select case
    when
        (select tick_id from features.states where model = 'experiment_users') = 0
        and exists (select 1 from segments.published_ticks)
        and cast(:few_users as bigint) < (
            select count(*) from (
                select 1 from experiences.assignments
                union all
                select 1 from journeys.entries
                union all
                select 1 from experiences.held_out
                limit cast(:few_users as bigint) + 1
            ) as users
        )
        then cast(current_setting('max_parallel_workers_per_gather') as integer)
    else 0
end;

-- name: forget_stale
truncate analytics.stale_users, analytics.stale_events;

-- name: snapshot
select pg_export_snapshot();

-- name: compute_part
-- The models of dbt make the functions.
select analytics.compute_part_of_experiment_users(:part, :parts);

-- name: note_as_computed
select analytics.note_experiment_users_as_computed();

-- name: refresh_users
select analytics.refresh_experiment_users(false);

-- name: refresh_moments
select analytics.refresh_daily_moments(false);

-- name: count_stale_users
select count(*) from analytics.stale_users;

-- name: moments
select
    experiment,
    metric,
    type,
    split,
    arm,
    users,
    conversions,
    mean,
    variance,
    covariate_mean,
    covariate_variance,
    denominator_mean,
    denominator_variance,
    covariance
from analytics.experiment_moments;

-- name: arms
select * from analytics.experiment_arms order by experiment, split, arm;

-- name: halves
-- Users by the half of the time in which they were exposed, and on how many days users were.
with days as (
    select experiment, arm, exposed_on, sum(users) as users, sum(conversions) as conversions
    from analytics.daily_moments
    where metric = 'goal'
    group by experiment, arm, exposed_on
),

spans as (
    select
        experiment,
        min(exposed_on) + (max(exposed_on) - min(exposed_on)) / 2 as middle,
        max(exposed_on) - min(exposed_on) + 1 as days
    from days
    group by experiment
)

select
    days.experiment,
    days.arm,
    spans.days,
    days.exposed_on > spans.middle as is_late,
    cast(sum(days.users) as bigint) as users,
    cast(sum(days.conversions) as bigint) as conversions
from days
inner join spans on spans.experiment = days.experiment
group by days.experiment, days.arm, spans.days, is_late;

-- name: generic_arms
select
    experience,
    array_agg(variants.key) as arms
from experiences.definitions
cross join jsonb_each(definition -> 'variants') as variants
where cast(variants.value ->> 'generic' as boolean)
group by experience;

-- name: segment_counts
select * from analytics.segment_counts;

-- name: copy_counts
select * from analytics.copy_counts;

-- name: funnel
select
    journey,
    step,
    entered,
    sent,
    opened,
    clicked,
    converted
from analytics.journey_steps;

-- name: earlier_looks
-- The previous look has the minimum over all looks before it, if the goal is the same.
select
    results.experiment,
    results.metric,
    results.arm,
    results.p_always_valid,
    results.p_favours
from unnest(cast(:experiments as text []), cast(:metrics as text []), cast(:arms as text []), cast(:goals as text []))
    as looks (experiment, metric, arm, goal_version)
cross join lateral (
    select earlier.*
    from analytics.experiment_results as earlier
    where
        earlier.experiment = looks.experiment
        and earlier.metric = looks.metric
        and earlier.arm = looks.arm
        and earlier.goal_version = looks.goal_version
        and earlier.as_of < :as_of
    order by earlier.as_of desc
    limit 1
) as results;

-- name: newest_results
select *
from analytics.experiment_results
where metric = 'goal' and as_of = (select max(as_of) from analytics.experiment_results)
order by experiment, arm;
