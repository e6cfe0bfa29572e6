{#
    The materialization of `experiment_users` and `daily_moments`. It makes the table, empty, and beside it the function
    `analytics.refresh_<model>(is_full)`, which brings the table up to the newest published tick and returns how many
    rows it changed. Each analysis calls both in the transaction of its results, which costs less than a run of dbt.

    An analysis recomputes the users with a change, then the days on which these users were exposed, and leaves all
    other rows alone. The first time, and after a change of a definition, it recomputes all, and several sessions share
    many users. --full-refresh also recomputes all, and notes how many rows were wrong.

    The table has a hash of its definition as its comment: the function, and the models of `recompute_with`.
#}
{% materialization refreshed, adapter='postgres' %}
    {%- set target = this.incorporate(type='table') -%}

    {%- do begin_model() -%}
    {% if should_full_refresh() %} {%- do begin_snapshot() -%} {% endif %}
    {%- set function = context['refresh_of_' ~ model.name](target, sql) -%}
    {%- set read = [function] -%}
    {%- for name in config.require('recompute_with') -%} {%- do read.append(comment_of(ref(name))) -%} {%- endfor -%}
    {%- set definition = local_md5(read | join(' ')) -%}
    {%- set last = state_of(model.name, target) -%}
    {% if last is none or comment_of(target) != definition %}
        {%- do run_query(made_empty(target, sql)) -%}
        {%- do run_query(made_table(target, config.require('key'), config.get('indexes', []))) -%}
        {%- do run_query(function) -%}
        {%- do run_query(described(target, definition)) -%}
        {%- do run_query(save_state(model.name, {'tick_id': 0, 'as_of': "'-infinity'::timestamptz"}, definition)) -%}
    {% elif should_full_refresh() and last.tick_id > 0 %}
        {%- do run_query("select analytics.refresh_" ~ model.name ~ "(false)") -%}
        {%- set changed = run_query("select analytics.refresh_" ~ model.name ~ "(true) as rows").rows[0].rows -%}
        {#- Rows that are rounded differ in their last digits, so a count of them would say nothing. -#}
        {% if not config.get('is_rounded') %}
            {%- set now = state_of(model.name, target) -%}
            {%- do run_query(note_rebuild(model.name, {'as_of': now.as_of, 'last': now}, changed)) -%}
        {% endif %}
    {% endif %}
    {{ return(committed(target)) }}
{% endmaterialization %}

{# An analysis that runs ends first. Views over the table go with it; dbt makes them again, later in the same run. #}
{% macro made_empty(target, sql) -%}
    lock table analytics.stale_days in exclusive mode;

    drop table if exists {{ target }} cascade;

    {{ fresh_rows(sql) }}
    with no data
{%- endmacro %}

{% macro described(target, definition) -%}
    comment on table {{ target }} is '{{ definition }}';

    drop table fresh
{%- endmacro %}

{# `lock table` takes no snapshot, so a run that waits here then sees what the run before it has committed. #}
{% macro begin_snapshot() -%}
    {%- set statements -%}
        set transaction isolation level repeatable read;
        lock table analytics.stale_days in exclusive mode
    {%- endset -%}
    {%- do run_query(statements) -%}
{%- endmacro %}

{% macro refresh_of_experiment_users(target, sql) -%}
    create or replace function analytics.refresh_experiment_users(is_full boolean) returns bigint
    language plpgsql as $function$
    #variable_conflict use_column
    declare
        last features.states;
        newest segments.published_ticks;
        new_goals text[];
        of_experiences text[];
        few text[];
        found bigint;
    begin
        select * into last from features.states where model = 'experiment_users';
        select * into newest from segments.published_ticks order by tick_id desc limit 1;
        new_goals := array(select {{ changed_goals() }});
        {#- Experiments on the rules of an experience are called after it. -#}
        of_experiences := array(select split_part(experiment, '/', 1) from unnest(new_goals) as goals (experiment));
        {{ forget_nobodies(target) }};

        truncate analytics.stale_users;
        if last.tick_id > 0 and not is_full then
            {{ find_stale_users(target) }};
        else
            delete from analytics.invalidated_users;
            {{ find_all_stale_users(target) }};
        end if;
        analyze analytics.stale_users;
        {{ find_stale_events() }};

        drop table if exists pg_temp.fresh, pg_temp.differing;

        {{ fresh_rows(sql) }};

        {{ find_differing_users(target) }};
        truncate analytics.stale_events;

        {{ replace_differing_users(target) }};

        {{ save_newest_tick() }};
        select count(*) into found from differing;
        return found;
    end
    $function$;

    {{ computing_by_parts(target, sql) }}
{%- endmacro %}

{#
    Two functions for an empty table of many users: several sessions compute a part each, and then one notes that all
    is done. They share the tables `stale_users` and `stale_events`, of which a session sees only the rows that it has
    written itself. A part replaces the rows of an earlier attempt that was not noted as done.
#}
{% macro computing_by_parts(target, sql) -%}
    create or replace function analytics.compute_part_of_experiment_users(part integer, parts integer) returns bigint
    language plpgsql as $function$
    #variable_conflict use_column
    declare
        kept_since timestamptz := coalesce((select since from raw.kept), '-infinity');
        found bigint;
    begin
        {{ find_all_stale_users(target, where='mod(hashtextextended(user_id, 0), parts) in (part, part - parts)') }};
        {{ stale_events('user_id in (select stale_users.user_id from analytics.stale_users)') }};

        delete from {{ target }} as live using analytics.stale_users
        where live.user_id = stale_users.user_id and live.exposed_at >= kept_since;

        insert into {{ target }}
        select * from (
            {{ sql }}
        ) as fresh
        where fresh.exposed_at >= kept_since
        on conflict do nothing;

        get diagnostics found = row_count;
        return found;
    end
    $function$;

    create or replace function analytics.note_experiment_users_as_computed() returns void
    language plpgsql as $function$
    declare
        newest segments.published_ticks;
    begin
        select * into newest from segments.published_ticks order by tick_id desc limit 1;
        perform {{ changed_goals() }};
        delete from analytics.invalidated_users;
        {{ save_newest_tick() }};
        update features.states set tick_id = 0 where model = 'daily_moments';
    end
    $function$
{%- endmacro %}

{# The experiments whose goals are not those of the last time. #}
{% macro changed_goals() -%}
    segments.changed_definitions(
        'analytics.experiment_users',
        (select jsonb_object_agg(experiment, goal_version) from {{ ref('experiments') }})
    )
{%- endmacro %}

{% macro save_newest_tick() -%}
    update features.states
    set tick_id = coalesce(newest.tick_id, 0), as_of = coalesce(newest.as_of, '-infinity')
    where model = 'experiment_users'
{%- endmacro %}

{% macro refresh_of_daily_moments(target, sql) -%}
    create or replace function analytics.refresh_daily_moments(is_full boolean) returns bigint
    language plpgsql as $function$
    #variable_conflict use_column
    declare
        last features.states;
        users features.states;
        found bigint;
    begin
        select * into last from features.states where model = 'daily_moments';
        select * into users from features.states where model = 'experiment_users';
        if last.tick_id = 0 or is_full then
            {{ find_all_stale_days(target) }};
        end if;
        analyze analytics.stale_days;

        drop table if exists pg_temp.fresh;

        {{ fresh_rows(sql) }};

        {{ replace_stale_days(target) }};

        get diagnostics found = row_count;
        update features.states
        set tick_id = users.tick_id, as_of = users.as_of
        where model = 'daily_moments';
        return found;
    end
    $function$
{%- endmacro %}

{#
    Users to recompute: window just closed, goal changed, entry or assignment changed, identity merged, late event, or
    first exposure to an arm. `offset 0` forces an index look-up per user; in index order it is a third faster.
#}
{% macro find_stale_users(target) -%}
    with invalidated as (
        delete from analytics.invalidated_users returning user_id
    ),

    views as (
        select user_id, properties, occurred_at
        from {{ ref('user_events') }}
        where
            event = 'experience viewed'
            and occurred_at >= last.as_of
            and occurred_at <= newest.as_of
        order by user_id
    )

    insert into analytics.stale_users
    select user_id from {{ target }} where not is_window_over and closes_at <= newest.as_of
    union
    select user_id from experiences.assignments where experience = any(of_experiences) or 'programme' = any(new_goals)
    union
    select user_id from journeys.entries where journey = any(new_goals) or 'programme' = any(new_goals)
    union
    select user_id from experiences.held_out where 'programme' = any(new_goals)
    union
    select user_id from invalidated
    union
    select user_id from segments.merged_users where tick_id > last.tick_id
    union
    select user_id
    from {{ ref('identified_events') }}
    where
        load_id = any(array(select raw.loads_since(last.tick_id)))
        and occurred_at <= last.as_of
    union
    select views.user_id
    from views
    where not exists (
        select from {{ target }} as known
        where
            known.user_id = views.user_id
            and known.experiment = views.properties ->> 'experience'
            and (known.is_in_both_arms or known.arm = views.properties ->> 'variant')
        offset 0
    )
    order by user_id
{%- endmacro %}

{# Of people who were erased, and of events that were deleted, an outcome by another goal cannot be computed. #}
{% macro forget_nobodies(target) -%}
    with forgotten as (
        delete from {{ target }}
        where
            experiment = any(new_goals)
            and (upnext.is_nobody(user_id) or exposed_at < (select since from raw.kept))
        returning experiment, exposed_on
    )

    insert into analytics.stale_days
    select distinct experiment, exposed_on from forgotten
    on conflict do nothing
{%- endmacro %}

{# Everybody who takes part in an experiment, or did, in index order. Nobodies stay as they are. #}
{% macro find_all_stale_users(target, where='true') -%}
    insert into analytics.stale_users
    select user_id from experiences.assignments where {{ where }}
    union
    select user_id from journeys.entries where {{ where }}
    union
    select user_id from experiences.held_out where {{ where }}
    union
    select user_id from {{ target }} where not upnext.is_nobody(user_id) and {{ where }}
    order by user_id
{%- endmacro %}

{#
    In the order of the users, in which the outcomes are computed. Few users are written out, because the planner
    misestimates a join with them, and would read the events of everybody.
#}
{% macro find_stale_events() -%}
    {%- set few_users = 20000 -%}
    truncate analytics.stale_events;
    few := array(select user_id from analytics.stale_users limit {{ 1 + few_users }});
    if cardinality(few) > {{ few_users }} then
        {{ stale_events('user_id in (select stale_users.user_id from analytics.stale_users)') }};
    else
        {{ stale_events('user_id = any(few)') }};
    end if;
    analyze analytics.stale_events
{%- endmacro %}

{% macro stale_events(of_users) -%}
    {%- set metrics = described_columns('experiment_users') -%}
    {%- set names = ['experience viewed', 'experience clicked'] + metric_events(metrics) -%}
    insert into analytics.stale_events
    select user_id, type, event, occurred_at, source, message_id, properties, context, is_derived
    from {{ ref('user_events') }}
    where
        {{ of_users }}
        and event = any(
            array[{{ quoted(names) }}] || array(select unnest(goal_events) from {{ ref('experiments') }})
        )
    order by user_id
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
    where
        fresh is distinct from live
        -- Of an exposure before the events that are kept, nothing can be computed again.
        and coalesce(live.exposed_at, fresh.exposed_at) >= coalesce((select since from raw.kept), '-infinity')
        -- Nor what came before an exposure, by the time of the goal. An hourly analysis has a reason to compute it.
        and (
            not is_full
            or live.user_id is null
            or not live.is_window_over
            or live.exposed_at - (live.closes_at - live.exposed_at)
            >= coalesce((select since from raw.kept), '-infinity')
        )
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

{# All days of exposure, and all days in the table. #}
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

{# The instant that `experiment_users` is computed as of. #}
{% macro analysed_as_of() -%}
    (select states.as_of from features.states where states.model = 'experiment_users')
{%- endmacro %}
