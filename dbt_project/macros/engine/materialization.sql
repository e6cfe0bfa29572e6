{# How each materialization of the project begins and ends; between the two, `run_query` does the work. #}
{% macro begin_model() -%}
    {%- if flags.EMPTY -%}
        {{ exceptions.raise_compiler_error(model.name ~ ": --empty would make every member exit; leave it out") }}
    {%- endif -%}
    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}
{%- endmacro %}

{% macro committed(relation) -%}
    {#- dbt requires one statement of this name. The work is already done. -#}
    {% call statement('main') -%} select 1 {%- endcall %}
    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {{ adapter.commit() }}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [relation]}) }}
{%- endmacro %}
