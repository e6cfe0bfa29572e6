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

{# The conditions on an event's properties and context, after those on its name. #}
{% macro of_its_values(meta, instant=none) -%}
    {%- if meta.where %} and {{ all_hold('events.properties', meta.where, instant) }} {%- endif -%}
    {%- if meta.context %} and {{ all_hold('events.context', meta.context, instant) }} {%- endif -%}
{%- endmacro %}

{# The condition of a derived event: the name or the type of another, and tests of its properties and context. #}
{% macro derived_condition(derived) -%}
    {%- if derived.event -%}
        events.event = {{ quoted([derived.event]) }}
    {%- else -%}
        events.type = {{ quoted([derived.type]) }}
    {%- endif -%}
    {{- of_its_values(derived) }}
{%- endmacro %}
