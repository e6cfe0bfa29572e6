{#
    A segment is one SELECT of `user_id`, or of `account_id`. The membership log is its only state: a tick compares the
    SELECT with the members by the log, appends the changes, and leaves a view of current members. Without a tick's id
    (a model built by hand) the log does not change.

    `row_local` (a var, see upnext/segments/definition.py) lists the segments that depend on one row of the features.
    These evaluate only users whose row, or whose membership of a segment that they name, has changed since the last
    time. Others evaluate all users.

    The model's meta (upnext/segments/definition.py checks it): `owner`, `priority` and `exclusive_group` (see
    primary_segment), and `limit: {change: 50%, at_least: 100, hold: true}`, the share of its members by which a segment
    may change in one tick. Beyond it Upnext warns, and with `hold` it holds the change until someone releases it. Fewer
    changes than `at_least` never exceed the limit.
#}
{% materialization segment, adapter='postgres' %}
    {%- if flags.EMPTY -%}
        {{ exceptions.raise_compiler_error(model.name ~ ": --empty would make every member exit; leave it out") }}
    {%- endif -%}
    {%- set view = this.incorporate(type='view') -%}
    {%- set tick_id = var('tick_id', none) -%}

    {%- do run_pre_hooks() -%}

    {%- set last = last_evaluation(model.name, view, tick_id) -%}
    {%- set is_same = last is not none and last.id is not none
        and last.definition == local_md5(of_its_people(sql, {'id': last.id})) -%}
    {%- set columns = [last.id] if is_same else get_columns_in_query(sql) -%}
    {%- set unit = unit_of(columns) -%}
    {%- if unit is none -%}
        {%- set message -%}
            segment '{{ model.name }}' selects {{ columns | join(', ') }}; it must select user_id alone, or
            account_id alone
        {%- endset -%}
        {{ exceptions.raise_compiler_error(message) }}
    {%- endif -%}
    {%- if tick_id is none -%}
        {{ log("segment " ~ model.name ~ ": built by hand, so the membership log is left as it is", info=True) }}
    {%- else -%}
        {%- do evaluate_segment(model.name, unit, of_its_people(sql, unit), tick_id | int, last) -%}
    {%- endif -%}
    {%- set view_sql = members_view(model.name, unit) -%}
    {% if last is none or last.view_definition != local_md5(view_sql) %}
        {#- A view of the same columns is replaced, so that views over it stay. -#}
        {% if last is none or last.id != unit.id %} {%- do run_query("drop view if exists " ~ view) -%} {% endif %}
        {%- do run_query(made_view(view, view_sql)) -%}
    {% endif %}

    {{ return(committed(view)) }}
{% endmaterialization %}

{#
    The ids of `lists/<name>.csv`, for `user_id in {{ list('beta_testers') }}`. The hash of the file is part of the SQL,
    so that a changed list evaluates everybody, and an unchanged one nobody.
#}
{% macro list(name) -%}
    {%- set query -%} select max(hash) as hash from segments.list_files where list = {{ quoted([name]) }} {%- endset -%}
    (
        select lists.id from segments.lists as lists
        where lists.list = {{ quoted([name]) }} /* {{ run_query(query).rows[0].hash if execute }} */
    )
{%- endmacro %}

{#
    A share of all users in percent, the same ones at each tick: `{{ share(user_id, 10) }}`, or of all accounts
    `{{ share('account_id', 10) }}`. Each segment has its own share; with the same `name`, several segments have the
    same one. Jinja does not know user_id without quotes, so that is what an unknown unit means.
#}
{% macro share(unit, percent, name=none) -%}
    upnext.bucket({{ quoted([name or model.name]) }}, {{ unit if unit is string else 'user_id' }}) < {{ percent / 100 }}
{%- endmacro %}

{# Whether visitors are persons of their own before they are identified: a segment includes them. #}
{% macro has_visitors() -%}
    {%- if not execute -%} {{ return(false) }} {%- endif -%}
    {{ return(graph.nodes.values() | selectattr('config.materialized', 'equalto', 'segment')
        | selectattr('config.meta.include_anonymous') | list | length > 0) }}
{%- endmacro %}

{# A segment's SELECT, without visitors where it does not include them. #}
{% macro of_its_people(sql, unit) -%}
    {%- if unit.id == 'user_id' and has_visitors() and not (config.get('meta', {}) or {}).include_anonymous -%}
        select people.user_id
        from (
            {{ sql }}
        ) as people
        where not upnext.is_visitor(people.user_id)
    {%- else -%} {{ sql }}
    {%- endif -%}
{%- endmacro %}

{# Segments with an exclusive group. #}
{% macro exclusive_segments() -%}
    {%- if not execute -%} {{ return([]) }} {%- endif -%}
    {{ return(graph.nodes.values() | selectattr('config.materialized', 'equalto', 'segment')
        | selectattr('config.meta.exclusive_group') | sort(attribute='name') | list) }}
{%- endmacro %}

{#
    The members by the log. In a tick they include the tick's own changes, for segments that read this one. Other
    sessions do not see these changes before the tick is published.
#}
{% macro members_view(segment, unit) -%}
    select {{ unit.id }}, entered_at from {{ unit.members_of }}('{{ segment }}')
{%- endmacro %}

{# The unit of a SELECT of these columns, users or accounts, and where its features, changes and members are. #}
{% macro unit_of(columns) -%}
    {{ return({
        'user_id': {
            'id': 'user_id', 'features': 'user_features',
            'changes': 'segments.membership_changes',
            'members': 'segments.members', 'members_of': 'segments.users_of'
        },
        'account_id': {
            'id': 'account_id', 'features': 'account_features',
            'changes': 'segments.account_membership_changes',
            'members': 'segments.account_members', 'members_of': 'segments.accounts_of'
        },
    }.get(columns | join(', '))) }}
{%- endmacro %}

{#
    The last evaluation. `id` is the key of the segment's view and `view_definition` its hash, none where there is no
    view. `rebuilt_by` has, for each table of features, the newest tick for which any row may have changed. The query
    also fences the tick, because with hundreds of segments each further query counts.
#}
{% macro last_evaluation(segment, view, tick_id) -%}
    {%- set query -%}
        select
            last.*,
            (
                select attname from pg_attribute
                where attrelid = to_regclass('{{ view }}') and attnum = 1
            ) as id,
            obj_description(to_regclass('{{ view }}'), 'pg_class') as view_definition,
            (select jsonb_object_agg(model, coalesce(all_touched_by, 0)) from features.states) as rebuilt_by
        from ({{ "select upnext.fence_tick(" ~ tick_id ~ ")" if tick_id is not none else "select 1" }}) as fence
        left join lateral (
            select
                tick_id,
                definition,
                is_held,
                is_released,
                error,
                members_before + case when is_held then 0 else entered - exited end as members
            from segments.evaluations
            where segment = '{{ segment }}'
            order by tick_id desc
            limit 1
        ) as last on true
    {%- endset -%}
    {%- set found = run_query(query).rows[0] -%}
    {{ return(found if found.tick_id is not none else none) }}
{%- endmacro %}

{% macro evaluate_segment(segment, unit, sql, tick_id, last) -%}
    {%- set definition = local_md5(sql) -%}
    {%- if last and last.tick_id == tick_id -%} {{ return('') }} {%- endif -%}
    {%- set is_by_row = last and last.definition == definition and not last.is_held and not last.error
        and model.name in var('row_local', []) and fromjson(last.rebuilt_by)[unit.features] <= last.tick_id -%}
    {%- set limit = config.get('meta', {}).limit or {} -%}
    {%- set may_hold = limit.hold and not (last.is_held and last.is_released) or false -%}
    {%- set share = limit.change | replace('%', '') if limit else "'infinity'::float8" -%}
    {%- set touched = touched_members(unit, last.tick_id, tick_id) if is_by_row else none -%}
    {%- set statement %}
        with {{ changed_members(segment, unit, sql, touched) }},

        counted as (
            select
                {% if is_by_row -%}
                (select count(*) from touched) as looked_at,
                {{ last.members }} as members_before,
                {%- else -%}
                (select count(*) from features.{{ unit.features }}) as looked_at,
                (select count(*) from members) as members_before,
                {%- endif %}
                count(*) filter (where change = 'entered') as entered,
                count(*) filter (where change = 'exited') as exited
            from changed
        ),

        judged as (
            select
                *,
                members_before > 0
                and entered + exited >= {{ limit.at_least or 0 }}
                and (entered + exited) * 100 > members_before * {{ share }} as is_beyond
            from counted
        ),

        evaluated as (
            insert into segments.evaluations
                (segment, tick_id, definition, looked_at, members_before, entered, exited, is_beyond_limit, is_held)
            select
                '{{ segment }}', {{ tick_id }}, '{{ definition }}', looked_at, members_before, entered, exited,
                is_beyond, is_beyond and {{ may_hold }}
            from judged
        )

        insert into {{ unit.changes }} (tick_id, segment, {{ unit.id }}, change, as_of)
        select {{ tick_id }}, '{{ segment }}', changed.id, changed.change, {{ as_of() }}
        from changed
        inner join judged on not (judged.is_beyond and {{ may_hold }})
        order by changed.id
    {%- endset -%}
    {#- A value that a condition cannot read must not prevent the publication of the other segments. -#}
    {%- set attempt -%}
        select upnext.attempt($statement${{ statement }}$statement$) as error
        from set_config('upnext.tick_id', '{{ tick_id }}', true)
    {%- endset -%}
    {%- set error = run_query(attempt).rows[0].error -%}
    {%- if error is not none -%}
        {{ log("segment " ~ segment ~ ": held out, its members stay as they are: " ~ error, info=True) }}
        {%- set hold_out %}
            insert into segments.evaluations (
                segment, tick_id, definition, looked_at, members_before, entered, exited, is_beyond_limit, is_held,
                error
            )
            select
                '{{ segment }}', {{ tick_id }}, '{{ definition }}', 0, count(*), 0, 0, false, false, '{{ error }}'
            from {{ unit.members }}
            where segment = '{{ segment }}'
        {%- endset -%}
        {%- do run_query(hold_out) -%}
    {%- endif -%}
{%- endmacro %}

{# CTEs: `changed` has the ids that are selected and not members, or the reverse, of those touched or of all. #}
{% macro changed_members(segment, unit, sql, touched) -%}
    {%- if touched %}
    touched as materialized (
        {{ touched }}
    ),
    {% endif %}
    selected as (
        {%- if touched %}
        select distinct selected.{{ unit.id }} as id
        from touched
        inner join (
            {{ sql }}
        ) as selected on touched.id = selected.{{ unit.id }}
        {%- else %}
        select distinct {{ unit.id }} as id
        from (
            {{ sql }}
        ) as selected
        where {{ unit.id }} is not null
        {%- endif %}
    ),

    members as (
        select {{ unit.id }} as id from {{ unit.members }} where segment = '{{ segment }}'
        {%- if touched %} and {{ unit.id }} in (select id from touched){% endif %}
    ),

    changed as materialized (
        select
            coalesce(selected.id, members.id) as id,
            case when members.id is null then 'entered' else 'exited' end as change
        from selected
        full join members on selected.id = members.id
        where selected.id is null or members.id is null
    )
{%- endmacro %}

{# The ids whose features, or whose membership of the segments that are named, have changed since a tick. #}
{% macro touched_members(unit, last_tick_id, tick_id) -%}
    select key as id from ({{ changed_keys([unit.features], last_tick_id, tick_id) }}) as touched group by key
    {%- for segment in segments_named() %}
    union
    select {{ unit.id }} from {{ unit.changes }}
    where segment = '{{ segment.name }}' and tick_id > {{ last_tick_id }} and tick_id <= {{ tick_id }}
    {%- endfor %}
{%- endmacro %}

{# The segments that this one is built on. #}
{% macro segments_named() -%}
    {{ return(graph.nodes.values() | selectattr('unique_id', 'in', model.depends_on.nodes)
        | selectattr('config.materialized', 'equalto', 'segment') | list) }}
{%- endmacro %}
