{# first_at: <event>. When the first was; null where there is none. #}
{% macro first_at__value(meta, of, as_of) -%}
    min(events.occurred_at) filter (where {{ of }})
{%- endmacro %}

{% macro first_at__difference(meta, came, left) -%}
    {%- if not meta.within -%} {{ first_at__value(meta, came) }} {%- endif -%}
{%- endmacro %}

{% macro first_at__after(name) -%} least(live.{{ name }}, excluded.{{ name }}) {%- endmacro %}

{% macro first_at__empty(meta) -%} cast(null as timestamptz) {%- endmacro %}

{% macro first_at__total(name, meta) -%} min(account_users.{{ name }}) {%- endmacro %}
