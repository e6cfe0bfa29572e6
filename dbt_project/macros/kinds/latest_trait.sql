{# latest_trait: <trait>. Its value in the latest identify call that has it; `as` as with `latest`. #}
{% macro latest_trait__value(meta, of, window) -%}
    {{ latest_value(path_of('events.properties', meta.latest_trait), meta.as, of) }}
{%- endmacro %}

{% macro latest_trait__empty(meta) -%} {{ latest__empty(meta) }} {%- endmacro %}

{% macro latest_trait__about(meta) -%} {{ return({'type': 'identify'}) }} {%- endmacro %}
