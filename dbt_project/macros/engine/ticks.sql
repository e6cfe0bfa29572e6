{# The instant that everything is computed at: the tick's, or for a model built by hand the last published one. #}
{% macro as_of() -%}
    {%- if var('as_of', none) -%}
        '{{ var("as_of") }}'::timestamptz
    {%- else -%}
        {{ published_as_of() }}
    {%- endif -%}
{%- endmacro %}

{% macro newest_tick() -%}
    (select coalesce(max(published_ticks.tick_id), 0) from segments.published_ticks)
{%- endmacro %}

{% macro published_as_of() -%}
    (select max(published_ticks.as_of) from segments.published_ticks)
{%- endmacro %}

{#
    How to bring a table up to a tick: its `tick_id` and `as_of` (SQL), the table's `last` state (none before it is
    first filled), and `mode`:

        rebuild   from all events: the first time, on --full-refresh, or where its definition is another, or where any
                  row of a model of `upstream` may have changed
        advance   by the difference since `last`
        stay      built by hand, and nothing to do: only a tick takes in what has been loaded

    By hand a table is rebuilt as of its last tick, so that the next tick starts from a correct state.
#}
{% macro progress_of(model_name, relation, definition, upstream=[]) -%}
    {#- If two runs of dbt overlap, the second waits here, and finds nothing left to do. -#}
    {%- set lock -%} select pg_advisory_xact_lock(hashtextextended('upnext:{{ model_name }}', 0)) {%- endset -%}
    {%- do run_query(lock) -%}
    {%- do fence_tick() -%}
    {%- set last = state_of(model_name, relation) -%}
    {%- set tick_id = var('tick_id', none) -%}
    {%- if tick_id is not none -%}
        {%- set to = {'tick_id': tick_id | int, 'as_of': as_of()} -%}
    {%- elif last is not none -%}
        {%- set to = {'tick_id': last.tick_id, 'as_of': last.as_of} -%}
    {%- else -%}
        {%- set to = {'tick_id': newest_tick(), 'as_of': published_as_of()} -%}
    {%- endif -%}
    {%- if last is none or last.definition != definition or should_full_refresh() -%}
        {%- set mode = 'rebuild' -%}
    {%- elif tick_id is none -%}
        {%- set mode = 'stay' -%}
    {%- else -%}
        {%- set mode = 'rebuild' if upstream and are_all_touched(upstream, last.tick_id) else 'advance' -%}
    {%- endif -%}
    {{ return({
        'mode': mode, 'tick_id': to.tick_id, 'as_of': to.as_of, 'is_tick': tick_id is not none,
        'last': last,
        'is_redefined': last is not none and last.definition != definition,
    }) }}
{%- endmacro %}

{# The tick and the instant that a table is brought up to, and its definition then; none where it does not exist. #}
{% macro state_of(model_name, relation) -%}
    {%- set query -%}
        select tick_id, cast(as_of as text) as as_of, definition
        from features.states
        where model = '{{ model_name }}' and to_regclass('{{ relation }}') is not null
    {%- endset -%}
    {%- set found = run_query(query).rows -%}
    {%- if not found -%} {{ return(none) }} {%- endif -%}
    {{ return({
        'tick_id': found[0].tick_id, 'as_of': "'" ~ found[0].as_of ~ "'::timestamptz", 'definition': found[0].definition
    }) }}
{%- endmacro %}

{# Fail if the tick of this run has lost its lock, because another tick may write by now. #}
{% macro fence_tick() -%}
    {%- if var('tick_id', none) is not none -%}
        {%- do run_query("select upnext.fence_tick(" ~ var('tick_id') ~ ")") -%}
    {%- endif -%}
{%- endmacro %}

{# Loads whose events a tick has not read: a load may commit at any time, and the next tick reads it. #}
{% macro loads_after(tick_id) -%}
    (select loads.load_id from raw.loads where loads.tick_id is null or loads.tick_id > {{ tick_id }})
{%- endmacro %}

{#
    Conditions for the events that are new since the last tick: those loaded since then and before as_of, and those
    loaded before that as_of has reached. The ids of loads are written out, so that they are looked up by an index.
#}
{% macro new_events(progress) -%}
    {%- set query -%}
        select load_id from raw.loads where tick_id > {{ progress.last.tick_id }} and tick_id <= {{ progress.tick_id }}
    {%- endset -%}
    {%- set loads = run_query(query).columns[0].values() -%}
    {%- set reached -%}
        events.occurred_at > {{ progress.last.as_of }}
        and events.occurred_at <= {{ progress.as_of }}
        and events.load_id not in {{ loads_after(progress.last.tick_id) }}
    {%- endset -%}
    {%- set loaded -%}
        events.load_id in ({{ loads | join(', ') }}) and events.occurred_at <= {{ progress.as_of }}
    {%- endset -%}
    {{ return([reached, loaded] if loads else [reached]) }}
{%- endmacro %}

{# Whether any row of these models may have changed since a tick, beyond the logged keys. #}
{% macro are_all_touched(models, last_tick_id) -%}
    {%- set query -%}
        select 1 from features.states where model in ({{ quoted(models) }}) and all_touched_by > {{ last_tick_id }}
    {%- endset -%}
    {{ return(run_query(query).rows | length > 0) }}
{%- endmacro %}

{# The keys of the rows of these models that have changed since a tick. #}
{% macro changed_keys(models, last_tick_id, tick_id) -%}
    select key from features.changed_keys
    where model in ({{ quoted(models) }}) and tick_id > {{ last_tick_id }} and tick_id <= {{ tick_id }}
{%- endmacro %}

{% macro save_state(model_name, progress, definition, all_touched_by=none) -%}
    insert into features.states as live (model, tick_id, as_of, definition, all_touched_by)
    select
        '{{ model_name }}', {{ progress.tick_id }}, coalesce({{ progress.as_of }}, '-infinity'), '{{ definition }}',
        {{ all_touched_by or 'null' }}
    on conflict (model) do update
    set
        tick_id = excluded.tick_id,
        as_of = excluded.as_of,
        definition = excluded.definition,
        all_touched_by = coalesce(excluded.all_touched_by, live.all_touched_by)
{%- endmacro %}
