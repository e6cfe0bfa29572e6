{# mean_of: <property>, of: <event>. The mean of a property, numeric; null where there is none. #}
{% macro mean_of__value(meta, of, as_of) -%}
    avg(upnext.number({{ path_of('events.properties', meta.mean_of) }})) filter (where {{ of }})
{%- endmacro %}

{% macro mean_of__empty(meta) -%} cast(null as numeric) {%- endmacro %}
