{# sum_of: <property>, of: <event>. The sum of a property, numeric. #}
{% macro sum_of__value(meta, of, as_of) -%}
    coalesce(sum(upnext.number({{ path_of('events.properties', meta.sum_of) }})) filter (where {{ of }}), 0)
{%- endmacro %}

{% macro sum_of__difference(meta, came, left) -%}
    {{ sum_of__value(meta, came) }} - {{ sum_of__value(meta, left) }}
{%- endmacro %}

{% macro sum_of__after(name) -%} live.{{ name }} + excluded.{{ name }} {%- endmacro %}

{% macro sum_of__empty(meta) -%} 0 {%- endmacro %}

{% macro sum_of__total(name, meta) -%} sum(account_users.{{ name }}) {%- endmacro %}

{# The square of one user's value must be a number too, or the results of all users fail. #}
{% macro sum_of__metric(value) -%}
    cast(round(least(greatest({{ value }}, -1e100), 1e100), 20) as double precision)
{%- endmacro %}
