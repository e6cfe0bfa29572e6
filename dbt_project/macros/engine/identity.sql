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

    {%- do begin_model() -%}

    {%- set progress = progress_of(model.name, target, definition) -%}
    {% if progress.mode == 'rebuild' %}
        {%- set taken_in -%}
            events.occurred_at <= {{ progress.as_of }} and events.load_id not in {{ loads_after(progress.tick_id) }}
        {%- endset -%}
        {%- do run_query(claims_of([taken_in], into='claims')) -%}
        {%- do rebuild_table(target, model.name, key, sql, progress, definition) -%}
        {%- do run_query(misplaced_events(target, 'true', into='moves')) -%}
        {%- do run_query(move_events('moves')) -%}
    {% elif progress.mode == 'advance' %}
        {%- do run_query(claims_of(new_events(progress), into='new_claims')) -%}
        {% if run_query("select 1 from new_claims limit 1").rows %}
            {%- do run_query(connected_claims(target)) -%}
            {%- do run_query(fresh_rows(sql)) -%}
            {%- do run_query(moved_ids(target, into='moves')) -%}
            {%- do run_query(moved_users(model.name, progress.tick_id)) -%}
            {%- set scope = "(live.kind, live.id) in (select kind, id from connected_ids)" -%}
            {%- set columns = types_of('pg_temp.fresh').keys() | list -%}
            {%- do reconcile(target, model.name, key, columns, scope, progress.tick_id, is_logged=false) -%}
            {%- do run_query(move_events('moves')) -%}
        {% endif %}
        {%- do run_query(misplaced_events(target, loaded_since(progress), into='strays')) -%}
        {%- do run_query(move_events('strays')) -%}
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
        where user_id is null and upnext.said_by(user_id, anonymous_id) <> '' and {{ condition }}
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

{# The person that an id stands for, by the links of a relation (`of` has its kind and id); '' is nobody. #}
{% macro person_of(links, of) -%}
    (
        select case
            when count(*) = 0 then upnext.person({{ of }}.kind, {{ of }}.id)
            else coalesce(max(links.user_id), case when {{ of }}.kind = 'user' then {{ of }}.id else '' end)
        end
        from {{ links }} as links
        where links.kind = {{ of }}.kind and links.id = {{ of }}.id
    )
{%- endmacro %}

{# The connected ids that `fresh` gives to another person than the target does. #}
{% macro moved_ids(target, into) -%}
    create temporary table {{ into }} on commit drop as
    select *
    from (
        select
            ids.kind,
            ids.id,
            upnext.person(ids.kind, ids.id) as said,
            {{ person_of(target, 'ids') }} as person_id,
            {{ person_of('fresh', 'ids') }} as belongs_to
        from connected_ids as ids
    ) as moved
    where person_id <> belongs_to
{%- endmacro %}

{# Log the users whose events change, before and after; also each moved id that is a user. #}
{% macro moved_users(model_name, tick_id) -%}
    insert into features.changed_keys (model, tick_id, key)
    select '{{ model_name }}', {{ tick_id }}, users.user_id
    from (
        select person_id as user_id from moves
        union
        select belongs_to from moves
        union
        select id from moves where kind = 'user'
    ) as users
    where users.user_id <> '' {{- '' if has_visitors() else ' and not upnext.is_visitor(users.user_id)' }}
{%- endmacro %}

{# The ids in these events that are with another person than they belong to. #}
{% macro misplaced_events(target, condition, into) -%}
    drop table if exists pg_temp.said;

    create temporary table said on commit drop as
    select distinct
        case when events.user_id is null then 'visitor' else 'user' end as kind,
        coalesce(events.user_id, events.anonymous_id) as id,
        upnext.said_by(events.user_id, events.anonymous_id) as said,
        events.person_id
    from raw.events as events
    where upnext.said_by(events.user_id, events.anonymous_id) <> '' and {{ condition }};

    create temporary table {{ into }} on commit drop as
    select *
    from (
        select said.said, said.person_id, {{ person_of(target, 'said') }} as belongs_to from said
    ) as placed
    where person_id <> belongs_to
{%- endmacro %}

{# An event is deleted and stored again, because the person decides where a spread table keeps it. #}
{% macro move_events(moves) -%}
    {%- set columns = types_of('raw.events').keys() | reject('equalto', 'person_id') | join(', ') -%}
    with moves as materialized (
        select person_id, said, belongs_to from pg_temp.{{ moves }}
    ),

    moving as (
        delete from raw.events as events using moves
        where
            events.person_id = moves.person_id
            and upnext.said_by(events.user_id, events.anonymous_id) = moves.said
        returning events.*, moves.belongs_to
    )

    insert into raw.events ({{ columns }}, person_id)
    select {{ columns }}, belongs_to from moving
{%- endmacro %}

{# A condition for the events of the loads that a tick takes in, whenever they occurred. #}
{% macro loaded_since(progress) -%}
    events.load_id = any(array(
        select loads.load_id from raw.loads
        where loads.tick_id > {{ progress.last.tick_id }} and loads.tick_id <= {{ progress.tick_id }}
    ))
{%- endmacro %}
