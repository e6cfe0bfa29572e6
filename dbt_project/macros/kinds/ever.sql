{# ever: <event>. Whether there is at least one. #}
{% macro ever__value(meta, of, as_of) -%}
    count(*) filter (where {{ of }}) > 0
{%- endmacro %}

{# Within a window it is unknown whether the event that leaves was the only one. #}
{% macro ever__difference(meta, came, left) -%}
    {%- if not meta.within -%} coalesce(bool_or({{ came }}), false) {%- endif -%}
{%- endmacro %}

{% macro ever__after(name) -%} live.{{ name }} or excluded.{{ name }} {%- endmacro %}

{% macro ever__empty(meta) -%} false {%- endmacro %}

{% macro ever__total(name, meta) -%} bool_or(account_users.{{ name }}) {%- endmacro %}

{% macro ever__metric(value) -%} cast(cast({{ value }} as integer) as double precision) {%- endmacro %}
