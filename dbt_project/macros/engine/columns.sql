{#
    A feature, or a metric, is a documented column: the `config.meta` of its description is its definition. Its kind is
    the key of the meta that names a file of `kinds/`, which has a macro for each of these:

        <kind>__value(meta, of, as_of)          aggregate over `events`; `of` is the condition for those that count
        <kind>__difference(meta, came, left)    the change by events that came, and that left the window; where there is
                                                none the feature is recomputed for the users with such events
        <kind>__after(name)                     the value from the one before (`live`) and the difference (`excluded`)
        <kind>__empty(meta)                     the value without any event
        <kind>__next_change(meta, of, as_of)    when the value changes next without an event; null where it does not
        <kind>__total(name, meta)               a feature of accounts from those of its users (`account_users`)
        <kind>__metric(value)                   the value as a metric, double precision

    or, instead, `__generated(meta)`: an expression of other features of the table, which a generated column computes;

    and, where the defaults do not hold: `__about` and `__changed_by` (the events that count, that may change the value,
    as a meta), `__of_each_user` (what is kept of each user of an account).

    `any` matches every event except derived ones. Ties break by (occurred_at, source, message_id); an event comes
    before those that are derived from it, which go by their names.
#}

{# The columns of a model whose description has a definition; one for each window of `windows`. #}
{% macro described_columns(model_name) -%}
    {%- set columns = [] -%}
    {%- if execute -%}
        {%- set node = graph.nodes.values() | selectattr('resource_type', 'equalto', 'model')
            | selectattr('name', 'equalto', model_name) | first -%}
        {%- for column in node.columns.values() if column.config.meta -%}
            {%- set meta = dict(column.config.meta) -%}
            {%- for window in meta.pop('windows', [none]) -%}
                {%- do columns.append({
                    'name': column.name ~ ('_' ~ short(window) if window else ''),
                    'config': {'meta': dict(meta, within=window) if window else meta}
                }) -%}
            {%- endfor -%}
        {%- endfor -%}
    {%- endif -%}
    {{ return(columns) }}
{%- endmacro %}

{# A length of time as the end of a name: `30 days` is 30d. #}
{% macro short(length) -%}
    {%- set number, unit = length.split() -%}
    {{ return(number ~ {'minute': 'min', 'month': 'mo'}.get(unit.rstrip('s'), unit[0])) }}
{%- endmacro %}

{# A macro of the kind of a feature or metric; none where the kind does not have it. #}
{% macro of_kind(meta, part) -%}
    {%- if meta.known_kind -%} {{ return(context.get(meta.known_kind ~ '__' ~ part)) }} {%- endif -%}
    {%- for key in meta
        if key ~ '__value' in context or key ~ '__total' in context or key ~ '__generated' in context -%}
        {{ return(context.get(key ~ '__' ~ part)) }}
    {%- endfor -%}
    {%- if part == 'value' -%}
        {{ exceptions.raise_compiler_error(meta.keys() | join(', ') ~ ": no kind; macros/kinds/ has a file for each") }}
    {%- endif -%}
    {{ return(none) }}
{%- endmacro %}

{# A feature computed from `events`, which are grouped by user or account. #}
{% macro feature_value(meta, as_of) -%}
    {%- set of = event_condition(meta, as_of) ~ window_condition(meta.within, as_of) -%}
    {{ of_kind(meta, 'value')(meta, of, as_of) }}
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

{#
    A meta with what is asked of it again and again, because each call of a macro takes time, and a table may have
    hundreds of features: its kind, the conditions for its events, the names of those that may change it, whether a tick
    can add and subtract it, and the text that tells which columns of an event its difference reads.
#}
{% macro prepared(meta) -%}
    {%- set ready = dict(meta) -%}
    {%- for key in meta if key ~ '__value' in context -%} {%- do ready.update({'known_kind': key}) -%} {%- endfor -%}
    {%- set of_difference = of_kind(ready, 'difference') -%}
    {%- set of_change = of_kind(ready, 'changed_by') -%}
    {%- set difference = of_difference(ready, 'true', 'true') | trim if of_difference else '' -%}
    {%- set is_relative = (ready.where or ready.context) and relative_tests(ready) | length > 0 or false -%}
    {%- set moves = is_relative or of_kind(ready, 'next_change') is not none -%}
    {%- set condition = none if is_relative else event_condition(ready) -%}
    {%- set by = of_change(ready) if of_change else changed_by(ready) -%}
    {%- set changes_with = may_change(ready) if is_relative or of_change else condition -%}
    {%- if of_change -%}
        {#- What continues a session is no derived event, and what counts may be. -#}
        {%- set alone = event_condition(dict(ready, where=none, context=none)) if is_relative else condition -%}
        {%- set changes_with = '(' ~ changes_with ~ ') or (' ~ alone ~ ')' -%}
    {%- endif -%}
    {%- do ready.update({
        'moves': moves,
        'adds_up': difference | length > 0 and not moves,
        'condition': condition,
        'changes_with': changes_with,
        'changed_by_events': ['any'] if by.type else events_of(by),
    }) -%}
    {%- do ready.update({'reads': difference ~ ready.changes_with}) -%}
    {{ return(ready) }}
{%- endmacro %}

{# The condition for the events that a feature is about. #}
{% macro event_condition(meta, instant=none) -%}
    {%- if meta.condition -%} {{ return(meta.condition) }} {%- endif -%}
    {%- set of_its_kind = of_kind(meta, 'about') -%}
    {%- set about = of_its_kind(meta) if of_its_kind else meta -%}
    {%- set names = events_of(about) -%}
    {%- if about.type -%} events.type = {{ quoted([about.type]) }} and not events.is_derived
    {%- elif 'any' in names -%} not events.is_derived
    {%- else -%} events.event in ({{ quoted(names) }})
    {%- endif -%}
    {{- of_its_values(about, instant) }}
{%- endmacro %}

{# The events that may change a feature, as a meta. #}
{% macro changed_by(meta) -%}
    {%- set of_its_kind = of_kind(meta, 'changed_by') or of_kind(meta, 'about') -%}
    {{ return(of_its_kind(meta) if of_its_kind else meta) }}
{%- endmacro %}

{# The condition for the events that may change a feature. An event may pass a relative test only later. #}
{% macro may_change(meta) -%}
    {%- set by = dict(changed_by(meta)) -%}
    {%- if relative_tests(by) -%} {%- do by.update({'where': none, 'context': none}) -%} {%- endif -%}
    {{ event_condition(by) }}
{%- endmacro %}

{# When the first of these features changes next without an event, windows aside. #}
{% macro next_change(features, as_of) -%}
    least(
    {%- for meta in features.values() if meta.moves -%}
        {%- if of_kind(meta, 'next_change') -%}
            {{ of_kind(meta, 'next_change')(meta, event_condition(meta, as_of), as_of) }},
        {%- endif -%}
        {%- for test in relative_tests(meta) -%}
            {%- set passes_at -%}
                upnext.instant({{ path_of('events.' ~ test.column, test.path) }}) {{ test.turn }}
            {%- endset -%}
            min({{ passes_at }}) filter (where {{ meta.changes_with }} and {{ passes_at }} > {{ as_of }}),
        {%- endfor -%}
    {%- endfor -%}
        null
    )
{%- endmacro %}

{% macro same(meta) -%} {{ return(meta) }} {%- endmacro %}

{# The names of the events that a feature is about. #}
{% macro events_of(meta) -%}
    {%- for key in meta if meta.of or key ~ '__value' in context -%}
        {{ return(names_of(meta.of or meta[key])) }}
    {%- endfor -%}
    {{ return([]) }}
{%- endmacro %}

{# One name, a list of names, `any_of: [a, b]`, or `starts_with: a`: the declared events whose names begin like this. #}
{% macro names_of(events) -%}
    {%- if events is string -%} {{ return([events]) }} {%- endif -%}
    {%- if events is not mapping -%} {{ return(events) }} {%- endif -%}
    {%- if events.any_of -%} {{ return(events.any_of) }} {%- endif -%}
    {%- set names = [] -%}
    {%- for name in catalogue().get('events', {}) if name.startswith(events.starts_with) -%}
        {%- do names.append(name) -%}
    {%- endfor -%}
    {{ return(names) }}
{%- endmacro %}

{# A window of N days is (instant - N days, instant], exact to the microsecond. #}
{% macro window_condition(within, instant) -%}
    {%- if within %} and events.occurred_at > {{ instant }} - {{ interval_of(within) }}{% endif -%}
{%- endmacro %}

{# A length of time (upnext/durations.py) in seconds: a day is 24 hours, whatever the server's time zone. #}
{% macro interval_of(length) -%}
    {%- set number, unit = length.split() -%}
    {%- set seconds = {
        'second': 1, 'minute': 60, 'hour': 3600, 'day': 86400, 'week': 604800, 'month': 2592000, 'year': 31536000
    } -%}
    interval '{{ number | int * seconds[unit.rstrip('s')] }} seconds'
{%- endmacro %}

{% macro latest_first() -%}
    events.occurred_at desc, events.source collate "C" desc, events.message_id collate "C" desc,
    events.is_derived desc, events.event collate "C" desc
{%- endmacro %}

{% macro earliest_first() -%}
    events.occurred_at, events.source collate "C", events.message_id collate "C",
    events.is_derived, events.event collate "C"
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
