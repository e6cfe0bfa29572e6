{#
    Views, in place of dbt's own: one that is the same already is left alone. So a tick neither waits for whoever reads
    it, nor makes it vanish for a moment. What a view is made of stands in its comment, as a hash.
#}
{% materialization view, adapter='postgres' %}
    {%- set view = this.incorporate(type='view') -%}
    {%- set definition = local_md5(sql) -%}
    {%- set found = comment_of(view) -%}

    {%- do run_pre_hooks() -%}
    {% if config.get('contract').enforced %} {%- do get_assert_columns_equivalent(sql) -%} {% endif %}
    {% if found != definition %}
        {%- do run_query(made_view(view, sql)) -%}
    {% endif %}
    {{ return(committed(view)) }}
{% endmaterialization %}

{% macro made_view(view, sql) -%}
    drop view if exists {{ view }} cascade;

    create view {{ view }} as
    {{ sql }};

    comment on view {{ view }} is '{{ local_md5(sql) }}'
{%- endmacro %}

{% macro comment_of(relation) -%}
    {%- set query -%}
        select obj_description(to_regclass('{{ relation }}'), 'pg_class') as definition
    {%- endset -%}
    {{ return(run_query(query).rows[0].definition) }}
{%- endmacro %}
