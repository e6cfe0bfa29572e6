{#
    The materialization of features. The model begins with the CTE `events`: one row per event, with the columns of
    user_events and the keys that it counts for (`key`; user_id is always one of them). `features_of_events` adds the
    SELECT of all features, by the descriptions of the model's columns.

    A tick adds the new events (newly loaded, or loaded before and now reached by as_of) and subtracts those that left a
    window. A feature that has no difference is recomputed for the users with such events, from their events of that
    kind. All features of a user are recomputed where a model of `recompute_with`, such as the identities, has changed
    for that user.
#}
{% materialization features, adapter='postgres' %}
    {%- set target = this.incorporate(type='table') -%}
    {%- set key = config.require('key') -%}
    {%- set upstream = config.get('recompute_with', []) -%}
    {%- set features = features_of(model.name) -%}
    {%- set with_events = sql.split(marker_of_features())[0] -%}
    {%- set computed = sql.split(marker_of_features())[1] -%}
    {%- set of_events = local_md5(with_events ~ tojson(catalogue().get('derived', {}))) -%}
    {%- set definition = local_md5(of_events ~ at_any_tick(computed) ~ tojson(generated_columns(model.name))) -%}

    {%- do begin_model() -%}

    {%- set progress = progress_of(model.name, target, definition, upstream) -%}
    {% if progress.mode == 'rebuild' %}
        {%- set unchanged = unchanged_features(model.name, features, of_events, progress, upstream) -%}
        {%- if unchanged -%}
            {%- do advance_features(target, model.name, key, unchanged, with_events, progress, upstream) -%}
            {%- do replace_features(target, model.name, key, features, unchanged, with_events, progress, definition) -%}
        {%- else -%}
            {%- set all = with_events ~ all_features(key, features, progress) -%}
            {%- do rebuild_table(target, model.name, key, all, progress, definition) -%}
        {%- endif -%}
        {%- do run_query(save_columns(model.name, features, of_events)) -%}
    {% elif progress.mode == 'advance' %}
        {%- do advance_features(target, model.name, key, features, with_events, progress, upstream) -%}
        {%- do run_query(save_state(model.name, progress, definition)) -%}
    {% endif %}
    {%- do evaluate_together(model.name, progress) -%}
    {{ return(committed(target)) }}
{% endmaterialization %}

{# The SELECT of all features at the tick, or by hand at the newest published one; it follows the CTE `events`. #}
{% macro features_of_events() -%}
    {{ marker_of_features() }}
    {{ all_features(
        config.get('key'), features_of(model.name), {'as_of': as_of(), 'tick_id': var('tick_id', newest_tick())}
    ) }}
{%- endmacro %}

{# A text that a tick has computed, as it would be for any other. A change of a column or of a kind changes it. #}
{% macro at_any_tick(computed) -%}
    {%- set loads = loads_after(var('tick_id', newest_tick())) -%}
    {{ return(computed.replace(as_of(), 'as_of').replace(loads, 'loads')) }}
{%- endmacro %}

{% macro marker_of_features() -%} /* features, by the descriptions of the columns */ {%- endmacro %}

{#
    The definitions of a model's features by name, including those that `totals` are computed from. They are kept with
    the model, because to compile it and to run it asks for the same.
#}
{% macro features_of(model_name) -%}
    {%- set model_node = graph.nodes['model.upnext.' ~ model_name] if execute else {} -%}
    {%- if model_node.prepared_features -%} {{ return(model_node.prepared_features) }} {%- endif -%}
    {%- set features = {} -%}
    {%- for column in described_columns(model_name) -%}
        {%- set meta = prepared(column.config.meta) -%}
        {%- if meta.known_kind or not of_kind(meta, 'generated') -%}
            {%- do features.update({column.name: meta}) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- if config.get('totals') -%}
        {%- for name, meta in features_of_each_user(config.get('totals')).items() -%}
            {%- do features.update({name: prepared(meta)}) -%}
        {%- endfor -%}
    {%- endif -%}
    {%- do model_node.update({'prepared_features': features}) -%}
    {{ return(features) }}
{%- endmacro %}

{# The columns that are computed from events: the features, and when one of them changes next without an event. #}
{% macro columns_of(features) -%}
    {%- set columns = features.keys() | list -%}
    {%- for meta in features.values() if meta.moves -%} {{ return(columns + ['recompute_at']) }} {%- endfor -%}
    {{ return(columns) }}
{%- endmacro %}

{#
    Features of all users with an event up to as_of, from all events that ticks have read. The condition applies before
    the grouping. Where it names users, it names them as an array: their events are found by an index then, on each node
    of a cluster, where a join would read all events or bring them to one place.
#}
{% macro all_features(key, features, progress, condition='true') -%}
    select
        {{ key | join(', ') }}
        {%- for name, meta in features.items() %},
        {{ feature_value(meta, progress.as_of) }} as {{ name }}
        {%- endfor %}
        {%- if 'recompute_at' in columns_of(features) %},
        {{ next_change(features, progress.as_of) }} as recompute_at
        {%- endif %}
    from events
    where
        events.occurred_at <= {{ progress.as_of }}
        and events.load_id not in {{ loads_after(progress.tick_id) }}
        and {{ condition }}
    group by {{ key | join(', ') }}
{%- endmacro %}

{#
    The features whose column the table has by the same definition; none if it must be recomputed as a whole, because
    its events are others, or any row may have changed.
#}
{% macro unchanged_features(model_name, features, of_events, progress, upstream) -%}
    {%- set unchanged = {} -%}
    {%- if progress.is_tick and progress.is_redefined and not should_full_refresh()
        and not (upstream and are_all_touched(upstream, progress.last.tick_id)) -%}
        {%- set stored = {} -%}
        {%- for column in run_query(stored_columns(model_name)).rows -%}
            {%- do stored.update({column.name: column.definition}) -%}
        {%- endfor -%}
        {%- if stored[''] == of_events -%}
            {%- for name, meta in features.items() if stored[name] == definition_of(meta) and not meta.moves -%}
                {%- do unchanged.update({name: meta}) -%}
            {%- endfor -%}
        {%- endif -%}
    {%- endif -%}
    {{ return(unchanged) }}
{%- endmacro %}

{% macro stored_columns(model_name) -%}
    select name, definition from features.columns where model = '{{ model_name }}'
{%- endmacro %}

{% macro definition_of(meta) -%} {{ return(local_md5(feature_value(meta, 'as_of'))) }} {%- endmacro %}

{% macro save_columns(model_name, features, of_events) -%}
    delete from features.columns where model = '{{ model_name }}';

    insert into features.columns (model, name, definition)
    values ('{{ model_name }}', '', '{{ of_events }}')
    {%- for name, meta in features.items() %}, ('{{ model_name }}', '{{ name }}', '{{ definition_of(meta) }}')
    {%- endfor %}
{%- endmacro %}

{#
    Compute the columns that are new or have changed, for all users, and drop those that are gone. The other columns are
    at the tick already, and so is the set of users.
#}
{% macro replace_features(target, model_name, key, features, unchanged, with_events, progress, definition) -%}
    {%- set replaced = {} -%}
    {%- for name, meta in features.items() if name not in unchanged -%}
        {%- do replaced.update({name: meta}) -%}
    {%- endfor -%}
    {%- do run_query("drop table if exists pg_temp.fresh") -%}
    {%- do run_query(fresh_rows(with_events ~ all_features(key, replaced, progress))) -%}
    {%- do check_contract(types_of('pg_temp.fresh')) -%}
    {%- set existing = types_of(target) -%}
    {%- set before = {'plain': existing, 'generated': stored_generated_columns(target)} -%}
    {%- set wanted = types_of('pg_temp.fresh') -%}
    {%- for name in unchanged -%} {%- do wanted.update({name: existing[name]}) -%} {%- endfor -%}
    {%- do run_query(without_stale_columns(target, model_name, wanted)) -%}
    {%- if existing != wanted -%} {%- do run_query(altered_table(target, existing, wanted)) -%} {%- endif -%}
    {%- if replaced -%} {%- do run_query(filled(target, key, columns_of(replaced))) -%} {%- endif -%}
    {%- do run_query(with_generated_columns(target, model_name)) -%}
    {#- Whoever reads a column that has changed looks at all rows; nobody reads a new one yet. -#}
    {%- set has_changed = replaced.keys() | select('in', existing) | list or generated_otherwise(target, before) -%}
    {%- do run_query(save_state(
        model_name, progress, definition, progress.tick_id if has_changed else none
    )) -%}
{%- endmacro %}

{% macro filled(target, key, columns) -%}
    update {{ target }} as live set {{ assigned(columns) }}
    from fresh as excluded
    where
        ({{ prefixed('live', key) }}) = ({{ prefixed('excluded', key) }})
        and ({{ prefixed('live', columns) }}) is distinct from ({{ prefixed('excluded', columns) }})
{%- endmacro %}

{% macro advance_features(target, model_name, key, features, with_events, progress, upstream) -%}
    {%- set differential = {} -%}
    {%- set others = {} -%}
    {%- for name, meta in features.items() -%}
        {%- do (differential if meta.adds_up else others).update({name: meta}) -%}
    {%- endfor -%}

    {%- do run_query(changed_events(with_events, key, features, progress)) -%}
    {%- do run_query(users_to_recompute(upstream, progress)) -%}
    {%- do run_query(logging_keys(
        model_name, key, progress.tick_id, add_differences(target, key, features, differential, progress)
    )) -%}
    {%- for alike in changed_alike(others) -%}
        {%- do run_query(affected_users(target, alike, progress)) -%}
        {%- if run_query("select 1 from affected limit 1").rows -%}
            {%- do run_query(logging_keys(
                model_name, key, progress.tick_id, recompute_affected(target, key, alike, with_events, progress)
            )) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- if run_query("select 1 from recomputed limit 1").rows -%}
        {%- do run_query(fresh_features(with_events, key, features, progress)) -%}
        {%- set scope = 'live.user_id in (select key from recomputed)' -%}
        {%- do reconcile(target, model_name, key, key + columns_of(features), scope, progress.tick_id) -%}
    {%- endif -%}
{%- endmacro %}

{# Users whose every feature is recomputed, because a model of `recompute_with` has changed for them. #}
{% macro users_to_recompute(upstream, progress) -%}
    create temporary table recomputed on commit drop as
    select distinct changed.key
    from ({{ changed_keys(upstream or ['none'], progress.last.tick_id, progress.tick_id) }}) as changed
{%- endmacro %}

{# New keys start from the difference; features without one start from their empty value. #}
{% macro add_differences(target, key, features, differential, progress) -%}
    {%- set after = {} -%}
    {%- for name, meta in differential.items() -%}
        {%- do after.update({name: of_kind(meta, 'after')(name) | trim}) -%}
    {%- endfor -%}
    insert into {{ target }} as live ({{ (key + features.keys() | list) | join(', ') }})
    select
        {{ key | join(', ') }}
        {%- for name, meta in features.items() %},
        {{ feature_difference(meta, progress) if name in differential else of_kind(meta, 'empty')(meta) }} as {{ name }}
        {%- endfor %}
    from changed as events
    where events.user_id not in (select recomputed.key from recomputed)
    group by {{ key | join(', ') }}
    on conflict ({{ key | join(', ') }}) do
    {%- if differential %}
    update set
        {%- for name, value in after.items() %}
        {{ name }} = {{ value }}{{ ',' if not loop.last }}
        {%- endfor %}
    where ({{ prefixed('live', after) }}) is distinct from ({{ after.values() | join(', ') }})
    {%- else %} nothing
    {%- endif %}
    returning live.{{ key[0] }}
{%- endmacro %}

{#
    These features by the names of the events that may change them, so that an event recomputes those that read it and
    no others. Features that change by time alone share a column, and are one group.
#}
{% macro changed_alike(features) -%}
    {%- set groups = {} -%}
    {%- for name, meta in features.items() -%}
        {%- do groups.setdefault('' if meta.moves else meta.changed_by_events | join(', '), {}).update({name: meta}) -%}
    {%- endfor -%}
    {{ return(groups.values() | list) }}
{%- endmacro %}

{# Users with an event in this tick that may change a feature without a difference, or with a change by time alone. #}
{% macro affected_users(target, others, progress) -%}
    drop table if exists pg_temp.affected;

    create temporary table affected on commit drop as
    select distinct user_id
    from (
        select events.user_id from changed as events where {{ events_of_any(others) }}
        {%- if 'recompute_at' in columns_of(others) %}
        union all
        select live.user_id from {{ target }} as live where live.recompute_at <= {{ progress.as_of }}
        {%- endif %}
    ) as users
    where user_id not in (select recomputed.key from recomputed);

    analyze affected
{%- endmacro %}

{% macro recompute_affected(target, key, others, with_events, progress) -%}
    {%- set of_users -%}
        events.user_id = any(array(select affected.user_id from affected)) and ({{ events_of_any(others) }})
    {%- endset -%}
    {%- set columns = columns_of(others) -%}
    update {{ target }} as live set {{ assigned(columns) }}
    from (
        {{ with_events }} {{ all_features(key, others, progress, of_users) }}
    ) as excluded
    where
        ({{ prefixed('live', key) }}) = ({{ prefixed('excluded', key) }})
        and ({{ prefixed('live', columns) }}) is distinct from ({{ prefixed('excluded', columns) }})
    returning live.{{ key[0] }}
{%- endmacro %}

{% macro fresh_features(with_events, key, features, progress) -%}
    create temporary table fresh on commit drop as
    {{ with_events }}
    {{ all_features(key, features, progress, "events.user_id = any(array(select recomputed.key from recomputed))") }}
{%- endmacro %}

{# Run a statement that returns keys, and log them as changed. #}
{% macro logging_keys(model_name, key, tick_id, statement) -%}
    with written as (
        {{ statement }}
    )

    insert into features.changed_keys (model, tick_id, key)
    select distinct '{{ model_name }}', {{ tick_id }}, {{ key[0] }} from written
{%- endmacro %}

{# The events that make up a tick's difference: `is_new` marks the new events; the others left a window. #}
{% macro changed_events(with_events, key, features, progress) -%}
    {%- set names = key + ['type', 'event', 'occurred_at', 'is_derived'] -%}
    {%- set columns = prefixed('events', names + values_read(features)) -%}
    create temporary table changed on commit drop as
    {{ with_events }}
    {%- for condition in new_events(progress) %}
    select {{ columns }}, true as is_new from events where {{ condition }}
    {{ 'union all' if not loop.last }}
    {%- endfor %}
    {%- set leaving = left_windows(features, progress) %}
    {%- if leaving %}
    union all
    select {{ columns }}, false as is_new from events
    where ({{ leaving | join(' or ') }}) and events.load_id not in {{ loads_after(progress.last.tick_id) }}
    {%- endif %}
{%- endmacro %}

{# The JSON columns that a tick's difference needs: copying them costs more than all the others. #}
{% macro values_read(features) -%}
    {%- set read = features.values() | map(attribute='reads') | join -%}
    {%- set columns = [] -%}
    {%- for column in ['properties', 'context'] if 'events.' ~ column in read -%}
        {%- do columns.append(column) -%}
    {%- endfor -%}
    {{ return(columns) }}
{%- endmacro %}

{# Conditions for events that were in a window at the last tick and no longer are. #}
{% macro left_windows(features, progress) -%}
    {%- set names_by_window = {} -%}
    {%- for meta in features.values() if meta.within -%}
        {%- do names_by_window.setdefault(meta.within, []).extend(meta.changed_by_events) -%}
    {%- endfor -%}
    {%- set conditions = [] -%}
    {%- for within, names in names_by_window.items() -%}
        {%- set before -%} {{ progress.as_of }} - {{ interval_of(within) }} {%- endset -%}
        {%- set condition -%}
            (
                events.occurred_at > {{ progress.last.as_of }} - {{ interval_of(within) }}
                and events.occurred_at <= least({{ progress.last.as_of }}, {{ before }})
                {%- if 'any' not in names %}
                and events.event in ({{ quoted(names | unique | list) }})
                {%- endif %}
            )
        {%- endset -%}
        {%- do conditions.append(condition) -%}
    {%- endfor -%}
    {{ return(conditions) }}
{%- endmacro %}

{# A condition for the events that may change one of these features. #}
{% macro events_of_any(features) -%}
    ({{ features.values() | map(attribute='changes_with') | unique | join(') or (') }})
{%- endmacro %}
