{# time_until: <property>, of: <event>, or without `of` a trait, a date. Whole days until it, as with `time_since`. #}
{% macro time_until__value(meta, of, as_of) -%}
    cast(floor(extract(epoch from {{ date_of(meta.time_until, of) }} - {{ as_of }}) / {{ seconds_of(meta) }}) as bigint)
{%- endmacro %}

{% macro time_until__empty(meta) -%} cast(null as bigint) {%- endmacro %}

{% macro time_until__about(meta) -%} {{ return(of_event_or_trait(meta)) }} {%- endmacro %}

{# Exactly N days before the date, N is left; a microsecond later, it is N - 1. #}
{% macro time_until__next_change(meta, of, as_of) -%}
    {{ date_of(meta.time_until, of) }} + interval '1 microsecond'
    - {{ time_until__value(meta, of, as_of) }} * interval '{{ seconds_of(meta) }} seconds'
{%- endmacro %}
