{# first: <property>, of: <event>. Its value in the first such event that has it; `as`, `or_null` as with `latest`. #}
{% macro first__value(meta, of, as_of) -%}
    {{ value_by_order(path_of('events.properties', meta.first), meta, of, earliest_first()) }}
{%- endmacro %}

{% macro first__empty(meta) -%} {{ latest__empty(meta) }} {%- endmacro %}
