{# distinct_of: <property>, of: <event>. The number of its different values, as text. #}
{% macro distinct_of__value(meta, of, as_of) -%}
    count(distinct {{ path_of('events.properties', meta.distinct_of) }} #>> '{}') filter (where {{ of }})
{%- endmacro %}

{% macro distinct_of__empty(meta) -%} 0 {%- endmacro %}

{% macro distinct_of__metric(value) -%} cast({{ value }} as double precision) {%- endmacro %}
