with experiments as (
    select * from {{ ref('experiments') }}
),

experiment_users as (
    select * from {{ ref('experiment_users') }}
),

seen as materialized (
    select
        experiment,
        arm,
        weights,
        count(*) as users,
        count(*) filter (where not is_window_over) as open_users,
        count(*) filter (where is_in_both_arms) as users_in_both_arms,
        min(exposed_at) as first_exposed_at
    from experiment_users
    group by experiment, arm, weights
),

arms as (
    select
        experiment,
        arm,
        sum(users) as users,
        sum(open_users) as open_users,
        sum(users_in_both_arms) as users_in_both_arms,
        min(first_exposed_at) as first_exposed_at
    from seen
    group by experiment, arm
),

expected as (
    select seen.experiment, shares.key as arm, sum(seen.users * cast(shares.value as double precision)) as users
    from seen
    cross join jsonb_each_text(seen.weights) as shares
    group by seen.experiment, shares.key
)

select
    expected.experiment,
    experiments.kind,
    experiments.segment,
    experiments.goal_version,
    experiments.minimum_lift,
    expected.arm,
    expected.users as expected_users,
    cast(coalesce(arms.users, 0) as bigint) as users,
    cast(coalesce(arms.open_users, 0) as bigint) as open_users,
    cast(coalesce(arms.users_in_both_arms, 0) as bigint) as users_in_both_arms,
    arms.first_exposed_at
from expected
inner join experiments on expected.experiment = experiments.experiment
left join arms on expected.experiment = arms.experiment and expected.arm = arms.arm
