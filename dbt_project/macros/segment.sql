{#
    A segment is one SELECT of `user_id`. The log `segments.membership_changes` is its only state: this diffs the
    SELECT against the members by the log, appends who entered and who exited, and leaves a view of current members.
    Without a tick's id (a model built by hand) the log is left alone.
#}
{% materialization segment, adapter='postgres' %}
    {%- if flags.EMPTY -%}
        {{ exceptions.raise_compiler_error("segment '" ~ model.name ~ "': --empty would make every member exit; leave it out") }}
    {%- endif -%}
    {%- set view = this.incorporate(type='view') -%}
    {%- set tick_id = var('tick_id', none) -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {%- if tick_id is none -%}
        {{ log("segment " ~ model.name ~ ": built by hand, so the membership log is left as it is", info=True) }}
    {%- endif -%}
    {% call statement('main') -%}
        {% if tick_id is not none %}
        {{ append_membership_changes(model.name, sql, tick_id) }};
        {% endif %}
        create or replace view {{ view }} as
        select user_id, entered_at from segments.current_members where segment = '{{ model.name }}'
    {%- endcall %}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {{ adapter.commit() }}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [view]}) }}
{% endmaterialization %}

{# The diff is against the whole log, an unpublished tick included: a tick that is run again appends nothing twice. #}
{% macro append_membership_changes(segment, sql, tick_id) %}
    insert into segments.membership_changes (tick_id, segment, user_id, change, as_of)
    with selected as (
        select distinct user_id
        from (
            {{ sql }}
        ) as segment
        where user_id is not null
    ),

    members as (
        select user_id
        from (
            select distinct on (user_id) user_id, change
            from segments.membership_changes
            where segment = '{{ segment }}'
            order by user_id, change_id desc
        ) as latest
        where change = 'entered'
    )

    select
        {{ tick_id | int }},
        '{{ segment }}',
        coalesce(selected.user_id, members.user_id) as user_id,
        case when members.user_id is null then 'entered' else 'exited' end,
        {{ as_of() }}
    from selected
    full join members on members.user_id = selected.user_id
    where selected.user_id is null or members.user_id is null
    order by user_id
{% endmacro %}
