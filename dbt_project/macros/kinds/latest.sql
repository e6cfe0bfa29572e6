{#
    latest: <property>, of: <event>. Its value in the latest such event that has it, as text, or `as: number`,
    `as: boolean`, `as: time`; null where there is none, or where the value cannot be read as that. `or_null: true`: in
    the latest such event, null where that event does not have it.
#}
{% macro latest__value(meta, of, as_of) -%}
    {{ value_by_order(path_of('events.properties', meta.latest), meta, of, latest_first()) }}
{%- endmacro %}

{% macro latest__empty(meta) -%} {{ as_type('cast(null as jsonb)', meta.as) }} {%- endmacro %}

{# The first value in an order, as the type that the meta names. #}
{% macro value_by_order(value, meta, of, order) -%}
    {%- set has_it -%} {%- if not meta.or_null %} and {{ value }} #>> '{}' is not null {%- endif -%} {%- endset -%}
    {%- set found -%}
        (array_agg({{ value }} order by {{ order }}) filter (where {{ of }}{{ has_it }}))[1]
    {%- endset -%}
    {{ as_type(found, meta.as) }}
{%- endmacro %}
