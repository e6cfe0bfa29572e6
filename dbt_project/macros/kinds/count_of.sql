{# count_of: <event>. The number of such events. #}
{% macro count_of__value(meta, of, as_of) -%}
    count(*) filter (where {{ of }})
{%- endmacro %}

{% macro count_of__difference(meta, came, left) -%}
    count(*) filter (where {{ came }}) - count(*) filter (where {{ left }})
{%- endmacro %}

{% macro count_of__after(name) -%} live.{{ name }} + excluded.{{ name }} {%- endmacro %}

{% macro count_of__empty(meta) -%} 0 {%- endmacro %}

{% macro count_of__total(name, meta) -%} cast(sum(account_users.{{ name }}) as bigint) {%- endmacro %}

{% macro count_of__metric(value) -%} cast({{ value }} as double precision) {%- endmacro %}
