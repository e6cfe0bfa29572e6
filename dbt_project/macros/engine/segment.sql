{#
    A segment is one SELECT of `user_id`, or of `account_id`. The membership log is its only state: a tick compares the
    SELECT with the members by the log, appends the changes, and leaves a view of current members. Without a tick's id
    (a model built by hand) the log does not change.

    `row_local` (a var, see upnext/segments/definition.py) lists the segments that depend on one row of the features.
    These evaluate only users whose row, or whose membership of a segment that they name, has changed since the last
    time. Others evaluate all users. Most of the former are evaluated together, by `evaluate_together`, and dbt leaves
    them out (see upnext/segments/by_row.py). So a change of how their view is made needs a migration that drops it.

    The model's meta (upnext/segments/definition.py checks it): `owner`, `priority` and `exclusive_group` (see
    primary_segment), and `limit: {change: 50%, at_least: 100, hold: true}`, the share of its members by which a segment
    may change in one tick. Beyond it Upnext warns, and with `hold` it holds the change until someone releases it. Fewer
    changes than `at_least` never exceed the limit.
#}
{% materialization segment, adapter='postgres' %}
    {%- set view = this.incorporate(type='view') -%}
    {%- set tick_id = var('tick_id', none) -%}

    {%- do begin_model() -%}

    {%- set last = last_evaluation(model.name, view, tick_id) -%}
    {#- The view may be of a tick that was never published, and of the other unit. -#}
    {%- set is_same = last.id is not none and last.unit in (none, last.id)
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
        {%- do evaluate_segment(model.name, unit, of_its_people(sql, unit), tick_id | int, last, is_same) -%}
    {%- endif -%}
    {%- set view_sql = members_view(model.name, unit) -%}
    {% if last.view_definition != local_md5(view_sql) %}
        {#- A view of the same columns is replaced, so that views over it stay. -#}
        {% if last.id != unit.id %} {%- do run_query("drop view if exists " ~ view) -%} {% endif %}
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
        select lists.id from {{ var('lists', 'segments.lists') }} as lists
        where lists.list = {{ quoted([name]) }} /* {{ run_query(query).rows[0].hash if execute }} */
    )
{%- endmacro %}

{#
    A share of all users in percent, the same ones at each tick: `{{ share(user_id, 10) }}`, or of all accounts
    `{{ share('account_id', 10) }}`. Each segment has its own share; with the same `name`, several segments have the
    same one. Jinja does not know user_id without quotes, so that is what an unknown unit means.
#}
{% macro share(unit, percent, name=none) -%}
    {%- set salt = quoted([name or var('previewed', model.name)]) -%}
    upnext.bucket({{ salt }}, {{ unit if unit is string else 'user_id' }}) < {{ percent / 100 }}
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

{# The unit that a table of features has one row for. #}
{% macro unit_of_features(features) -%}
    {{ return(unit_of(['account_id'] if features == 'account_features' else ['user_id'])) }}
{%- endmacro %}

{#
    The last evaluation; its `tick_id` is none before the first. `id` is the key of the segment's view and
    `view_definition` its hash, none where there is no view. `rebuilt_by` has, for each table of features, the newest
    tick for which any row may have changed. The query also fences the tick, because with hundreds of segments each
    further query counts.
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
            (select jsonb_object_agg(model, coalesce(all_touched_by, 0)) from features.states) as rebuilt_by,
            (select text_hash from segments.by_row where segment = '{{ segment }}') as text_hash
        from ({{ "select upnext.fence_tick(" ~ tick_id ~ ")" if tick_id is not none else "select 1" }}) as fence
        left join lateral (
            select
                tick_id,
                definition,
                unit,
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
    {{ return(run_query(query).rows[0]) }}
{%- endmacro %}

{# The limit of a segment's meta, as SQL: the share in percent, the fewest changes that exceed it, whether it holds. #}
{% macro limit_of(meta) -%}
    {%- set limit = meta.limit or {} -%}
    {{ return({
        'share': limit.change | replace('%', '') if limit else "'infinity'::float8",
        'at_least': limit.at_least or 0,
        'holds': limit.hold or false,
    }) }}
{%- endmacro %}

{% macro evaluate_segment(segment, unit, sql, tick_id, last, is_same) -%}
    {%- set definition = local_md5(sql) -%}
    {%- if last.tick_id == tick_id -%} {{ return('') }} {%- endif -%}
    {%- set is_by_row = last.definition == definition and not last.is_held and not last.error
        and model.name in var('row_local', []) and fromjson(last.rebuilt_by)[unit.features] <= last.tick_id -%}
    {%- set limit = limit_of(config.get('meta', {}) or {}) -%}
    {%- set may_hold = limit.holds and not (last.is_held and last.is_released) -%}
    {%- set text_hash = quoted([last.text_hash]) if last.text_hash else 'null' -%}
    {%- set touched = touched_members(unit, last.tick_id, tick_id) if is_by_row else none -%}
    {%- set other = unit_of(['account_id' if unit.id == 'user_id' else 'user_id']) -%}
    {%- set statement %}
        with {{ changed_members(segment, unit, sql, touched) }},

        {# Users are no members any more if the segment is one of accounts now, and the other way round. #}
        others as materialized (
            select {{ other.id }} as id from {{ other.members }}
            where segment = '{{ segment }}' and {{ 'false' if is_same else 'true' }}
        ),

        counted as (
            select
                {% if is_by_row -%}
                (select count(*) from touched) as looked_at,
                {{ last.members }} as members_before,
                {%- else -%}
                (select count(*) from features.{{ unit.features }}) as looked_at,
                (select count(*) from members) + (select count(*) from others) as members_before,
                {%- endif %}
                count(*) filter (where change = 'entered') as entered,
                count(*) filter (where change = 'exited') + (select count(*) from others) as exited
            from changed
        ),

        judged as (
            select
                *,
                members_before > 0
                and entered + exited >= {{ limit.at_least }}
                and (entered + exited) * 100 > members_before * {{ limit.share }} as is_beyond
            from counted
        ),

        evaluated as (
            insert into segments.evaluations (
                segment, tick_id, definition, text_hash, unit, looked_at, members_before, entered, exited,
                is_beyond_limit, is_held
            )
            select
                '{{ segment }}', {{ tick_id }}, '{{ definition }}', {{ text_hash }}, '{{ unit.id }}', looked_at,
                members_before, entered, exited, is_beyond, is_beyond and {{ may_hold }}
            from judged
        ),

        left_by_others as (
            insert into {{ other.changes }} (tick_id, segment, {{ other.id }}, change, as_of)
            select {{ tick_id }}, '{{ segment }}', others.id, 'exited', {{ as_of() }}
            from others
            inner join judged on not (judged.is_beyond and {{ may_hold }})
            order by others.id
        )

        insert into {{ unit.changes }} (tick_id, segment, {{ unit.id }}, change, as_of)
        select {{ tick_id }}, '{{ segment }}', changed.id, changed.change, {{ as_of() }}
        from changed
        inner join judged on not (judged.is_beyond and {{ may_hold }})
        order by changed.id
    {%- endset -%}
    {%- set error = attempt(statement, tick_id) -%}
    {%- if error is not none -%} {%- do note_failure(segment, unit, definition, tick_id, error) -%} {%- endif -%}
{%- endmacro %}

{# Run a statement; if it meets a value that a condition cannot read, change nothing and return why. #}
{% macro attempt(statement, tick_id) -%}
    {%- set attempted -%}
        select upnext.attempt($statement${{ statement }}$statement$) as error
        from set_config('upnext.tick_id', '{{ tick_id }}', true)
    {%- endset -%}
    {{ return(run_query(attempted).rows[0].error) }}
{%- endmacro %}

{# Note that a segment could not be evaluated. It must not prevent the publication of the others. #}
{% macro note_failure(segment, unit, definition, tick_id, error) -%}
    {{ log("segment " ~ segment ~ ": not evaluated, its members stay as they are: " ~ error, info=True) }}
    {%- set noted %}
        insert into segments.evaluations (
            segment, tick_id, definition, unit, looked_at, members_before, entered, exited, is_beyond_limit, is_held,
            error
        )
        select
            '{{ segment }}', {{ tick_id }}, '{{ definition }}', '{{ unit.id }}', 0, count(*), 0, 0, false, false,
            '{{ error }}'
        from {{ unit.members }}
        where segment = '{{ segment }}'
    {%- endset -%}
    {%- do run_query(noted) -%}
{%- endmacro %}

{#
    Evaluate, by a table of features that is at the tick, the segments that dbt leaves out. One statement reads each row
    once for all of them. If it meets a value that some condition cannot read, each is evaluated by itself.
#}
{% macro evaluate_together(features, progress) -%}
    {%- if not progress.is_tick -%} {{ return('') }} {%- endif -%}
    {%- set tick_id = progress.tick_id -%}
    {%- set segments = run_query(segments_together(features, tick_id)).rows -%}
    {%- if not segments -%} {{ return('') }} {%- endif -%}
    {%- set unit = unit_of_features(features) -%}
    {%- do run_query(touched_together(segments, unit, tick_id)) -%}
    {%- if attempt(conditions_together(segments, unit, tick_id), tick_id) is not none -%}
        {%- for segment in segments -%}
            {%- set error = attempt(conditions_together([segment], unit, tick_id), tick_id) -%}
            {%- if error is not none -%}
                {%- do note_failure(segment.segment, unit, segment.definition, tick_id, error) -%}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro %}

{# A table, because the planner has to know how many they are. #}
{% macro touched_together(segments, unit, tick_id) -%}
    create temporary table touched on commit drop as
    {%- if segments | selectattr('is_rebuilt') | list %}
    select {{ unit.id }} as id from features.{{ unit.features }}
    union
    select {{ unit.id }} from {{ unit.members }} where segment in ({{ names_together(segments) }})
    {%- else %}
    {{ touched_members(unit, segments | map(attribute='last_tick_id') | min, tick_id) }}
    {%- endif %};

    analyze touched
{%- endmacro %}

{% macro names_together(segments) -%} {{ quoted(segments | map(attribute='segment') | list) }} {%- endmacro %}

{# The segments of a table of features that are evaluated together, each with its last evaluation. #}
{% macro segments_together(features, tick_id) -%}
    select
        by_row.segment,
        by_row.condition,
        by_row.text_hash,
        last.definition,
        last.tick_id as last_tick_id,
        last.members_before + last.entered - last.exited as members,
        coalesce(states.all_touched_by > last.tick_id, false) as is_rebuilt
    from segments.by_row
    inner join features.states on by_row.features = states.model
    cross join lateral (
        select * from segments.evaluations
        where segment = by_row.segment
        order by tick_id desc
        limit 1
    ) as last
    where by_row.features = '{{ features }}' and by_row.is_together and last.tick_id < {{ tick_id }}
    order by by_row.segment
{%- endmacro %}

{% macro conditions_together(segments, unit, tick_id) -%}
    with declared (nth, segment, definition, text_hash, members_before, share, at_least, holds) as (
        values
        {%- for segment in segments %}
        {%- set limit = limit_of(graph.nodes['model.upnext.' ~ segment.segment].config.meta or {}) %}
        (
            {{ loop.index }}, {{ quoted([segment.segment, segment.definition, segment.text_hash]) }},
            {{ segment.members }}, {{ limit.share }}, {{ limit.at_least }}, {{ limit.holds }}
        ){{ ',' if not loop.last }}
        {%- endfor %}
    ),

    met as materialized (
        select
            {{ unit.id }} as id,
            array_remove(array[
                {%- for segment in segments %}
                case when (
                    {{ segment.condition }}
                ) then {{ loop.index }} end{{ ',' if not loop.last }}
                {%- endfor %}
            ], null) as nths
        from features.{{ unit.features }}
        where {{ unit.id }} in (select touched.id from touched)
    ),

    member_of as (
        select members.id, array_agg(declared.nth) as nths
        from (
            select {{ unit.id }} as id, segment from {{ unit.members }}
            where {{ unit.id }} in (select touched.id from touched)
        ) as members
        inner join declared on members.segment = declared.segment
        group by members.id
    ),

    {# Most stay members of the same segments, so that the two lists are compared as a whole. #}
    compared as (
        select
            id,
            coalesce(met.nths, array[]::integer []) as selected,
            coalesce(member_of.nths, array[]::integer []) as members
        from met
        full join member_of using (id)
    ),

    moved as (
        select * from compared
        where cardinality(selected) <> cardinality(members) or not selected @> members
    ),

    changed as materialized (
        select moves.id, declared.segment, moves.change
        from (
            select id, unnest(selected) as nth, 'entered' as change, members as others from moved
            union all
            select id, unnest(members), 'exited', selected from moved
        ) as moves
        inner join declared on moves.nth = declared.nth
        where moves.nth <> all(moves.others)
    ),

    counted as (
        select
            segment,
            count(*) filter (where change = 'entered') as entered,
            count(*) filter (where change = 'exited') as exited
        from changed
        group by segment
    ),

    judged as (
        select
            declared.segment,
            declared.definition,
            declared.text_hash,
            declared.members_before,
            declared.holds,
            coalesce(counted.entered, 0) as entered,
            coalesce(counted.exited, 0) as exited,
            declared.members_before > 0
            and counted.entered + counted.exited >= declared.at_least
            and (counted.entered + counted.exited) * 100 > declared.members_before * declared.share as is_beyond
        from declared
        left join counted on declared.segment = counted.segment
    ),

    evaluated as (
        insert into segments.evaluations (
            segment, tick_id, definition, text_hash, unit, looked_at, members_before, entered, exited,
            is_beyond_limit, is_held
        )
        select
            segment, {{ tick_id }}, definition, text_hash, '{{ unit.id }}', (select count(*) from touched),
            members_before, entered, exited, coalesce(is_beyond, false), coalesce(is_beyond and holds, false)
        from judged
    )

    insert into {{ unit.changes }} (tick_id, segment, {{ unit.id }}, change, as_of)
    select {{ tick_id }}, changed.segment, changed.id, changed.change, {{ as_of() }}
    from changed
    inner join judged on changed.segment = judged.segment and (judged.is_beyond and judged.holds) is not true
    order by changed.segment, changed.id
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
