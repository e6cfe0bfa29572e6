{#
    latest: <property>, of: <event>. Its value in the latest such event that has it, as text, or `as: number`,
    `as: boolean`, `as: time`; null where there is none, or where the value cannot be read as that.
#}
{% macro latest__value(meta, of, window) -%}
    {{ latest_value(path_of('events.properties', meta.latest), meta.as, of) }}
{%- endmacro %}

{% macro latest__empty(meta) -%} {{ as_type('cast(null as jsonb)', meta.as) }} {%- endmacro %}

{% macro latest_value(value, type, of) -%}
    {%- set latest -%}
        (
            array_agg({{ value }} order by {{ latest_first() }})
            filter (where {{ of }} and {{ value }} #>> '{}' is not null)
        )[1]
    {%- endset -%}
    {{ as_type(latest, type) }}
{%- endmacro %}
