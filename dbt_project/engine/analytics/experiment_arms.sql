with experiments as (
    select * from {{ ref('experiments') }}
),

experiment_users as (
    select * from {{ ref('experiment_users') }}
),

seen as materialized (
    select
        experiment,
        split,
        weights,
        arm,
        count(*) as users,
        count(*) filter (where not is_window_over) as open_users,
        count(*) filter (where is_in_both_arms) as users_in_both_arms,
        min(exposed_at) as first_exposed_at
    from experiment_users
    group by experiment, split, weights, arm
),

expected as (
    select
        drawn.experiment,
        drawn.split,
        shares.key as arm,
        drawn.users * cast(shares.value as double precision) as users
    from (select experiment, split, weights, sum(users) as users from seen group by experiment, split, weights) as drawn
    cross join jsonb_each_text(drawn.weights) as shares
)

select
    expected.experiment,
    experiments.kind,
    experiments.segment,
    experiments.goal_version,
    experiments.minimum_lift,
    expected.split,
    expected.arm,
    expected.users as expected_users,
    cast(coalesce(seen.users, 0) as bigint) as users,
    cast(coalesce(seen.open_users, 0) as bigint) as open_users,
    cast(coalesce(seen.users_in_both_arms, 0) as bigint) as users_in_both_arms,
    seen.first_exposed_at
from expected
inner join experiments on expected.experiment = experiments.experiment
left join seen
    on expected.experiment = seen.experiment and expected.split = seen.split and expected.arm = seen.arm
