-- name: lock
-- It takes no snapshot: an analysis that waits here then sees what the one before it has committed.
lock table analytics.stale_days in exclusive mode;

-- name: refresh_users
-- The models of dbt make the two functions.
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
