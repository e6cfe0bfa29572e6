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
        {#- Beyond 1e100 the squares of one user's value would overflow, and stop the results of everybody. -#}
        coalesce(cast(least(greatest(
            sum(upnext.number({{ path_of('events.properties', meta.sum_of) }})) filter (where {{ of }}), -1e100
        ), 1e100) as double precision), 0)
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
    Moments of metrics by experiment, day and arm, in one pass over the users whose window is over. The regr_* functions
    keep their digits at large means, and all of one pair of columns share their work.
#}
{% macro moments_of(users, metrics) -%}
with summed as (
    select
        experiment,
        exposed_on,
        arm,
        count(*) as users,
        count(*) filter (where has_reached_goal) as goal,
        count(*) filter (where has_clicked) as clicked
        {%- for metric in metrics %}
        {%- set meta = metric.config.meta -%}
        {%- if meta.ever %},
        cast(sum({{ metric.name }}) as bigint) as {{ metric.name }}
        {%- else -%}
        {%- set other = metric.name ~ ('__per' if meta.per else '__before') %}
        {%- for regr in ['avgy', 'syy', 'avgx', 'sxx', 'sxy'] %},
        regr_{{ regr }}({{ metric.name }}, {{ other }}) as {{ metric.name }}__{{ regr }}
        {%- endfor -%}
        {%- endif -%}
        {%- endfor %}
    from {{ users }}
    where is_window_over
    group by experiment, exposed_on, arm
)

select summed.experiment, summed.exposed_on, summed.arm, summed.users, metrics.*
from summed
cross join lateral (
    values
    ('goal', 'proportion', summed.goal, {{ nulls(5) }}),
    ('clicked', 'proportion', summed.clicked, {{ nulls(5) }})
    {%- for metric in metrics %}
    {%- set meta = metric.config.meta -%}
    {%- if meta.ever %},
    ('{{ metric.name }}', 'proportion', summed.{{ metric.name }}, {{ nulls(5) }})
    {%- else %},
    (
        '{{ metric.name }}', '{{ "ratio" if meta.per else "mean" }}', null
        {%- for regr in ['avgy', 'syy', 'avgx', 'sxx', 'sxy'] %}, summed.{{ metric.name }}__{{ regr }}{% endfor %}
    )
    {%- endif %}
    {%- endfor %}
) as metrics (metric, type, conversions, mean, squares, other_mean, other_squares, products)
{%- endmacro %}

{% macro nulls(count) -%}
    {% for _ in range(count) %}null::double precision{{ ', ' if not loop.last }}{% endfor %}
{%- endmacro %}
