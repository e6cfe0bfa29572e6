{%- set metrics = capped_metrics(described_columns('experiment_users')) -%}
with experiment_users as (
    select * from {{ ref('experiment_users') }}
),

{# One cap applies to all arms of an experiment, so that one extreme user does not move the cap of a single arm. #}
caps as (
    select
        experiment
        {%- for metric in metrics %}
        {%- for column in [metric.name, metric.name ~ '__before'] %},
        percentile_disc({{ share_of_cap(metric.config.meta.cap) }}) within group (order by {{ column }}) as {{ column }}
        {%- endfor %}
        {%- endfor %}
    from experiment_users
    where is_window_over
    group by experiment
),

users as (
    select
        users.experiment,
        users.split,
        users.arm,
        users.is_window_over
        {%- for metric in metrics %}
        {%- for column in [metric.name, metric.name ~ '__before'] %},
        least(users.{{ column }}, caps.{{ column }}) as {{ column }}
        {%- endfor %}
        {%- endfor %}
    from experiment_users as users
    inner join caps on users.experiment = caps.experiment
)

{% if metrics -%}
select * from (
    {{ moments_of('users', metrics, keys=['experiment', 'split', 'arm'], with_outcomes=false) }}
) as moments
{%- else -%}
{# Without capped metrics, return no rows, with the same columns as the other moments. #}
select
    experiment,
    split,
    arm,
    cast(0 as bigint) as users,
    cast(null as text) as metric,
    cast(null as text) as type,
    cast(null as bigint) as conversions,
    {{ nulls(1) }} as mean,
    {{ nulls(1) }} as squares,
    {{ nulls(1) }} as paired_mean,
    {{ nulls(1) }} as paired_squares,
    {{ nulls(1) }} as products
from users
where false
{%- endif %}
