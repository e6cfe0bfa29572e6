{#
    A metric is a documented column of `experiment_users`: the `config.meta` of its description is its definition.

        count_of: <event>                  number of such events
        count_of: <event>, per: <event>    how many of the one there are to each of the other
        sum_of: <property>, of: <event>    sum of a property
        ever: <event>                      whether there is at least one

    Each with `where:`, tests of the event's properties (see tests_of).
#}

{# A metric of one user over the events for which a condition holds. #}
{% macro metric_value(meta, condition) -%}
    {%- set of = event_condition(meta) ~ ' and ' ~ condition -%}
    {%- if 'ever' in meta -%}
        cast(cast(count(*) filter (where {{ of }}) > 0 as integer) as double precision)
    {%- elif 'sum_of' in meta -%}
        coalesce(cast(sum(upnext.number({{ path_of('events.properties', meta.sum_of) }})) filter (where {{ of }}) as double precision), 0)
    {%- else -%}
        cast(count(*) filter (where {{ of }}) as double precision)
    {%- endif -%}
{%- endmacro %}

{# The names of the events that metrics are about. #}
{% macro metric_events(metrics) -%}
    {%- set names = [] -%}
    {%- for metric in metrics -%}
        {%- for name in events_of(metric.config.meta) + ([metric.config.meta.per] if metric.config.meta.per else []) -%}
            {%- if name not in names -%} {%- do names.append(name) -%} {%- endif -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(names) }}
{%- endmacro %}

{#
    Moments of the metrics of `experiment_users`, in one pass: the regr_* functions keep their digits at large means, and
    all of one pair of columns share their work. Users whose window is open are counted, and left out of the rest.
#}
{% macro moments_of(users, metrics) -%}
with summed as (
    select
        experiment,
        kind,
        segment,
        arm,
        goal_version,
        minimum_lift,
        min(exposed_at) as first_exposed_at,
        count(*) filter (where is_window_over) as users,
        count(*) filter (where not is_window_over) as open_users,
        count(*) filter (where is_in_both_arms) as users_in_both_arms,
        count(*) filter (where is_window_over and has_reached_goal) as goal,
        count(*) filter (where is_window_over and has_clicked) as clicked
        {%- for metric in metrics %}
        {%- set meta = metric.config.meta -%}
        {%- if meta.ever %},
        cast(sum({{ metric.name }}) filter (where is_window_over) as bigint) as {{ metric.name }}
        {%- else -%}
        {%- set other = metric.name ~ ('__per' if meta.per else '__before') %}
        {%- for regr in ['avgy', 'syy', 'avgx', 'sxx', 'sxy'] %},
        regr_{{ regr }}({{ metric.name }}, {{ other }}) filter (where is_window_over) as {{ metric.name }}__{{ regr }}
        {%- endfor -%}
        {%- endif -%}
        {%- endfor %}
    from {{ users }}
    group by experiment, kind, segment, arm, goal_version, minimum_lift
)

select
    summed.experiment,
    summed.kind,
    summed.segment,
    summed.arm,
    summed.goal_version,
    summed.minimum_lift,
    summed.first_exposed_at,
    summed.users,
    summed.open_users,
    summed.users_in_both_arms,
    metrics.*
from summed
cross join lateral (
    values
    ('goal', 'proportion', summed.goal, {{ nulls(5) }}),
    ('clicked', 'proportion', summed.clicked, {{ nulls(5) }})
    {%- for metric in metrics %}
    {%- set meta = metric.config.meta %},
    {%- if meta.ever %}
    ('{{ metric.name }}', 'proportion', coalesce(summed.{{ metric.name }}, 0), {{ nulls(5) }})
    {%- else %}
    (
        '{{ metric.name }}', '{{ "ratio" if meta.per else "mean" }}', null,
        summed.{{ metric.name }}__avgy,
        summed.{{ metric.name }}__syy / nullif(summed.users - 1, 0),
        summed.{{ metric.name }}__avgx,
        summed.{{ metric.name }}__sxx / nullif(summed.users - 1, 0),
        summed.{{ metric.name }}__sxy / nullif(summed.users - 1, 0)
    )
    {%- endif %}
    {%- endfor %}
) as metrics (metric, type, conversions, mean, variance, other_mean, other_variance, covariance)
where summed.kind = 'experience' or metrics.metric <> 'clicked'
{%- endmacro %}

{% macro nulls(count) -%}
    {% for _ in range(count) %}null::double precision{{ ', ' if not loop.last }}{% endfor %}
{%- endmacro %}
