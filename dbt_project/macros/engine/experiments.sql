{#
    The materializations of `experiment_users` and `daily_moments`: an analysis recomputes the users that something has
    changed for, then the days that these users were exposed on, and leaves all other rows alone. The first time, after
    a change of a definition, and on --full-refresh it recomputes all.

    A tick only makes the tables, so that the views over them exist. An analysis, which is a run without a tick, brings
    each up to the newest published tick, in one transaction that sees the warehouse at one instant.
#}
{% materialization experiment_users, adapter='postgres' %}
    {%- set target = this.incorporate(type='table') -%}

    {%- do run_pre_hooks() -%}
    {%- do begin_snapshot() -%}
    {%- set definition = definition_with_views(sql) -%}
    {%- set progress = progress_of_analysis(model.name, target, definition) -%}
    {% if not progress.is_made %}
        {%- do make_table(target, model.name, sql, definition, config.require('key'), config.get('indexes', [])) -%}
    {% endif %}
    {% if var('tick_id', none) is none %}
        {% if progress.last is not none %}
            {%- do refresh_experiment_users(target, sql, find_stale_users(progress)) -%}
        {% endif %}
        {% if progress.last is none or should_full_refresh() %}
            {%- set differing = refresh_experiment_users(target, sql, find_all_stale_users()) -%}
            {%- do run_query(note_rebuild(model.name, progress, differing)) -%}
        {% endif %}
        {%- do run_query(save_state(model.name, progress, definition)) -%}
    {% endif %}
    {{ return(committed(target)) }}
{% endmaterialization %}

{% materialization daily_moments, adapter='postgres' %}
    {%- set target = this.incorporate(type='table') -%}

    {%- do run_pre_hooks() -%}
    {%- do begin_snapshot() -%}
    {%- set definition = local_md5(
        definition_with_views(sql) ~ state_of('experiment_users', ref('experiment_users')).definition
    ) -%}
    {%- set progress = progress_of_analysis(model.name, target, definition) -%}
    {% if not progress.is_made %}
        {%- do make_table(target, model.name, sql, definition, config.require('key')) -%}
    {% endif %}
    {% if var('tick_id', none) is none %}
        {% if progress.last is none or should_full_refresh() %}
            {%- do run_query(find_all_stale_days(target)) -%}
        {% endif %}
        {%- do run_query("analyze analytics.stale_days") -%}
        {%- do run_query(fresh_rows(sql)) -%}
        {%- do run_query(replace_stale_days(target)) -%}
        {%- do run_query(save_state(model.name, progress, definition)) -%}
    {% endif %}
    {{ return(committed(target)) }}
{% endmaterialization %}

{# A hash of the model and of the views that it reads (`recompute_with`). Where it changes, all rows are recomputed. #}
{% macro definition_with_views(sql) -%}
    {%- set read = [sql] -%}
    {%- for name in config.require('recompute_with') -%} {%- do read.append(comment_of(ref(name))) -%} {%- endfor -%}
    {{ return(local_md5(read | join(' '))) }}
{%- endmacro %}

{# Views over the table go with it; dbt makes them again, later in the same run. Its state is that of no tick. #}
{% macro make_table(target, model_name, sql, definition, key, indexes=[]) -%}
    {%- set statements -%}
        drop table if exists {{ target }} cascade;

        {{ fresh_rows(sql) }}
        with no data
    {%- endset -%}
    {%- do run_query(statements) -%}
    {%- do run_query(made_table(target, key, indexes) ~ "drop table fresh") -%}
    {%- do run_query(save_state(model_name, {'tick_id': 0, 'as_of': "'-infinity'::timestamptz"}, definition)) -%}
{%- endmacro %}

{# `lock table` takes no snapshot, so a run that waits here then sees what the run before it has committed. #}
{% macro begin_snapshot() -%}
    {%- set statements -%}
        set transaction isolation level repeatable read;
        lock table analytics.stale_days in exclusive mode
    {%- endset -%}
    {%- do run_query(statements) -%}
{%- endmacro %}

{#
    The tick to bring a table up to, the newest published one; whether the table exists with this definition (`is_made`),
    and its state (`last`), none before it is first filled.
#}
{% macro progress_of_analysis(model_name, relation, definition) -%}
    {%- set query -%}
        select coalesce(max(tick_id), 0) as tick_id, cast(coalesce(max(as_of), '-infinity') as text) as as_of
        from segments.published_ticks
    {%- endset -%}
    {%- set newest = run_query(query).rows[0] -%}
    {%- set last = state_of(model_name, relation) -%}
    {%- set is_made = last is not none and last.definition == definition -%}
    {{ return({
        'tick_id': newest.tick_id, 'as_of': "'" ~ newest.as_of ~ "'::timestamptz", 'is_tick': false,
        'is_made': is_made, 'last': last if is_made and last.tick_id > 0 else none, 'is_redefined': not is_made,
    }) }}
{%- endmacro %}

{#
    Make the rows of the users that `find_stale` finds what they should be. Returns how many rows differed; the days of
    these are stale from now on.
#}
{% macro refresh_experiment_users(target, sql, find_stale) -%}
    {%- do run_query("truncate analytics.stale_users") -%}
    {%- do run_query(find_stale) -%}
    {%- do run_query("analyze analytics.stale_users") -%}
    {%- do run_query("drop table if exists pg_temp.fresh, pg_temp.differing") -%}
    {%- do run_query(fresh_rows(sql)) -%}
    {%- do run_query(find_differing_users(target)) -%}
    {%- do run_query(replace_differing_users(target)) -%}
    {{ return(run_query("select count(*) as total from differing").rows[0].total) }}
{%- endmacro %}

{#
    Users to recompute: window just closed, goal changed, entry or assignment changed, identity merged, late event, or
    first exposure to an arm. `offset 0` forces an index look-up per user; in index order it is a third faster.
#}
{% macro find_stale_users(progress) -%}
    {%- set changed = changed_goals() -%}
    with invalidated as (
        delete from analytics.invalidated_users returning user_id
    ),

    views as (
        select user_id, properties, occurred_at
        from {{ ref('user_events') }}
        where
            event = 'experience viewed'
            and occurred_at >= {{ progress.last.as_of }}
            and occurred_at <= {{ progress.as_of }}
        order by user_id
    )

    insert into analytics.stale_users
    select user_id from {{ this }} where not is_window_over and closes_at <= {{ progress.as_of }}
    {%- if changed %}
    union
    select user_id from experiences.assignments where experience in ({{ quoted(changed) }})
    union
    select user_id from journeys.entries where journey in ({{ quoted(changed) }})
    {%- endif %}
    union
    select user_id from invalidated
    union
    select user_id from segments.merged_users where tick_id > {{ progress.last.tick_id }}
    union
    select user_id
    from {{ ref('identified_events') }}
    where
        load_id = any(array(select raw.loads_since({{ progress.last.tick_id }})))
        and occurred_at <= {{ progress.last.as_of }}
    union
    select views.user_id
    from views
    where not exists (
        select from {{ this }} as known
        where
            known.user_id = views.user_id
            and known.experiment = views.properties ->> 'experience'
            and (known.is_in_both_arms or known.arm = views.properties ->> 'variant')
        offset 0
    )
    order by user_id
{%- endmacro %}

{# Everybody who takes part in an experiment, or did. #}
{% macro find_all_stale_users() -%}
    {%- do changed_goals() -%}
    with invalidated as (
        delete from analytics.invalidated_users
    )

    insert into analytics.stale_users
    select user_id from experiences.assignments
    union
    select user_id from journeys.entries
    union
    select user_id from {{ this }}
{%- endmacro %}

{# The experiments whose goal is not what it was at the last analysis. #}
{% macro changed_goals() -%}
    {%- set query -%}
        select changed.name
        from segments.changed_definitions(
            'analytics.experiment_users',
            (select jsonb_object_agg(experiment, goal_version) from {{ ref('experiments') }})
        ) as changed (name)
    {%- endset -%}
    {{ return(run_query(query).columns[0].values()) }}
{%- endmacro %}

{% macro find_differing_users(target) -%}
    create temporary table differing on commit drop as
    with live as (
        select known.*
        from analytics.stale_users
        cross join lateral (
            select * from {{ target }} where user_id = stale_users.user_id offset 0
        ) as known
    )

    select
        coalesce(fresh.user_id, live.user_id) as user_id,
        coalesce(fresh.experiment, live.experiment) as experiment,
        array[fresh.exposed_on, live.exposed_on] as days
    from fresh
    full join live on fresh.user_id = live.user_id and fresh.experiment = live.experiment
    where fresh is distinct from live
{%- endmacro %}

{% macro replace_differing_users(target) -%}
    delete from {{ target }} as live using differing
    where live.user_id = differing.user_id and live.experiment = differing.experiment;

    insert into {{ target }}
    select fresh.*
    from fresh
    inner join differing on fresh.user_id = differing.user_id and fresh.experiment = differing.experiment;

    insert into analytics.stale_days
    select distinct differing.experiment, days.day
    from differing
    cross join unnest(differing.days) as days (day)
    where days.day is not null
    on conflict do nothing
{%- endmacro %}

{# All days that users were exposed on, or that the table has. #}
{% macro find_all_stale_days(target) -%}
    insert into analytics.stale_days
    select experiment, exposed_on from {{ ref('experiment_users') }}
    union
    select experiment, exposed_on from {{ target }}
    on conflict do nothing
{%- endmacro %}

{% macro replace_stale_days(target) -%}
    delete from {{ target }} as live using analytics.stale_days
    where live.experiment = stale_days.experiment and live.exposed_on = stale_days.exposed_on;

    insert into {{ target }} select * from fresh;

    delete from analytics.stale_days
{%- endmacro %}

{# The instant that the users of experiments are brought up to. #}
{% macro analysed_as_of() -%}
    (select states.as_of from features.states where states.model = 'experiment_users')
{%- endmacro %}
