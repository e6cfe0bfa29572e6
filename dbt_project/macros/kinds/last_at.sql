{# last_at: <event>. When the latest was; null where there is none. #}
{% macro last_at__value(meta, of, as_of) -%}
    max(events.occurred_at) filter (where {{ of }})
{%- endmacro %}

{% macro last_at__difference(meta, came, left) -%}
    {%- if not meta.within -%} {{ last_at__value(meta, came) }} {%- endif -%}
{%- endmacro %}

{% macro last_at__after(name) -%} greatest(live.{{ name }}, excluded.{{ name }}) {%- endmacro %}

{% macro last_at__empty(meta) -%} cast(null as timestamptz) {%- endmacro %}

{% macro last_at__total(name, meta) -%} max(account_users.{{ name }}) {%- endmacro %}
