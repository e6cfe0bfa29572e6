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
    {#- The text that computes the features, whatever the tick: a change of a column or of a kind changes it. -#}
    {%- set computed = all_features(key, features, {'as_of': 'as_of', 'tick_id': 'tick_id'}) -%}
    {%- set generated = generated_columns(model.name) -%}
    {%- set definition = local_md5(with_events ~ computed ~ tojson(catalogue().get('derived', {})) ~ tojson(generated)) -%}

    {%- do run_pre_hooks() -%}

    {%- set progress = progress_of(model.name, target, definition, upstream) -%}
    {% if progress.mode == 'rebuild' %}
        {%- set all = with_events ~ all_features(key, features, progress) -%}
        {%- do rebuild_table(target, model.name, key, all, progress, definition) -%}
    {% elif progress.mode == 'advance' %}
        {%- do advance_features(target, model.name, key, features, with_events, progress, upstream) -%}
        {%- do run_query(save_state(model.name, progress, definition)) -%}
    {% endif %}
    {{ return(committed(target)) }}
{% endmaterialization %}

{# The SELECT of all features at the tick, or by hand at the newest published one; it follows the CTE `events`. #}
{% macro features_of_events() -%}
    {{ marker_of_features() }}
    {{ all_features(
        config.get('key'), features_of(model.name), {'as_of': as_of(), 'tick_id': var('tick_id', newest_tick())}
    ) }}
{%- endmacro %}

{% macro marker_of_features() -%} /* features, by the descriptions of the columns */ {%- endmacro %}

{# The definitions of a model's features by name, including those that `totals` are computed from. #}
{% macro features_of(model_name) -%}
    {%- set features = {} -%}
    {%- for column in described_columns(model_name) -%}
        {%- if not of_kind(column.config.meta, 'generated') -%}
            {%- do features.update({column.name: column.config.meta}) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- if config.get('totals') -%}
        {%- do features.update(features_of_each_user(config.get('totals'))) -%}
    {%- endif -%}
    {{ return(features) }}
{%- endmacro %}

{# The columns that are computed from events: the features, and when one of them changes next without an event. #}
{% macro columns_of(features) -%}
    {%- set columns = features.keys() | list -%}
    {%- for meta in features.values() if is_moving(meta) -%} {{ return(columns + ['recompute_at']) }} {%- endfor -%}
    {{ return(columns) }}
{%- endmacro %}

{#
    Features of all users with an event up to as_of, from all events that ticks have read. The condition applies before
    the grouping, so that the events of one user are found by an index.
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

{% macro advance_features(target, model_name, key, features, with_events, progress, upstream) -%}
    {%- set differential = {} -%}
    {%- set others = {} -%}
    {%- for name, meta in features.items() -%}
        {%- do (differential if is_differential(meta) else others).update({name: meta}) -%}
    {%- endfor -%}

    {%- do run_query(changed_events(with_events, key, features, progress)) -%}
    {%- do run_query(users_to_recompute(upstream, progress)) -%}
    {%- do run_query(logging_keys(
        model_name, key, progress.tick_id, add_differences(target, key, features, differential, progress)
    )) -%}
    {%- if others -%}
        {%- do run_query(affected_users(target, others, progress)) -%}
        {%- do run_query(logging_keys(
            model_name, key, progress.tick_id, recompute_affected(target, key, others, with_events, progress)
        )) -%}
    {%- endif -%}
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
        {%- for name, meta in differential.items() %}
        {{ name }} = {{ of_kind(meta, 'after')(name) }}{{ ',' if not loop.last }}
        {%- endfor %}
    where
        ({{ prefixed('live', differential) }}) is distinct from (
            {%- for name, meta in differential.items() %}
            {{ of_kind(meta, 'after')(name) }}{{ ',' if not loop.last }}
            {%- endfor %}
        )
    {%- else %} nothing
    {%- endif %}
    returning live.{{ key[0] }}
{%- endmacro %}

{# Users with an event in this tick that may change a feature without a difference, or with a change by time alone. #}
{% macro affected_users(target, others, progress) -%}
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
    {%- set of_one_user -%} events.user_id = affected.user_id and ({{ events_of_any(others) }}) {%- endset -%}
    {%- set columns = columns_of(others) -%}
    update {{ target }} as live set {{ assigned(columns) }}
    from affected
    cross join lateral (
        {{ with_events }} {{ all_features(key, others, progress, of_one_user) }}
    ) as excluded
    where
        ({{ prefixed('live', key) }}) = ({{ prefixed('excluded', key) }})
        and ({{ prefixed('live', columns) }}) is distinct from ({{ prefixed('excluded', columns) }})
    returning live.{{ key[0] }}
{%- endmacro %}

{% macro fresh_features(with_events, key, features, progress) -%}
    create temporary table fresh on commit drop as
    select features.*
    from recomputed
    cross join lateral (
        {{ with_events }} {{ all_features(key, features, progress, "events.user_id = recomputed.key") }}
    ) as features
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
    {%- set read = [] -%}
    {%- for meta in features.values() -%}
        {%- do read.append(feature_difference(meta, {'as_of': '', 'last': {'as_of': ''}}) ~ may_change(meta)) -%}
    {%- endfor -%}
    {%- set columns = [] -%}
    {%- for column in ['properties', 'context'] if 'events.' ~ column in read | join -%}
        {%- do columns.append(column) -%}
    {%- endfor -%}
    {{ return(columns) }}
{%- endmacro %}

{# Conditions for events that were in a window at the last tick and no longer are. #}
{% macro left_windows(features, progress) -%}
    {%- set names_by_window = {} -%}
    {%- for meta in features.values() if meta.within -%}
        {%- set by = changed_by(meta) -%}
        {%- do names_by_window.setdefault(meta.within, []).extend(['any'] if by.type else events_of(by)) -%}
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
    {%- set conditions = [] -%}
    {%- for meta in features.values() -%} {%- do conditions.append(may_change(meta)) -%} {%- endfor -%}
    ({{ conditions | unique | join(') or (') }})
{%- endmacro %}
