with users as (
    select * from {{ ref('experiment_users') }} where is_window_over
),

experiments as (
    select * from {{ ref('experiments') }}
),

counted as (
    select
        segments.segment,
        users.experiment,
        users.split,
        users.arm,
        count(*) as users,
        count(*) filter (where users.has_reached_goal) as conversions
    from users
    cross join unnest(users.segments) as segments (segment)
    group by segments.segment, users.experiment, users.split, users.arm
)

select
    counted.segment,
    counted.experiment,
    counted.split,
    counted.arm,
    experiments.minimum_lift,
    counted.users,
    counted.conversions
from counted
inner join experiments on counted.experiment = experiments.experiment
