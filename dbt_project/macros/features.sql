{#
    A feature is a documented column: the `config.meta` of its description is its definition.

        count_of: <event>, within: N days     number of such events, over all time where `within` is left out
        ever: <event>                         whether there is at least one
        last_at: <event>                      when the latest was, null where there is none
        latest_of: [<event>, ...], is: <one>  whether the latest of these is that one
        distinct_users: true                  number of different users (of accounts)
        members_where: <user feature>         number of members for whom it is true; `any` for all (of accounts)

    `count_of: any` counts every event, derived ones left out. Ties of "latest" break by (occurred_at, source, message_id).
#}
{% macro feature_columns(model_name) -%}
    {%- set features = [] -%}
    {%- for column in described_columns(model_name) -%}
        {%- do features.append(feature_expression(column.name, column.config.meta) ~ ' as ' ~ column.name) -%}
    {%- endfor -%}
    {{ features | join(',\n    ') }}
{%- endmacro %}

{# Counts of an account's members, for `members_where`. #}
{% macro member_columns(model_name) -%}
    {%- set counts = [] -%}
    {%- for column in described_columns(model_name) if column.config.meta.members_where -%}
        {%- set feature = column.config.meta.members_where -%}
        {%- do counts.append(
            'count(*) filter (where ' ~ ('true' if feature == 'any' else 'user_features.' ~ feature) ~ ') as ' ~ column.name
        ) -%}
    {%- endfor -%}
    {{ counts | join(',\n        ') }}
{%- endmacro %}

{# The columns of a model whose description says what they are made of. #}
{% macro described_columns(model_name) -%}
    {%- if execute -%}
        {%- set node = graph.nodes.values() | selectattr('resource_type', 'equalto', 'model')
            | selectattr('name', 'equalto', model_name) | first -%}
        {{ return(node.columns.values() | selectattr('config.meta') | list) }}
    {%- endif -%}
    {{ return([]) }}
{%- endmacro %}

{% macro feature_expression(name, meta) -%}
    {%- set kinds = {
        'count_of': ['within'], 'ever': ['within'], 'distinct_users': ['within'],
        'members_where': [], 'last_at': [], 'latest_of': ['is']
    } -%}
    {%- set kind = kinds | select('in', meta) | list | first | default(none) -%}
    {%- for key in meta if kind is not none and key != kind and key not in kinds[kind] -%}
        {{ exceptions.raise_compiler_error(
            "feature '" ~ name ~ "': '" ~ key ~ "' does not go with " ~ kind ~ "; known: "
            ~ (kinds[kind] | join(', ') or 'nothing')) }}
    {%- endfor -%}
    {%- if 'count_of' in meta -%}
        count(*) filter (where {{ event_condition(meta.count_of) }}{{ window_condition(name, meta) }})
    {%- elif 'distinct_users' in meta -%}
        count(distinct events.user_id) filter (where true{{ window_condition(name, meta) }})
    {%- elif 'members_where' in meta -%}
        coalesce(min(members.{{ name }}), 0)
    {%- elif 'ever' in meta -%}
        count(*) filter (where {{ event_condition(meta.ever) }}{{ window_condition(name, meta) }}) > 0
    {%- elif 'last_at' in meta -%}
        max(events.occurred_at) filter (where {{ event_condition(meta.last_at) }})
    {%- elif 'latest_of' in meta -%}
        coalesce((array_agg(events.event order by
            events.occurred_at desc, events.source collate "C" desc, events.message_id collate "C" desc
        ) filter (where events.event in ({{ quoted(meta.latest_of) }})))[1]
            = {{ quoted([meta.is]) }}, false)
    {%- else -%}
        {{ exceptions.raise_compiler_error(
            "feature '" ~ name ~ "' has no kind that is known: " ~ (kinds | join(', ')) ~ "") }}
    {%- endif -%}
{%- endmacro %}

{% macro event_condition(event) -%}
    {{ 'not events.is_derived' if event == 'any' else 'events.event = ' ~ quoted([event]) }}
{%- endmacro %}

{# A window of N days is (as_of - N days, as_of], exact to the microsecond. #}
{% macro window_condition(name, meta) -%}
    {%- if 'within' in meta -%}
        {%- if not modules.re.match('^[1-9][0-9]* days?$', meta.within | string) -%}
            {{ exceptions.raise_compiler_error("feature '" ~ name ~ "': within must be such as '30 days', not '" ~ meta.within ~ "'") }}
        {%- endif %} and events.occurred_at > {{ as_of() }} - interval '{{ meta.within.split()[0] | int * 24 }} hours'
    {%- endif -%}
{%- endmacro %}

{% macro quoted(values) -%}
    {%- for value in values -%}
        '{{ value | replace("'", "''") }}'{{ ', ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}
