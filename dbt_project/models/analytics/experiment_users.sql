{%- set metrics = described_columns('experiment_users') -%}
{%- set during = 'events.occurred_at > exposures.exposed_at and events.occurred_at <= exposures.counts_until' -%}
{%- set before = 'events.occurred_at > exposures.exposed_at - exposures.goal_within and events.occurred_at <= exposures.exposed_at' -%}
with exposures as (
    select * from {{ ref('experiment_exposures') }}
),

user_events as not materialized (
    select * from {{ ref('user_events') }}
)

select
    exposures.experiment,
    exposures.user_id,
    exposures.arm,
    exposures.exposed_at,
    exposures.is_in_both_arms,
    exposures.is_window_over,
    outcomes.*
from exposures
{#
    For each user a look-up by index: how many users there are the planner guesses wrongly, through all these joins, and
    a wrong guess made this quadratic. Times are no condition of it, or it would take the index of times.
#}
cross join lateral (
    select
        coalesce(bool_or(
            events.event = 'experience clicked'
            and events.properties ->> 'experience' = exposures.experiment
            and events.occurred_at >= exposures.exposed_at
            and events.occurred_at <= exposures.counts_until
        ), false) as has_clicked,
        coalesce(bool_or(events.event = any(exposures.goal_events) and {{ during }}), false) as has_reached_goal
        {%- for metric in metrics %}
        {%- set meta = metric.config.meta %},
        {{ metric_value(meta, during) }} as {{ metric.name }}
        {%- if meta.per %},
        {{ metric_value({'count_of': meta.per}, during) }} as {{ metric.name }}__per
        {%- elif not meta.ever %},
        {{ metric_value(meta, before) }} as {{ metric.name }}__before
        {%- endif %}
        {%- endfor %}
    from user_events as events
    where
        events.user_id = exposures.user_id
        and events.event = any(
            array['experience clicked'{% for name in metric_events(metrics) %}, {{ quoted([name]) }}{% endfor %}]
            || exposures.goal_events
        )
) as outcomes
