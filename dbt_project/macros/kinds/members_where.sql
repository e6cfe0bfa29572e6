{# members_where: <user feature>. Only of accounts: the number of members for whom it is true; `any` for all. #}
{% macro members_where__of_each_user(meta) -%} {{ return(none) }} {%- endmacro %}

{% macro members_where__total(name, meta) -%}
    count(*) filter (
        where
            account_users.joined_at is not null
            {%- if meta.members_where != 'any' %}
            and user_features.{{ meta.members_where }}
            {%- endif %}
    )
{%- endmacro %}
