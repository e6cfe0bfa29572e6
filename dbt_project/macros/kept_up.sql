{#
    A table whose rows are kept up by SQL that is not dbt's: here it is only made, empty, with the columns of the SELECT.
    Where that means something else than before (it, or a view of `recompute_with`), the table is made anew, and the
    consumer of ticks that keeps it up (`kept_up_by`) begins from nothing. What it was made by stands in its comment.
#}
{% materialization kept_up, adapter='postgres' %}
    {%- set table = this.incorporate(type='table') -%}
    {%- set consumer = config.require('kept_up_by') -%}
    {%- set made_by = [sql] -%}
    {%- for name in config.require('recompute_with') -%}
        {%- do made_by.append(comment_of(ref(name))) -%}
    {%- endfor -%}
    {%- set definition = local_md5(made_by | join(' ')) -%}

    {%- do run_pre_hooks() -%}
    {% if comment_of(table) != definition %}
        {#- Whoever is at it with the old columns may end that first. -#}
        {%- do run_query("select pg_advisory_xact_lock(hashtextextended('upnext:" ~ consumer ~ "', 0))") -%}
        {%- do run_query(
            "drop table if exists " ~ table ~ " cascade;"
            ~ "create table " ~ table ~ " as " ~ sql ~ " with no data;"
            ~ "alter table " ~ table ~ " add primary key (" ~ config.require('key') | join(', ') ~ ");"
            ~ "comment on table " ~ table ~ " is '" ~ definition ~ "';"
            ~ "delete from segments.consumer_offsets where consumer = '" ~ consumer ~ "'"
        ) -%}
        {%- for index in config.get('indexes', []) -%}
            {%- do run_query("create index on " ~ table ~ " " ~ index) -%}
        {%- endfor -%}
    {% endif %}
    {{ return(committed(table)) }}
{% endmaterialization %}

{% macro comment_of(relation) -%}
    {{ return(run_query("select obj_description(to_regclass('" ~ relation ~ "'), 'pg_class') as definition").rows[0].definition) }}
{%- endmacro %}
