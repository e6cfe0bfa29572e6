{#
    time_since: <property>, of: <event>, or without `of` a trait, a date. Whole days from it to the as_of of the tick,
    or `unit: hours`, `minutes`, `weeks`; below 0 before it, null where the latest value is no date.
#}
{% macro time_since__value(meta, of, as_of) -%}
    cast(floor(extract(epoch from {{ as_of }} - {{ date_of(meta.time_since, of) }}) / {{ seconds_of(meta) }}) as bigint)
{%- endmacro %}

{% macro time_since__empty(meta) -%} cast(null as bigint) {%- endmacro %}

{% macro time_since__about(meta) -%} {{ return(of_event_or_trait(meta)) }} {%- endmacro %}

{% macro time_since__next_change(meta, of, as_of) -%}
    {{ date_of(meta.time_since, of) }}
    + ({{ time_since__value(meta, of, as_of) }} + 1) * interval '{{ seconds_of(meta) }} seconds'
{%- endmacro %}

{# The latest value of a property or trait, as an instant. #}
{% macro date_of(property, of) -%}
    {{ value_by_order(path_of('events.properties', property), {'as': 'time'}, of, latest_first()) }}
{%- endmacro %}

{% macro seconds_of(meta) -%}
    {{ {'minutes': 60, 'hours': 3600, 'days': 86400, 'weeks': 604800}[meta.unit or 'days'] }}
{%- endmacro %}
