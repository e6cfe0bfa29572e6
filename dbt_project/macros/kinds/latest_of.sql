{# latest_of: [<event>, ...], is: <one>. Whether the latest of these is that one. #}
{% macro latest_of__value(meta, of, as_of) -%}
    coalesce(
        (array_agg(events.event order by {{ latest_first() }}) filter (where {{ of }}))[1] = {{ quoted([meta.is]) }},
        false
    )
{%- endmacro %}

{% macro latest_of__empty(meta) -%} false {%- endmacro %}
