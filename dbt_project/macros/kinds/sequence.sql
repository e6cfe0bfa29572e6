{# sequence: [<event>, ...], in: 2 days. Whether these came one after the other, within that time. #}
{% macro sequence__value(meta, of, as_of) -%}
    upnext.has_sequence(
        array_agg(events.event order by {{ earliest_first() }}) filter (where {{ of }}),
        array_agg(events.occurred_at order by {{ earliest_first() }}) filter (where {{ of }}),
        array[{{ quoted(meta.sequence) }}],
        {{ interval_of(meta.in) }}
    )
{%- endmacro %}

{% macro sequence__empty(meta) -%} false {%- endmacro %}
