{#
    A feature is a documented column: the `config.meta` of its description is its definition.

        count_of: <event>                     number of such events
        sum_of: <property>, of: <event>       sum of a property, numeric
        days_of: <event>                      number of different days (UTC) with such an event
        ever: <event>                         whether there is at least one
        first_at, last_at: <event>            when the first, the latest was; null where there is none
        latest_of: [<event>, ...], is: <one>  whether the latest of these is that one
        latest: <property>, of: <event>       its value in the latest such event that has it; null where there is none
        latest_trait: <trait>                 the same of identify calls; both are text, or `as: number`, `as: boolean`,
                                              `as: time`, null where the value cannot be read as that
        sequence: [<event>, ...], in: 2 days  whether these came one after the other, within that time
        most_in_session: <event>              the most of them in one session, which 30 minutes without an event end

    of accounts too: count_of, sum_of, ever, first_at, last_at; and only of accounts:

        distinct_users: true                  number of different users with an event
        members_where: <user feature>         number of members for whom it is true; `any` for all

    Each goes with `within: N days` (also minutes, hours, weeks; over all time where it is left out) and `where:`, tests
    of the event's properties (see tests_of); members_where with neither. `any` as an event stands for every one,
    derived ones left out. Ties of "latest" break by (occurred_at, source, message_id).
#}

{# The columns of a model whose description says what they are made of. #}
{% macro described_columns(model_name) -%}
    {%- if execute -%}
        {%- set node = graph.nodes.values() | selectattr('resource_type', 'equalto', 'model')
            | selectattr('name', 'equalto', model_name) | first -%}
        {{ return(node.columns.values() | selectattr('config.meta') | list) }}
    {%- endif -%}
    {{ return([]) }}
{%- endmacro %}

{# What a feature is made of, from `events` grouped by whoever it is counted for. #}
{% macro feature_expression(name, meta, as_of) -%}
    {%- set of = event_condition(meta) ~ window_condition(meta.within, as_of) -%}
    {%- set latest_first = 'events.occurred_at desc, events.source collate "C" desc, events.message_id collate "C" desc' -%}
    {%- set in_order = 'events.occurred_at, events.source collate "C", events.message_id collate "C"' -%}
    {%- if 'count_of' in meta -%}
        count(*) filter (where {{ of }})
    {%- elif 'sum_of' in meta -%}
        coalesce(sum(upnext.number({{ path_of('events.properties', meta.sum_of) }})) filter (where {{ of }}), 0)
    {%- elif 'days_of' in meta -%}
        count(distinct (events.occurred_at at time zone 'UTC')::date) filter (where {{ of }})
    {%- elif 'ever' in meta -%}
        count(*) filter (where {{ of }}) > 0
    {%- elif 'first_at' in meta -%}
        min(events.occurred_at) filter (where {{ of }})
    {%- elif 'last_at' in meta -%}
        max(events.occurred_at) filter (where {{ of }})
    {%- elif 'latest_of' in meta -%}
        coalesce((array_agg(events.event order by {{ latest_first }}) filter (where {{ of }}))[1] = {{ quoted([meta.is]) }}, false)
    {%- elif 'latest' in meta or 'latest_trait' in meta -%}
        {%- set value = path_of('events.properties', meta.latest or meta.latest_trait) -%}
        {{ as_type(
            "(array_agg(" ~ value ~ " order by " ~ latest_first ~ ") filter (where " ~ of ~ " and " ~ value ~ " #>> '{}' is not null))[1]",
            meta.as
        ) }}
    {%- elif 'sequence' in meta -%}
        upnext.has_sequence(
            array_agg(events.event order by {{ in_order }}) filter (where {{ of }}),
            array_agg(events.occurred_at order by {{ in_order }}) filter (where {{ of }}),
            array[{{ quoted(meta.sequence) }}],
            {{ interval_of(meta.in) }}
        )
    {%- elif 'most_in_session' in meta -%}
        {%- set within = "not events.is_derived" ~ window_condition(meta.within, as_of) -%}
        upnext.most_in_session(
            array_agg(events.occurred_at order by {{ in_order }}) filter (where {{ of }} or {{ within }}),
            array_agg({{ of }} order by {{ in_order }}) filter (where {{ of }} or {{ within }})
        )
    {%- else -%}
        {{ exceptions.raise_compiler_error("feature '" ~ name ~ "' has no kind that is known; see macros/features/kinds.sql") }}
    {%- endif -%}
{%- endmacro %}

{# Whether a feature of a tick is that of the last one and the difference: more, less, or the extreme of both. #}
{% macro is_differential(meta) -%}
    {{ return('count_of' in meta or 'sum_of' in meta
        or (not meta.within and ('ever' in meta or 'first_at' in meta or 'last_at' in meta))) }}
{%- endmacro %}

{# What a feature that has no difference is without an event of its own. #}
{% macro feature_of_nothing(meta) -%}
    {%- if 'days_of' in meta or 'most_in_session' in meta -%} 0
    {%- elif 'ever' in meta or 'latest_of' in meta or 'sequence' in meta -%} false
    {%- elif 'first_at' in meta or 'last_at' in meta -%} null::timestamptz
    {%- else -%} {{ as_type('null::jsonb', meta.as) }}
    {%- endif -%}
{%- endmacro %}

{# A JSON value as text, or as what `as` says; what cannot be read as that is null, and no error. #}
{% macro as_type(value, type) -%}
    {%- if type == 'number' -%} upnext.number({{ value }})
    {%- elif type == 'boolean' -%} upnext.boolean({{ value }})
    {%- elif type == 'time' -%} upnext.instant({{ value }})
    {%- else -%} ({{ value }}) #>> '{}'
    {%- endif -%}
{%- endmacro %}

{# The difference that a tick makes to a feature, from the `events` that came (`is_new`) and those that left a window. #}
{% macro feature_difference(name, meta, progress) -%}
    {%- set came = 'events.is_new and ' ~ event_condition(meta) ~ window_condition(meta.within, progress.as_of) -%}
    {%- set left = 'not events.is_new and ' ~ event_condition(meta) ~ window_condition(meta.within, progress.last.as_of)
        ~ ' and events.occurred_at <= ' ~ progress.as_of ~ ' - ' ~ interval_of(meta.within) if meta.within else 'false' -%}
    {%- if 'count_of' in meta -%}
        count(*) filter (where {{ came }}) - count(*) filter (where {{ left }})
    {%- elif 'sum_of' in meta -%}
        {%- set value = 'upnext.number(' ~ path_of('events.properties', meta.sum_of) ~ ')' -%}
        coalesce(sum({{ value }}) filter (where {{ came }}), 0) - coalesce(sum({{ value }}) filter (where {{ left }}), 0)
    {%- elif 'ever' in meta -%}
        coalesce(bool_or({{ came }}), false)
    {%- else -%}
        {{ 'min' if 'first_at' in meta else 'max' }}(events.occurred_at) filter (where {{ came }})
    {%- endif -%}
{%- endmacro %}

{# A feature after a tick: what it was (`live`), and the difference (`excluded`). #}
{% macro feature_after(name, meta) -%}
    {%- if 'ever' in meta -%} live.{{ name }} or excluded.{{ name }}
    {%- elif 'first_at' in meta -%} least(live.{{ name }}, excluded.{{ name }})
    {%- elif 'last_at' in meta -%} greatest(live.{{ name }}, excluded.{{ name }})
    {%- else -%} live.{{ name }} + excluded.{{ name }}
    {%- endif -%}
{%- endmacro %}

{# Which events a feature is about. #}
{% macro event_condition(meta) -%}
    {%- set names = events_of(meta) -%}
    {%- if 'latest_trait' in meta -%} events.type = 'identify'
    {%- elif meta.type -%} events.type = {{ quoted([meta.type]) }} and not events.is_derived
    {%- elif 'any' in names -%} not events.is_derived
    {%- else -%} events.event in ({{ quoted(names) }})
    {%- endif -%}
    {{ tests_of('events.properties', meta.where or {}) }}
{%- endmacro %}

{# The names of the events that a feature is about. #}
{% macro events_of(meta) -%}
    {%- if 'distinct_users' in meta -%} {{ return(['any']) }} {%- endif -%}
    {%- set named = meta.of or meta.count_of or meta.days_of or meta.ever or meta.first_at or meta.last_at
        or meta.latest_of or meta.sequence or meta.most_in_session or [] -%}
    {{ return([named] if named is string else named) }}
{%- endmacro %}

{# A window of N days is (instant - N days, instant], exact to the microsecond. #}
{% macro window_condition(within, instant) -%}
    {%- if within %} and events.occurred_at > {{ instant }} - {{ interval_of(within) }}{% endif -%}
{%- endmacro %}

{# A length of time (upnext/durations.py) in minutes: a day is 24 hours, whatever the server's time zone. #}
{% macro interval_of(length) -%}
    {%- set number, unit = length.split() -%}
    interval '{{ number | int * {'minute': 1, 'hour': 60, 'day': 1440, 'week': 10080}[unit.rstrip('s')] }} minutes'
{%- endmacro %}

{# The value at a path (`plan`, `app.version`) of a JSON column. #}
{% macro path_of(column, path) -%}
    ({{ column }} #> array[{{ quoted(path.split('.')) }}])
{%- endmacro %}

{% macro quoted(values) -%}
    {%- for value in values -%}
        '{{ value | replace("'", "''") }}'{{ ', ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}
