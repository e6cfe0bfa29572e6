with experiments as (
    select * from {{ ref('experiments') }}
),

exposures as materialized (
    select * from {{ ref('experiment_exposures') }}
),

seen as (
    select
        experiment,
        arm,
        count(*) as users,
        count(*) filter (where not is_window_over) as open_users,
        count(*) filter (where is_in_both_arms) as users_in_both_arms,
        min(exposed_at) as first_exposed_at
    from exposures
    group by experiment, arm
),

drawn as (
    select experiment, weights, count(*) as users
    from exposures
    group by experiment, weights
),

expected as (
    select drawn.experiment, shares.key as arm, sum(drawn.users * cast(shares.value as double precision)) as users
    from drawn
    cross join jsonb_each_text(drawn.weights) as shares
    group by drawn.experiment, shares.key
)

select
    expected.experiment,
    experiments.kind,
    experiments.segment,
    experiments.goal_version,
    experiments.minimum_lift,
    expected.arm,
    expected.users as expected_users,
    coalesce(seen.users, 0) as users,
    coalesce(seen.open_users, 0) as open_users,
    coalesce(seen.users_in_both_arms, 0) as users_in_both_arms,
    seen.first_exposed_at
from expected
inner join experiments on expected.experiment = experiments.experiment
left join seen on expected.experiment = seen.experiment and expected.arm = seen.arm
