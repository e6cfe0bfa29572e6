with stale_days as (
    select * from {{ source('analytics', 'stale_days') }}
),

experiment_users as not materialized (
    select * from {{ ref('experiment_users') }}
),

{# `offset 0` forces an index look-up per day, whatever row count the planner estimates. #}
users as (
    select users.*
    from stale_days
    cross join lateral (
        select experiment_users.*
        from experiment_users
        where
            experiment_users.experiment = stale_days.experiment
            and experiment_users.exposed_on = stale_days.exposed_on
            and experiment_users.is_window_over
        offset 0
    ) as users
)

select * from (
    {{ moments_of('users', uncapped_metrics(described_columns('experiment_users'))) }}
) as moments
