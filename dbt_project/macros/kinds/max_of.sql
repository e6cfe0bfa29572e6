{# max_of: <property>, of: <event>. The highest value of a property, numeric; null where there is none. #}
{% macro max_of__value(meta, of, as_of) -%}
    max(upnext.number({{ path_of('events.properties', meta.max_of) }})) filter (where {{ of }})
{%- endmacro %}

{% macro max_of__difference(meta, came, left) -%}
    {%- if not meta.within -%} {{ max_of__value(meta, came) }} {%- endif -%}
{%- endmacro %}

{% macro max_of__after(name) -%} greatest(live.{{ name }}, excluded.{{ name }}) {%- endmacro %}

{% macro max_of__empty(meta) -%} cast(null as numeric) {%- endmacro %}

{% macro max_of__total(name, meta) -%} max(account_users.{{ name }}) {%- endmacro %}
