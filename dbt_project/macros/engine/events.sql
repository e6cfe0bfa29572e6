{# The columns of an event that features read. `user_id` is the user that the event counts for. #}
{% macro event_columns(user_id) -%}
    {{ user_id }} as user_id,
    events.account_id,
    events.type,
    events.event,
    events.occurred_at,
    events.source,
    events.message_id,
    events.properties,
    events.context,
    events.load_id
{%- endmacro %}

{# The events that the meta of the model `catalogue` declares: `events` and `derived`, each by name. #}
{% macro catalogue() -%}
    {%- if execute -%}
        {%- set node = graph.nodes.values() | selectattr('resource_type', 'equalto', 'model')
            | selectattr('name', 'equalto', 'catalogue') | first -%}
        {{ return(node.config.meta) }}
    {%- endif -%}
    {{ return({}) }}
{%- endmacro %}

{# The condition of a derived event: the name or the type of another, and tests of its properties and context. #}
{% macro derived_condition(derived) -%}
    {%- if derived.event -%}
        events.event = {{ quoted([derived.event]) }}
    {%- else -%}
        events.type = {{ quoted([derived.type]) }}
    {%- endif -%}
    {{ tests_of('events.properties', derived.where or {}) }}
    {{- tests_of('events.context', derived.context or {}) }}
{%- endmacro %}

{#
    Tests of a JSON column, each by the path of its value (`plan`, `app.version`):

        plan: premium                          equal, as text, number or boolean
        rows: {at_least: 100, less_than: 200}  also at_most, more_than; numbers, also written as text
        plan: {one_of: [basic, premium]}
        url: {contains: /pricing}
        coupon: {exists: true}
#}
{% macro tests_of(column, tests) -%}
    {%- set comparisons = {'at_least': '>=', 'at_most': '<=', 'more_than': '>', 'less_than': '<'} -%}
    {%- for path, test in tests.items() -%}
        {%- set value = column ~ " #> array[" ~ quoted(path.split('.')) ~ "]" -%}
        {%- for name, expected in (test if test is mapping else {'equals': test}).items() %}
        and {% if name in comparisons -%}
            upnext.number({{ value }}) {{ comparisons[name] }} {{ expected }}
        {%- elif name == 'one_of' -%}
            ({{ value }}) #>> '{}' in ({{ quoted(expected | map('string') | list) }})
        {%- elif name == 'contains' -%}
            strpos(({{ value }}) #>> '{}', {{ quoted([expected]) }}) > 0
        {%- elif name == 'exists' -%}
            ({{ value }}) is {{ 'not null' if expected else 'null' }}
        {%- elif expected is boolean -%}
            ({{ value }}) #>> '{}' = '{{ expected | string | lower }}'
        {%- elif expected is number -%}
            upnext.number({{ value }}) = {{ expected }}
        {%- else -%}
            ({{ value }}) #>> '{}' = {{ quoted([expected]) }}
        {%- endif -%}
        {%- endfor -%}
    {%- endfor -%}
{%- endmacro %}
