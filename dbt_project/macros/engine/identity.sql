{#
    The materialization of identity_links. The model's SQL resolves the links of the temporary table `claims`: those of
    all identify and alias calls, or in a tick those within the connected components of the ids with a new call. It logs
    the users who gain or lose the activity of an id. Where a segment includes anonymous visitors, each event of a
    visitor claims that the visitor is a person of its own, which any other claim overrules.
#}
{% materialization identity, adapter='postgres' %}
    {%- set target = this.incorporate(type='table') -%}
    {%- set key = ['kind', 'id', 'linked_to'] -%}
    {%- set definition = local_md5(sql) -%}

    {%- do run_pre_hooks() -%}

    {%- set progress = progress_of(model.name, target, definition) -%}
    {% if progress.mode == 'rebuild' %}
        {%- set taken_in -%}
            events.occurred_at <= {{ progress.as_of }} and events.load_id not in {{ loads_after(progress.tick_id) }}
        {%- endset -%}
        {%- do run_query(claims_of([taken_in], into='claims')) -%}
        {%- do rebuild_table(target, model.name, key, sql, progress, definition) -%}
    {% elif progress.mode == 'advance' %}
        {%- do run_query(claims_of(new_events(progress), into='new_claims')) -%}
        {% if run_query("select 1 from new_claims limit 1").rows %}
            {%- do run_query(connected_claims(target)) -%}
            {%- do run_query(fresh_rows(sql)) -%}
            {%- do run_query(moved_users(target, model.name, progress.tick_id)) -%}
            {%- set scope = "(live.kind, live.id) in (select kind, id from connected_ids)" -%}
            {%- set columns = types_of('pg_temp.fresh').keys() | list -%}
            {%- do reconcile(target, model.name, key, columns, scope, progress.tick_id, is_logged=false) -%}
        {% endif %}
        {%- do run_query(save_state(model.name, progress, definition)) -%}
    {% endif %}
    {{ return(committed(target)) }}
{% endmaterialization %}

{# The claims of identify and alias calls, each claim once: an id of a visitor or a user belongs to a user. #}
{% macro claims_of(conditions, into) -%}
    create temporary table {{ into }} on commit drop as
    with calls as (
        {%- for condition in conditions %}
        select type, user_id, anonymous_id, previous_id, context, occurred_at, source, message_id
        from raw.events as events
        where
            type in ('identify', 'alias')
            and user_id is not null
            and previous_id is distinct from user_id
            and {{ condition }}
        {{ 'union all' if not loop.last }}
        {%- endfor %}
    ),

    claims as (
        select 'visitor' as kind, anonymous_id as id, user_id as linked_to, occurred_at, source, message_id
        from calls
        where anonymous_id is not null
        union all
        select 'visitor' as kind, previous_id as id, user_id as linked_to, occurred_at, source, message_id
        from calls
        where type = 'alias' and previous_id is not null
        union all
        select 'user' as kind, previous_id as id, user_id as linked_to, occurred_at, source, message_id
        from calls
        -- Whoever reads a page has its key, and could say that two users are one.
        where
            type = 'alias'
            and previous_id is not null
            and context #>> '{upnext,unproven}' is distinct from 'true'
        {%- if has_visitors() %}
        {%- for condition in conditions %}
        union all
        select
            'visitor' as kind, anonymous_id as id, upnext.person('visitor', anonymous_id) as linked_to, occurred_at,
            source, message_id
        from raw.events as events
        where user_id is null and anonymous_id not like 'mail provider %' and {{ condition }}
        {%- endfor %}
        {%- endif %}
    )

    select distinct on (kind, id, linked_to) *
    from claims
    order by kind, id, linked_to, occurred_at, source collate "C", message_id collate "C"
{%- endmacro %}

{# Make `connected_ids`, the connected components of the new claims, and `claims`, all claims of these ids. #}
{% macro connected_claims(target) -%}
    create temporary table connected_ids on commit drop as
    with recursive connected (kind, id) as (
        (select kind, id from new_claims union select 'user', linked_to from new_claims)
        union
        select links.kind, links.id
        from connected
        cross join lateral (
            select 'user' as kind, links.linked_to as id from {{ target }} as links
            where links.kind = connected.kind and links.id = connected.id
            union all
            select links.kind, links.id from {{ target }} as links
            where connected.kind = 'user' and links.linked_to = connected.id
        ) as links
    )

    select kind, id from connected;

    create temporary table claims on commit drop as
    select distinct on (kind, id, linked_to) *
    from (
        select kind, id, linked_to, occurred_at, source, message_id from new_claims
        union all
        select links.kind, links.id, links.linked_to, links.linked_at, links.source, links.message_id
        from {{ target }} as links
        inner join connected_ids on links.kind = connected_ids.kind and links.id = connected_ids.id
    ) as claimed
    order by kind, id, linked_to, occurred_at, source collate "C", message_id collate "C"
{%- endmacro %}

{# Log the users that a moved id resolves to, before and after; also each moved id that is a user. #}
{% macro moved_users(target, model_name, tick_id) -%}
    with before as (
        select links.kind, links.id, links.user_id
        from {{ target }} as links
        inner join connected_ids on links.kind = connected_ids.kind and links.id = connected_ids.id
        where links.user_id is not null
    ),

    after as (
        select kind, id, user_id from fresh where user_id is not null
    ),

    moved as (
        select
            coalesce(before.kind, after.kind) as kind,
            coalesce(before.id, after.id) as id,
            before.user_id as user_id_before,
            after.user_id as user_id_after
        from before
        full join after on before.kind = after.kind and before.id = after.id
        where before.user_id is distinct from after.user_id
    )

    insert into features.changed_keys (model, tick_id, key)
    select '{{ model_name }}', {{ tick_id }}, users.user_id
    from (
        select user_id_before as user_id from moved
        union
        select user_id_after from moved
        union
        select id from moved where kind = 'user'
    ) as users
    where users.user_id is not null
{%- endmacro %}
