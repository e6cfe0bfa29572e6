{#
    A metric is a documented column of `experiment_users`: the `config.meta` of its description is its definition, by
    the kinds of features that have a `__metric`. `per: <event>` makes a ratio. `cap: 99.9 %` limits each user's value
    to that percentile over all users of the experiment.
#}

{# A metric of one user over the events for which a condition holds. The quicker condition, that of time, is first. #}
{% macro metric_value(meta, condition) -%}
    {{ of_kind(meta, 'metric')(of_kind(meta, 'value')(meta, condition ~ ' and ' ~ event_condition(meta), '')) }}
{%- endmacro %}

{#
    The paths of values in the SQL of metrics. Postgres evaluates the argument of an inlined function, such as
    `upnext.number`, as often as the function names it; a column that holds the value is evaluated once.
#}
{% macro paths_in(sql) -%}
    {{ return(modules.re.findall("\\(events\\.(?:properties|context) #> array\\[[^]]*\\]\\)", sql) | unique | list) }}
{%- endmacro %}

{# Whether a metric is a share of the users: who did something, or all steps of a funnel. #}
{% macro is_share(meta) -%} {{ return(meta.ever or meta.sequence) }} {%- endmacro %}

{# The condition for the time in which a metric counts: the goal's, or a part of it (`begins`, `ends`). #}
{% macro metric_time(meta) -%}
    events.is_during
    {%- if meta.begins %} and events.occurred_at > exposures.exposed_at + {{ interval_of(meta.begins) }} {%- endif %}
    {%- if meta.ends %} and events.occurred_at <= exposures.exposed_at + {{ interval_of(meta.ends) }} {%- endif %}
{%- endmacro %}

{# The names of the events that metrics are about. #}
{% macro metric_events(metrics) -%}
    {%- set names = [] -%}
    {%- for metric in metrics -%}
        {%- set meta = metric.config.meta -%}
        {%- for name in events_of((of_kind(meta, 'about') or same)(meta)) + names_of(meta.per or []) -%}
            {%- if name not in names -%} {%- do names.append(name) -%} {%- endif -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(names) }}
{%- endmacro %}

{# Only metrics without a cap add up from daily moments, because a cap depends on all users of the experiment. #}
{% macro capped_metrics(metrics) -%}
    {{ return(metrics | selectattr('config.meta.cap') | list) }}
{%- endmacro %}

{% macro uncapped_metrics(metrics) -%}
    {{ return(metrics | rejectattr('config.meta.cap') | list) }}
{%- endmacro %}

{# A cap such as `99.9 %`, as a fraction. #}
{% macro share_of_cap(cap) -%}
    {{ cap | replace('%', '') | trim | float / 100 }}
{%- endmacro %}

{#
    Moments of metrics by the `keys`, in one pass over the users whose window is over. The regr_* functions stay precise
    at large means, and those of one pair of columns share their work. `with_outcomes`: goal and clicks too.
#}
{% macro moments_of(users, metrics, keys=['experiment', 'exposed_on', 'split', 'arm'], with_outcomes=true) -%}
with summed as (
    select
        {{ keys | join(', ') }},
        count(*) as users
        {%- if with_outcomes %},
        count(*) filter (where has_reached_goal) as goal,
        count(*) filter (where has_clicked) as clicked
        {%- endif %}
        {%- for metric in metrics %}
        {%- set meta = metric.config.meta -%}
        {%- if is_share(meta) %},
        cast(sum({{ metric.name }}) as bigint) as {{ metric.name }}
        {%- else -%}
        {%- set paired = metric.name ~ ('__per' if meta.per else '__before') %}
        {%- for regr in ['avgy', 'syy', 'avgx', 'sxx', 'sxy'] %},
        regr_{{ regr }}({{ metric.name }}, {{ paired }}) as {{ metric.name }}__{{ regr }}
        {%- endfor -%}
        {%- endif -%}
        {%- endfor %}
    from {{ users }}
    where is_window_over
    group by {{ keys | join(', ') }}
)

select {% for key in keys %}summed.{{ key }}, {% endfor %}summed.users, metrics.*
from summed
cross join lateral (
    values
    {%- if with_outcomes %}
    ('goal', 'proportion', summed.goal, {{ nulls(5) }}),
    ('clicked', 'proportion', summed.clicked, {{ nulls(5) }})
    {%- endif %}
    {%- for metric in metrics %}
    {%- set meta = metric.config.meta %}
    {{ ',' if with_outcomes or not loop.first }}
    {%- if is_share(meta) %}
    ('{{ metric.name }}', 'proportion', summed.{{ metric.name }}, {{ nulls(5) }})
    {%- else %}
    (
        '{{ metric.name }}', '{{ "ratio" if meta.per else "mean" }}', null::bigint
        {%- for regr in ['avgy', 'syy', 'avgx', 'sxx', 'sxy'] %}, summed.{{ metric.name }}__{{ regr }}{% endfor %}
    )
    {%- endif %}
    {%- endfor %}
) as metrics (metric, type, conversions, mean, squares, paired_mean, paired_squares, products)
{%- endmacro %}

{% macro nulls(count) -%}
    {% for _ in range(count) %}null::double precision{{ ', ' if not loop.last }}{% endfor %}
{%- endmacro %}
