with users as (
    select * from {{ ref('experiment_users') }} where is_window_over
),

outcomes as (
    select experiment, kind, segment, arm, 'goal' as metric, cast(has_reached_goal as integer) as outcome from users
    union all
    select experiment, kind, segment, arm, 'clicked' as metric, cast(has_clicked as integer) as outcome
    from users
    where kind = 'experience'
)

select
    experiment,
    kind,
    segment,
    metric,
    arm,
    count(*) as users,
    sum(outcome) as conversions,
    avg(outcome) as mean,
    var_samp(outcome) as variance
from outcomes
group by experiment, kind, segment, metric, arm
