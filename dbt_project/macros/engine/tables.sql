{#
    Incremental tables: the cost of a tick depends on the changes, not on the stored rows. One transaction writes the
    rows of a table, its state, and the keys of changed rows (their first key column). Where all rows may have changed,
    the state names the tick instead (`all_touched_by`).
#}

{# Recompute all rows of `target` with a SELECT, and save its state. #}
{% macro rebuild_table(target, model_name, key, sql, progress, definition) -%}
    {%- do run_query(fresh_rows(sql)) -%}
    {%- do check_contract(types_of('pg_temp.fresh')) -%}
    {%- set before = {'plain': types_of(target), 'generated': stored_generated_columns(target)} -%}
    {%- do run_query(without_stale_columns(target, model_name, types_of('pg_temp.fresh'))) -%}
    {%- set columns = fit_table(target, key, config.get('indexes', [])) -%}
    {%- do run_query(with_generated_columns(target, model_name)) -%}
    {%- set differing = reconcile(target, model_name, key, columns, 'true', progress.tick_id, is_logged=false) -%}
    {%- do run_query(note_rebuild(model_name, progress, differing)) -%}
    {%- do run_query("analyze " ~ target) -%}
    {%- set next_tick_id = progress.tick_id if progress.is_tick else progress.tick_id ~ ' + 1' -%}
    {%- set is_touched = differing or generated_otherwise(target, before) -%}
    {%- do run_query(save_state(model_name, progress, definition, next_tick_id if is_touched else none)) -%}
{%- endmacro %}

{% macro fresh_rows(sql) -%}
    create temporary table fresh on commit drop as
    {{ sql }}
{%- endmacro %}

{# A column that states a `data_type` must have that type, because readers of the table rely on it. #}
{% macro check_contract(types) -%}
    {%- for column in model.columns.values() if column.data_type and column.name in types -%}
        {%- set found = types[column.name] -%}
        {%- if found != column.data_type -%}
            {%- set message -%}
                column '{{ column.name }}' is {{ found }}, but its data_type says {{ column.data_type }}
            {%- endset -%}
            {{ exceptions.raise_compiler_error(message) }}
        {%- endif -%}
    {%- endfor -%}
{%- endmacro %}

{# Make a table with the columns of the temporary table `fresh`. Grants stay, and so do the values of other columns. #}
{% macro fit_table(target, key, indexes) -%}
    {%- set wanted = types_of('pg_temp.fresh') -%}
    {%- set existing = types_of(target) -%}
    {%- if not existing -%}
        {%- do run_query(made_table(target, key, indexes)) -%}
    {%- elif existing != wanted -%}
        {%- do run_query(altered_table(target, existing, wanted)) -%}
    {%- endif -%}
    {{ return(wanted.keys() | list) }}
{%- endmacro %}

{# The fill factor leaves room on a page for the next version of a row, so that a tick need not touch the indexes. #}
{% macro made_table(target, key, indexes) -%}
    create table {{ target }} (like fresh, primary key ({{ key | join(', ') }})) with (fillfactor = 80);
    {%- for index in indexes %}
    create index on {{ target }} {{ index }};
    {%- endfor %}
{%- endmacro %}

{% macro altered_table(target, existing, wanted) -%}
    {%- for name, type in existing.items() if wanted.get(name) != type %}
    alter table {{ target }} drop column {{ adapter.quote(name) }};
    {%- endfor %}
    {%- for name, type in wanted.items() if existing.get(name) != type %}
    alter table {{ target }} add column {{ adapter.quote(name) }} {{ type }};
    {%- endfor %}
{%- endmacro %}

{# The definitions of the columns that follow from others by themselves (`__generated`), by name. #}
{% macro generated_columns(model_name) -%}
    {%- set generated = {} -%}
    {%- for column in described_columns(model_name) if of_kind(column.config.meta, 'generated') -%}
        {%- do generated.update({column.name: column.config.meta}) -%}
    {%- endfor -%}
    {{ return(generated) }}
{%- endmacro %}

{% macro stored_generated_columns(target) -%}
    {%- set query -%}
        select attname, col_description(attrelid, attnum) as definition from pg_attribute
        where attrelid = to_regclass('{{ target }}') and attnum > 0 and not attisdropped and attgenerated != ''
    {%- endset -%}
    {%- set stored = {} -%}
    {%- for column in run_query(query).rows -%}
        {%- do stored.update({column.attname: column.definition}) -%}
    {%- endfor -%}
    {{ return(stored) }}
{%- endmacro %}

{#
    Drop the generated columns that are gone or have changed, and those over a column that gets another type. The others
    stay, and so do people's views over them.
#}
{% macro without_stale_columns(target, model_name, wanted) -%}
    {%- set generated = generated_columns(model_name) -%}
    {%- set existing = types_of(target) -%}
    select 1;
    {%- for name, definition in stored_generated_columns(target).items() %}
    {%- set parts = generated[name].values() | list if name in generated else [] %}
    {%- set kept = parts | select('in', wanted) | list %}
    {%- set retyped = [] -%}
    {%- for part in kept if existing[part] != wanted[part] -%} {%- do retyped.append(part) -%} {%- endfor -%}
    {%- if retyped or not parts or kept | length < parts | length or definition != local_md5(tojson(parts)) %}
    alter table {{ target }} drop column {{ adapter.quote(name) }};
    {%- endif %}
    {%- endfor %}
{%- endmacro %}

{% macro with_generated_columns(target, model_name) -%}
    {%- set stored = stored_generated_columns(target) -%}
    select 1;
    {%- for name, meta in generated_columns(model_name).items() if name not in stored %}
    alter table {{ target }} add column {{ name }} numeric
    generated always as ({{ of_kind(meta, 'generated')(meta) }}) stored;
    comment on column {{ target }}.{{ name }} is '{{ local_md5(tojson(meta.values() | list)) }}';
    {%- endfor %}
    {%- if 'recompute_at' in types_of(target) %}
    create index if not exists {{ target.name }}_recompute_at on {{ target }} (recompute_at)
    where recompute_at is not null;
    {%- endif %}
{%- endmacro %}

{# Whether a column that was there `before` (plain, or generated by a definition) is generated in another way now. #}
{% macro generated_otherwise(target, before) -%}
    {%- set now = stored_generated_columns(target) -%}
    {%- for name, definition in before.generated.items() if now.get(name) != definition -%}
        {{ return(true) }}
    {%- endfor -%}
    {{ return(now.keys() | select('in', before.plain) | list | length > 0) }}
{%- endmacro %}

{% macro types_of(relation) -%}
    {%- set types = {} -%}
    {%- set query -%}
        select attname, format_type(atttypid, atttypmod) as type
        from pg_attribute
        where attrelid = to_regclass('{{ relation }}') and attnum > 0 and not attisdropped and attgenerated = ''
        order by attnum
    {%- endset -%}
    {%- for column in run_query(query).rows -%}
        {%- do types.update({column.attname: column.type}) -%}
    {%- endfor -%}
    {{ return(types) }}
{%- endmacro %}

{#
    Replace the rows of `target` within `scope` (a condition on it) by those of `fresh`. Write only rows that differ,
    and log their keys where `is_logged`. Return how many rows differ.
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

{% macro update_where_distinct(columns) -%}
    {%- if columns -%}
    update set {{ assigned(columns) }}
    where ({{ prefixed('live', columns) }}) is distinct from ({{ prefixed('excluded', columns) }})
    {%- else -%} nothing
    {%- endif -%}
{%- endmacro %}

{% macro assigned(columns) -%}
    {%- for column in columns -%} {{ column }} = excluded.{{ column }}{{ ', ' if not loop.last }} {%- endfor -%}
{%- endmacro %}

{% macro prefixed(relation, columns) -%}
    {%- for column in columns -%} {{ relation }}.{{ column }}{{ ', ' if not loop.last }} {%- endfor -%}
{%- endmacro %}

{#
    Record how many rows a recompute changes: none, unless the incremental computation has a defect. Null where the two
    cannot be compared, because the definition or the instant differs.
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
