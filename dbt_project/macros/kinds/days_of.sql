{# days_of: <event>. The number of different days (UTC) with such an event. #}
{% macro days_of__value(meta, of, as_of) -%}
    count(distinct cast(events.occurred_at at time zone 'UTC' as date)) filter (where {{ of }})
{%- endmacro %}

{% macro days_of__empty(meta) -%} 0 {%- endmacro %}

{% macro days_of__metric(value) -%} cast({{ value }} as double precision) {%- endmacro %}
