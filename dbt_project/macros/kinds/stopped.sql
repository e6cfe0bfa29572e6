{# stopped: <event>, for: 14 days. Whether there was one, but none in that time. #}
{% macro stopped__value(meta, of, as_of) -%}
    coalesce(max(events.occurred_at) filter (where {{ of }}) <= {{ as_of }} - {{ interval_of(meta.for) }}, false)
{%- endmacro %}

{% macro stopped__empty(meta) -%} false {%- endmacro %}

{% macro stopped__next_change(meta, of, as_of) -%}
    case when not {{ stopped__value(meta, of, as_of) }}
        then max(events.occurred_at) filter (where {{ of }}) + {{ interval_of(meta.for) }} end
{%- endmacro %}
