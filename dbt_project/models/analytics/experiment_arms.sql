with exposures as (
    select * from {{ ref('experiment_exposures') }}
),

seen as (
    select experiment, arm, count(*) as users, max(exposed_at) as last_exposed_at
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
    expected.arm,
    coalesce(seen.users, 0) as users,
    expected.users as expected_users,
    seen.last_exposed_at
from expected
left join seen on expected.experiment = seen.experiment and expected.arm = seen.arm
