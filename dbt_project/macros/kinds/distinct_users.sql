{# distinct_users: true. Only of accounts: the number of different users with an event. #}
{% macro distinct_users__of_each_user(meta) -%}
    {%- set each = dict(meta, count_of='any') -%}
    {%- do each.pop('distinct_users') -%}
    {{ return(each) }}
{%- endmacro %}

{% macro distinct_users__total(name, meta) -%} count(*) filter (where account_users.{{ name }} > 0) {%- endmacro %}
