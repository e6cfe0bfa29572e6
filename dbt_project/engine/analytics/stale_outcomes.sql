{%- set metrics = described_columns('experiment_users') -%}
{%- set columns -%}
    {%- for metric in metrics %}
    {%- set meta = metric.config.meta %},
        {{ metric_value(meta, metric_time(meta)) }} as {{ metric.name }}
        {%- if meta.per %},
        {{ metric_value({'count_of': meta.per}, metric_time(meta)) }} as {{ metric.name }}__per
        {%- elif not is_share(meta) %},
        {{ metric_value(meta, 'events.is_before') }} as {{ metric.name }}__before
        {%- endif %}
    {%- endfor %}
{%- endset -%}
{%- set paths = paths_in(columns) -%}
{%- set read = namespace(columns=columns) -%}
{%- for path in paths -%}
    {%- set read.columns = read.columns | replace(path, 'events.value_' ~ loop.index) -%}
{%- endfor -%}
with exposures as (
    select * from {{ ref('stale_exposures') }}
),

user_events as not materialized (
    select * from {{ source('analytics', 'stale_events') }}
),

changes as not materialized (
    select * from {{ source('segments', 'membership_changes') }}
),

ticks as (
    select * from {{ source('segments', 'ticks') }}
),

entries as not materialized (
    select * from {{ source('journeys', 'entries') }}
),

segments as (
    select distinct segment from {{ source('segments', 'evaluations') }}
)

select
    exposures.experiment,
    exposures.user_id,
    exposures.arm,
    exposures.exposed_at,
    cast(exposures.exposed_at at time zone 'UTC' as date) as exposed_on,
    exposures.closes_at,
    exposures.is_window_over,
    exposures.is_in_both_arms,
    outcomes.*,
    memberships.segments,
    exposures.weights,
    md5(cast(exposures.weights as text)) as split
from exposures
{#
    An index look-up per user: through all these joins the planner misestimates the number of users, and a wrong
    estimate made this quadratic. The WHERE has no times, or the planner would use the index on times. For an open
    window, the HAVING returns no outcomes and skips the look-up.
#}
left join lateral (
    select
        coalesce(bool_or(
            events.event = 'experience clicked'
            and events.properties ->> 'experience' = exposures.experiment
            and events.occurred_at >= exposures.exposed_at
            and events.occurred_at <= exposures.closes_at
        ), false) as has_clicked,
        coalesce(bool_or(
            events.is_during
            and events.event = any(exposures.goal_events)
            and (
                exposures.goal_conditions is null
                or (
                    upnext.holds(events.properties, exposures.goal_conditions -> 'where')
                    and upnext.holds(events.context, exposures.goal_conditions -> 'context')
                )
            )
        ), false)
        {# Whether a user was in a segment, or had a feature, is known to the dispatch alone, which notes it. #}
        or (
            exposures.is_goal_of_entries
            and exists (
                select from entries
                where
                    entries.user_id = exposures.user_id
                    and entries.journey = exposures.experiment
                    and entries.goal_reached_at > exposures.exposed_at
                    and entries.goal_reached_at <= exposures.closes_at
            )
        ) as has_reached_goal
        {{- read.columns }}
    from (
        select
            events.*,
            events.occurred_at > exposures.exposed_at and events.occurred_at <= exposures.closes_at as is_during,
            events.occurred_at > exposures.exposed_at - exposures.goal_within
            and events.occurred_at <= exposures.exposed_at as is_before
            {%- for path in paths %},
            {{ path }} as value_{{ loop.index }}
            {%- endfor %}
        from user_events as events
        where
            events.user_id = exposures.user_id
            and events.event = any(
                array[
                    {%- for name in ['experience clicked'] + metric_events(metrics) %}
                    {{ quoted([name]) }}{{ ',' if not loop.last }}
                    {%- endfor %}
                ] || exposures.goal_events
            )
        offset 0
    ) as events
    having exposures.is_window_over
) as outcomes on true
{# The last change before the exposure tells whether the user was in a segment. #}
left join lateral (
    select array_agg(segments.segment order by segments.segment) as segments
    from segments
    cross join lateral (
        select changes.change
        from changes
        inner join ticks on changes.tick_id = ticks.tick_id
        where
            changes.segment = segments.segment
            and changes.user_id = exposures.user_id
            and changes.as_of <= exposures.exposed_at
            and ticks.published_at is not null
        order by changes.change_id desc
        limit 1
    ) as last_change
    where last_change.change = 'entered'
    having exposures.is_window_over
) as memberships on true
