with daily_moments as (
    select
        experiment,
        split,
        arm,
        metric,
        type,
        users,
        conversions,
        mean,
        squares,
        paired_mean,
        paired_squares,
        products
    from {{ ref('daily_moments') }}
    union all
    select
        experiment,
        split,
        arm,
        metric,
        type,
        users,
        conversions,
        mean,
        squares,
        paired_mean,
        paired_squares,
        products
    from {{ ref('capped_moments') }}
),

{# Deviations are taken from the mean of all days before they are squared, so large means lose no precision. #}
placed as (
    select
        *,
        sum(users * mean) over arms / sum(users) over arms as mean_of_all,
        sum(users * paired_mean) over arms / sum(users) over arms as paired_mean_of_all
    from daily_moments
    window arms as (partition by experiment, split, arm, metric)
),

summed as (
    select
        experiment,
        split,
        arm,
        metric,
        type,
        cast(sum(users) as bigint) as users,
        cast(sum(conversions) as bigint) as conversions,
        min(mean_of_all) as mean,
        sum(squares + users * (mean - mean_of_all) ^ 2) as squares,
        min(paired_mean_of_all) as paired_mean,
        sum(paired_squares + users * (paired_mean - paired_mean_of_all) ^ 2) as paired_squares,
        sum(products + users * (mean - mean_of_all) * (paired_mean - paired_mean_of_all)) as products
    from placed
    group by experiment, split, arm, metric, type
),

{# A value of 9.99 for every user sums to a deviation in the thirteenth digit, which counts as zero. #}
rounded as (
    select
        *,
        case when squares > users * (1e-10 * mean) ^ 2 then 1 else 0 end as varies,
        case when paired_squares > users * (1e-10 * paired_mean) ^ 2 then 1 else 0 end as paired_varies
    from summed
)

select
    experiment,
    split,
    arm,
    users,
    metric,
    type,
    conversions,
    mean,
    varies * squares / nullif(users - 1, 0) as variance,
    case when type = 'mean' then paired_mean end as covariate_mean,
    case when type = 'mean' then paired_varies * paired_squares / nullif(users - 1, 0) end as covariate_variance,
    case when type = 'ratio' then paired_mean end as denominator_mean,
    case when type = 'ratio' then paired_varies * paired_squares / nullif(users - 1, 0) end as denominator_variance,
    varies * paired_varies * products / nullif(users - 1, 0) as covariance
from rounded
