{#
    resumed: <event>, after: 30 days. Whether one came that long or longer after the one before it, `within` the window:
    the one before may be older.
#}
{% macro resumed__value(meta, of, as_of) -%}
    {%- set ever = event_condition(meta, as_of) -%}
    upnext.has_resumed(
        array_agg(events.occurred_at order by events.occurred_at) filter (where {{ ever }}),
        {{ interval_of(meta.after) }},
        {% if meta.within %}{{ as_of }} - {{ interval_of(meta.within) }}{% else %}'-infinity'{% endif %}
    )
{%- endmacro %}

{% macro resumed__empty(meta) -%} false {%- endmacro %}
