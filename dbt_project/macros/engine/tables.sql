{#
    Tables that are kept up to date: what a tick does to one follows what has changed, not what is stored. Its rows, its
    state and the keys that it touched are written in one transaction. The log of touched keys has the first key column;
    where all rows may have changed, the state says so instead.
#}

{# Make `target` the rows of a SELECT of all, and save its state. #}
{% macro rebuild_table(target, model_name, key, sql, progress, definition) -%}
    {%- do run_query("create temporary table fresh on commit drop as " ~ sql) -%}
    {%- do check_contract(types_of('pg_temp.fresh')) -%}
    {%- set columns = fit_table(target, key, config.get('indexes', [])) -%}
    {%- set differing = reconcile(target, model_name, key, columns, 'true', progress.tick_id, is_logged=false) -%}
    {%- do run_query(note_rebuild(model_name, progress, differing)) -%}
    {%- do run_query("analyze " ~ target) -%}
    {%- set next_tick_id = progress.tick_id if progress.is_tick else progress.tick_id ~ ' + 1' -%}
    {%- do run_query(save_state(model_name, progress, definition, next_tick_id if differing else none)) -%}
{%- endmacro %}

{# A column whose `data_type` is stated has that type: whoever reads the table relies on it. #}
{% macro check_contract(types) -%}
    {%- for column in model.columns.values() if column.data_type and column.name in types and types[column.name] != column.data_type -%}
        {{ exceptions.raise_compiler_error("column '" ~ column.name ~ "' is " ~ types[column.name] ~ ", but its data_type says " ~ column.data_type) }}
    {%- endfor -%}
{%- endmacro %}

{# Make a table exist with the columns of `fresh`, a temporary one. Grants, and rows of other columns, stay. #}
{% macro fit_table(target, key, indexes) -%}
    {%- set wanted = types_of('pg_temp.fresh') -%}
    {%- set existing = types_of(target) -%}
    {%- if not existing -%}
        {#- Room for the next version of a row on its page, so that a tick need not touch the indexes. -#}
        {%- do run_query("create table " ~ target ~ " (like fresh, primary key (" ~ key | join(', ') ~ ")) with (fillfactor = 80)") -%}
        {%- for index in indexes -%}
            {%- do run_query("create index on " ~ target ~ " " ~ index) -%}
        {%- endfor -%}
    {%- endif -%}
    {%- for name, type in existing.items() if wanted.get(name) != type -%}
        {%- do run_query("alter table " ~ target ~ " drop column " ~ adapter.quote(name)) -%}
    {%- endfor -%}
    {%- for name, type in wanted.items() if existing and existing.get(name) != type -%}
        {%- do run_query("alter table " ~ target ~ " add column " ~ adapter.quote(name) ~ " " ~ type) -%}
    {%- endfor -%}
    {{ return(wanted.keys() | list) }}
{%- endmacro %}

{% macro types_of(relation) -%}
    {%- set types = {} -%}
    {%- for column in run_query(
        "select attname, format_type(atttypid, atttypmod) as type from pg_attribute"
        ~ " where attrelid = to_regclass('" ~ relation ~ "') and attnum > 0 and not attisdropped order by attnum"
    ).rows -%}
        {%- do types.update({column.attname: column.type}) -%}
    {%- endfor -%}
    {{ return(types) }}
{%- endmacro %}

{#
    Make the rows of `target` within `scope` (a condition on it) those of `fresh`, write none that is equal, and
    log the keys of the others where `is_logged`. Returns how many rows differed.
#}
{% macro reconcile(target, model_name, key, columns, scope, tick_id, is_logged=true) -%}
    {%- set others = columns | reject('in', key) | list -%}
    {%- set statement %}
        with gone as (
            delete from {{ target }} as live
            where {{ scope }} and not exists (
                select from fresh where ({{ prefixed('fresh', key) }}) = ({{ prefixed('live', key) }})
            )
            returning live.{{ key[0] }}
        ),

        written as (
            insert into {{ target }} as live ({{ columns | join(', ') }})
            select {{ columns | join(', ') }} from fresh
            on conflict ({{ key | join(', ') }}) do {{ update_where_distinct(others) }}
            returning live.{{ key[0] }}
        ),

        differing as (
            select * from gone union all select * from written
        ),

        logged as (
            insert into features.changed_keys (model, tick_id, key)
            select distinct '{{ model_name }}', {{ tick_id }}, {{ key[0] }} from differing where {{ is_logged }}
        )

        select count(*) as total from differing
    {%- endset -%}
    {{ return(run_query(statement).rows[0].total) }}
{%- endmacro %}

{% macro update_where_distinct(columns, after={}) -%}
    {%- if not columns -%} {{ return('nothing') }} {%- endif -%}
    {%- set assigned = [] -%}
    {%- set values = [] -%}
    {%- for column in columns -%}
        {%- do values.append(after.get(column, 'excluded.' ~ column)) -%}
        {%- do assigned.append(column ~ ' = ' ~ values[-1]) -%}
    {%- endfor -%}
    {{ return('update set ' ~ assigned | join(', ')
        ~ ' where (' ~ prefixed('live', columns) ~ ') is distinct from (' ~ values | join(', ') ~ ')') }}
{%- endmacro %}

{% macro assigned(columns) -%}
    {%- set assignments = [] -%}
    {%- for column in columns -%} {%- do assignments.append(column ~ ' = excluded.' ~ column) -%} {%- endfor -%}
    {{ return(assignments | join(', ')) }}
{%- endmacro %}

{% macro prefixed(relation, columns) -%}
    {%- set names = [] -%}
    {%- for column in columns -%} {%- do names.append(relation ~ '.' ~ column) -%} {%- endfor -%}
    {{ return(names | join(', ')) }}
{%- endmacro %}

{#
    Note how many rows of a table that was computed afresh were wrong before: none, or somebody is told. They can be
    compared where it was computed by the same definition for the same instant.
#}
{% macro note_rebuild(model_name, progress, differing) -%}
    {%- set is_comparable = progress.last and not progress.is_tick and not progress.is_redefined -%}
    insert into features.rebuilds (model, as_of, rows, drift)
    select
        '{{ model_name }}',
        coalesce({{ progress.as_of }}, '-infinity'),
        (select count(*) from fresh),
        {{ differing if is_comparable else 'null' }}
{%- endmacro %}
