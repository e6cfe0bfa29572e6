{#
    A feature, or a metric, is a documented column: the `config.meta` of its description is its definition. Its kind is
    the key of the meta that names a file of `kinds/`, which has a macro for each of these:

        <kind>__value(meta, of, window)         aggregate over `events`; `of` is the condition for those that count
        <kind>__difference(meta, came, left)    the change by events that came, and that left the window; where there is
                                                none the feature is recomputed for the users with such events
        <kind>__after(name)                     the value from the one before (`live`) and the difference (`excluded`)
        <kind>__empty(meta)                     the value without any event, of a feature without a difference
        <kind>__total(name, meta)               a feature of accounts from those of its users (`account_users`)
        <kind>__metric(value)                   the value as a metric, double precision

    and, where the defaults do not hold: `__about` and `__changed_by` (the events that count, that may change the value,
    as a meta), `__of_each_user` (what is kept of each user of an account).

    `any` matches every event except derived ones. Ties break by (occurred_at, source, message_id).
#}

{# The columns of a model whose description has a definition. #}
{% macro described_columns(model_name) -%}
    {%- if execute -%}
        {%- set node = graph.nodes.values() | selectattr('resource_type', 'equalto', 'model')
            | selectattr('name', 'equalto', model_name) | first -%}
        {{ return(node.columns.values() | selectattr('config.meta') | list) }}
    {%- endif -%}
    {{ return([]) }}
{%- endmacro %}

{# A macro of the kind of a feature or metric; none where the kind does not have it. #}
{% macro of_kind(meta, part) -%}
    {%- for key in meta if key ~ '__value' in context or key ~ '__total' in context -%}
        {{ return(context.get(key ~ '__' ~ part)) }}
    {%- endfor -%}
    {%- if part == 'value' -%}
        {{ exceptions.raise_compiler_error(meta.keys() | join(', ') ~ ": no kind; macros/kinds/ has a file for each") }}
    {%- endif -%}
    {{ return(none) }}
{%- endmacro %}

{# A feature computed from `events`, which are grouped by user or account. #}
{% macro feature_value(meta, as_of) -%}
    {%- set window = window_condition(meta.within, as_of) -%}
    {{ of_kind(meta, 'value')(meta, event_condition(meta) ~ window, window) }}
{%- endmacro %}

{# The change that a tick makes to a feature, from the events that came (`is_new`) and those that left its window. #}
{% macro feature_difference(meta, progress) -%}
    {%- set difference = of_kind(meta, 'difference') -%}
    {%- if difference -%}
        {%- set came -%}
            events.is_new and {{ event_condition(meta) }}{{ window_condition(meta.within, progress.as_of) }}
        {%- endset -%}
        {%- set left -%}
            {%- if meta.within -%}
            not events.is_new and {{ event_condition(meta) }}{{ window_condition(meta.within, progress.last.as_of) }}
            and events.occurred_at <= {{ progress.as_of }} - {{ interval_of(meta.within) }}
            {%- else -%} false
            {%- endif -%}
        {%- endset -%}
        {{ difference(meta, came, left) }}
    {%- endif -%}
{%- endmacro %}

{% macro is_differential(meta) -%}
    {{ return((of_kind(meta, 'difference') or none_of_it)(meta, 'true', 'true') | trim | length > 0) }}
{%- endmacro %}

{% macro none_of_it(meta, came, left) -%}{%- endmacro %}

{# The condition for the events that a feature is about. #}
{% macro event_condition(meta) -%}
    {%- set about = (of_kind(meta, 'about') or same)(meta) -%}
    {%- set names = events_of(about) -%}
    {%- if about.type -%} events.type = {{ quoted([about.type]) }} and not events.is_derived
    {%- elif 'any' in names -%} not events.is_derived
    {%- else -%} events.event in ({{ quoted(names) }})
    {%- endif -%}
    {{ tests_of('events.properties', about.where or {}) }}
{%- endmacro %}

{# The events that may change a feature, as a meta. #}
{% macro changed_by(meta) -%}
    {{ return((of_kind(meta, 'changed_by') or of_kind(meta, 'about') or same)(meta)) }}
{%- endmacro %}

{% macro same(meta) -%} {{ return(meta) }} {%- endmacro %}

{# The names of the events that a feature is about. #}
{% macro events_of(meta) -%}
    {%- for key in meta if meta.of or key ~ '__value' in context -%}
        {%- set named = meta.of or meta[key] -%}
        {{ return([named] if named is string else named) }}
    {%- endfor -%}
    {{ return([]) }}
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

{% macro latest_first() -%}
    events.occurred_at desc, events.source collate "C" desc, events.message_id collate "C" desc
{%- endmacro %}

{% macro earliest_first() -%}
    events.occurred_at, events.source collate "C", events.message_id collate "C"
{%- endmacro %}

{# A JSON value as text, or as the type that `as` names; null where the value cannot be read as that type. #}
{% macro as_type(value, type) -%}
    {%- if type == 'number' -%} upnext.number({{ value }})
    {%- elif type == 'boolean' -%} upnext.boolean({{ value }})
    {%- elif type == 'time' -%} upnext.instant({{ value }})
    {%- else -%} ({{ value }}) #>> '{}'
    {%- endif -%}
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
