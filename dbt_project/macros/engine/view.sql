{#
    Views, in place of dbt's own: an unchanged view is not re-created. So a tick does not wait for its readers, and the
    view never disappears for a moment. A hash of the view's SQL is its comment.
#}
{% materialization view, adapter='postgres' %}
    {%- set view = this.incorporate(type='view') -%}
    {%- set definition = local_md5(sql) -%}
    {%- set found = comment_of(view) -%}

    {%- do begin_model() -%}
    {% if config.get('contract').enforced %} {%- do get_assert_columns_equivalent(sql) -%} {% endif %}
    {% if found != definition %}
        {%- do run_query("drop view if exists " ~ view ~ " cascade") -%}
        {%- do run_query(made_view(view, sql)) -%}
    {% endif %}
    {{ return(committed(view)) }}
{% endmaterialization %}

{% macro made_view(view, sql) -%}
    create or replace view {{ view }} as
    {{ sql }};

    comment on view {{ view }} is '{{ local_md5(sql) }}'
{%- endmacro %}

{% macro comment_of(relation) -%}
    {%- set query -%}
        select obj_description(to_regclass('{{ relation }}'), 'pg_class') as definition
    {%- endset -%}
    {{ return(run_query(query).rows[0].definition) }}
{%- endmacro %}
