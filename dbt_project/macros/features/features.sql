{#
    The materialization of features. The model's SQL gives the events, one row each with the columns of user_events and
    whoever they are counted for (`key`; user_id is always part of it); the model's columns say what is made of them.

    A tick adds the events that came in (newly loaded, or loaded before and reached by as_of) and takes off those that
    left a window. A feature that has no difference is computed afresh for those whom such events are about, from their
    events of that kind; everything is, for those whom the models of `recompute_with` have touched (who is who, say).
#}
{% materialization features, adapter='postgres' %}
    {%- set target = this.incorporate(type='table') -%}
    {%- set key = config.require('key') -%}
    {%- set upstream = config.get('recompute_with', []) -%}
    {%- set features = features_of(model.name) -%}
    {%- set definition = local_md5(sql ~ tojson(features) ~ tojson(catalogue().get('derived', {})) ~ tojson(key)) -%}

    {%- do run_pre_hooks() -%}

    {%- set progress = progress_of(model.name, target, definition) -%}
    {% if progress.mode == 'rebuild' or (progress.mode == 'advance' and upstream and are_all_touched(upstream, progress.last.tick_id)) %}
        {%- do rebuild_table(target, model.name, key, all_features(sql, key, features, progress), progress, definition) -%}
    {% elif progress.mode == 'advance' %}
        {%- do advance_features(target, model.name, key, features, sql, progress, upstream) -%}
        {%- do run_query(save_state(model.name, progress, definition)) -%}
    {% endif %}
    {{ return(committed(target)) }}
{% endmaterialization %}

{# What a model's columns are made of, by their names; those of which `totals` are made among them. #}
{% macro features_of(model_name) -%}
    {%- set features = {} -%}
    {%- for column in described_columns(model_name) -%}
        {%- do features.update({column.name: column.config.meta}) -%}
    {%- endfor -%}
    {%- if config.get('totals') -%} {%- do features.update(features_of_each_user(config.get('totals'))) -%} {%- endif -%}
    {{ return(features) }}
{%- endmacro %}

{#
    Features of everybody with an event by as_of, from all events that ticks have taken in; or of those of a condition,
    which stands inside the grouping: so a user's own events are found by an index.
#}
{% macro all_features(sql, key, features, progress, condition='true') -%}
    select {{ key | join(', ') }}
        {%- for name, meta in features.items() %},
        {{ feature_expression(name, meta, progress.as_of) }} as {{ name }}
        {%- endfor %}
    from ({{ sql }}) as events
    where events.occurred_at <= {{ progress.as_of }} and events.load_id not in {{ loads_after(progress.tick_id) }}
        and {{ condition }}
    group by {{ key | join(', ') }}
{%- endmacro %}

{% macro advance_features(target, model_name, key, features, sql, progress, upstream) -%}
    {%- set differential = {} -%}
    {%- set others = {} -%}
    {%- set after = {} -%}
    {%- for name, meta in features.items() -%}
        {%- do (differential if is_differential(meta) else others).update({name: meta}) -%}
        {%- do after.update({name: feature_after(name, meta)}) -%}
    {%- endfor -%}
    {%- set names = features.keys() | list -%}

    {%- set keys = key | join(', ') -%}
    {%- set make_changed -%}
        create temporary table changed on commit drop as
        {{ changed_events(sql, key, features, progress) }}
    {%- endset -%}
    {%- do run_query(make_changed) -%}

    {%- set make_recomputed -%}
        create temporary table recomputed on commit drop as
        select distinct key
        from ({{ touched_since(upstream or ['none'], progress.last.tick_id, progress.tick_id) }}) as touched
    {%- endset -%}
    {%- do run_query(make_recomputed) -%}

    {%- set add_differences -%}
        insert into {{ target }} as live ({{ (key + names) | join(', ') }})
        {{ differences(key, features, progress) }}
        on conflict ({{ keys }}) do {{ update_where_distinct(differential.keys() | list, after) }}
        returning live.{{ key[0] }}
    {%- endset -%}
    {%- do run_query(logging_keys(model_name, key, progress.tick_id, add_differences)) -%}

    {%- if others -%}
        {%- set make_affected -%}
            create temporary table affected on commit drop as
            select distinct user_id from changed as events
            where ({{ events_of_any(others) }}) and user_id not in (select key from recomputed)
        {%- endset -%}
        {%- do run_query(make_affected) -%}
        {%- do run_query("analyze affected") -%}

        {%- set theirs = "events.user_id = affected.user_id and (" ~ events_of_any(others) ~ ")" -%}
        {%- set recompute_affected -%}
            update {{ target }} as live set {{ assigned(others.keys()) }}
            from affected
            cross join lateral (
                {{ all_features(sql, key, others, progress, theirs) }}
            ) as excluded
            where
                ({{ prefixed('live', key) }}) = ({{ prefixed('excluded', key) }})
                and ({{ prefixed('live', others.keys()) }}) is distinct from ({{ prefixed('excluded', others.keys()) }})
            returning live.{{ key[0] }}
        {%- endset -%}
        {%- do run_query(logging_keys(model_name, key, progress.tick_id, recompute_affected)) -%}
    {%- endif -%}

    {%- if run_query("select 1 from recomputed limit 1").rows -%}
        {%- set make_fresh -%}
            create temporary table fresh on commit drop as
            select features.*
            from recomputed
            cross join lateral (
                {{ all_features(sql, key, features, progress, "events.user_id = recomputed.key") }}
            ) as features
        {%- endset -%}
        {%- do run_query(make_fresh) -%}
        {%- set scope = 'live.user_id in (select key from recomputed)' -%}
        {%- do reconcile(target, model_name, key, key + names, scope, progress.tick_id) -%}
    {%- endif -%}
{%- endmacro %}

{# Run a statement that returns keys, and log them as touched. #}
{% macro logging_keys(model_name, key, tick_id, statement) -%}
    with written as (
        {{ statement }}
    )

    insert into features.changed_keys (model, tick_id, key)
    select distinct '{{ model_name }}', {{ tick_id }}, {{ key[0] }} from written
{%- endmacro %}

{# What a tick's difference is made of: `is_new` for the events that came, the others left a window. #}
{% macro changed_events(sql, key, features, progress) -%}
    {%- set names = ['type', 'event', 'occurred_at', 'is_derived'] -%}
    {%- set columns = prefixed('events', key + names + (['properties'] if are_properties_read(features) else [])) -%}
    {%- for condition in new_events(progress) %}
    select {{ columns }}, true as is_new from ({{ sql }}) as events where {{ condition }}
    {{ 'union all' if not loop.last }}
    {%- endfor %}
    {%- set leaving = left_windows(features, progress) %}
    {%- if leaving %}
    union all
    select {{ columns }}, false as is_new from ({{ sql }}) as events
    where ({{ leaving | join(' or ') }}) and events.load_id not in {{ loads_after(progress.last.tick_id) }}
    {%- endif %}
{%- endmacro %}

{% macro are_properties_read(features) -%}
    {%- for meta in features.values() if meta.where or meta.sum_of -%} {{ return(true) }} {%- endfor -%}
    {{ return(false) }}
{%- endmacro %}

{# Conditions for events that were in a window at the last tick and no longer are. #}
{% macro left_windows(features, progress) -%}
    {%- set names_by_window = {} -%}
    {%- for meta in features.values() if meta.within -%}
        {%- set is_any = meta.type or 'latest_trait' in meta or 'most_in_session' in meta or 'any' in events_of(meta) -%}
        {%- do names_by_window.setdefault(meta.within, []).extend(['any'] if is_any else events_of(meta)) -%}
    {%- endfor -%}
    {%- set conditions = [] -%}
    {%- for within, names in names_by_window.items() -%}
        {%- set condition -%}
            (
                events.occurred_at > {{ progress.last.as_of }} - {{ interval_of(within) }}
                and events.occurred_at <= least({{ progress.last.as_of }}, {{ progress.as_of }} - {{ interval_of(within) }})
                {%- if 'any' not in names %}
                and events.event in ({{ quoted(names | unique | list) }})
                {%- endif %}
            )
        {%- endset -%}
        {%- do conditions.append(condition) -%}
    {%- endfor -%}
    {{ return(conditions) }}
{%- endmacro %}

{# A condition for the events that one of these features is about. #}
{% macro events_of_any(features) -%}
    {%- set conditions = [] -%}
    {%- for meta in features.values() -%}
        {%- do conditions.append("not events.is_derived" if 'most_in_session' in meta else event_condition(meta)) -%}
    {%- endfor -%}
    {{ return("(" ~ conditions | unique | join(') or (') ~ ")") }}
{%- endmacro %}

{# Per key, the change that this tick makes. New keys start from it; features without a difference start empty. #}
{% macro differences(key, features, progress) -%}
    select {{ key | join(', ') }}
        {%- for name, meta in features.items() %},
        {{ feature_difference(name, meta, progress) if is_differential(meta) else feature_of_nothing(meta) }} as {{ name }}
        {%- endfor %}
    from changed as events
    where events.user_id not in (select key from recomputed)
    group by {{ key | join(', ') }}
{%- endmacro %}
