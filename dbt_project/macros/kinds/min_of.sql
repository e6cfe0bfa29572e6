{# min_of: <property>, of: <event>. The lowest value of a property, numeric; null where there is none. #}
{% macro min_of__value(meta, of, as_of) -%}
    min(upnext.number({{ path_of('events.properties', meta.min_of) }})) filter (where {{ of }})
{%- endmacro %}

{% macro min_of__difference(meta, came, left) -%}
    {%- if not meta.within -%} {{ min_of__value(meta, came) }} {%- endif -%}
{%- endmacro %}

{% macro min_of__after(name) -%} least(live.{{ name }}, excluded.{{ name }}) {%- endmacro %}

{% macro min_of__empty(meta) -%} cast(null as numeric) {%- endmacro %}

{% macro min_of__total(name, meta) -%} min(account_users.{{ name }}) {%- endmacro %}
