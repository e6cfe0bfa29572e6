{#
    periods_of: <event>, of_last: 7 days. On how many of the last calendar days, or weeks from Monday on, there was such
    an event; in UTC, and the current day or week is one of them.
#}
{% macro periods_of__value(meta, of, as_of) -%}
    count(distinct {{ period_of('events.occurred_at', meta) }})
        filter (where {{ of }} and {{ is_in_periods(meta, as_of) }})
{%- endmacro %}

{% macro periods_of__empty(meta) -%} 0 {%- endmacro %}

{# The oldest period drops out. #}
{% macro periods_of__next_change(meta, of, as_of) -%}
    min(({{ period_of('events.occurred_at', meta) }} + interval '{{ meta.of_last }}') at time zone 'UTC')
    filter (where {{ of }} and {{ is_in_periods(meta, as_of) }})
{%- endmacro %}

{% macro period_of(instant, meta) -%}
    date_trunc('{{ meta.of_last.split()[1].rstrip("s") }}', {{ instant }} at time zone 'UTC')
{%- endmacro %}

{% macro is_in_periods(meta, as_of) -%}
    {{ period_of('events.occurred_at', meta) }} > {{ period_of(as_of, meta) }} - interval '{{ meta.of_last }}'
{%- endmacro %}
