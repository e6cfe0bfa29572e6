{#
    unfinished: <step>, finished: <step>, in: 1 hour. How many of the first step were not followed by the second within
    that time, once it is over; with `keyed_by: <property>`, by one with the same value of it.
#}
{% macro unfinished__value(meta, of, as_of) -%}
    (
        select count(*)
        from {{ turns_of(meta, as_of) }}
        where unfinished.at <= {{ as_of }}
    )
{%- endmacro %}

{% macro unfinished__empty(meta) -%} 0 {%- endmacro %}

{% macro unfinished__about(meta) -%} {{ return(of_steps(meta, [meta.unfinished, meta.finished])) }} {%- endmacro %}

{% macro unfinished__next_change(meta, of, as_of) -%}
    (
        select min(unfinished.at)
        from {{ turns_of(meta, as_of) }}
        where unfinished.at > {{ as_of }}
    )
{%- endmacro %}

{# When each first step turned out as unfinished, or will if nothing happens. The second may lie after the window. #}
{% macro turns_of(meta, as_of) -%}
    {%- set either = event_condition(meta, as_of) -%}
    upnext.unfinished(
        array_agg({{ event_condition(of_step(meta.unfinished)) }}{{ window_condition(meta.within, as_of) }}
            order by {{ earliest_first() }}) filter (where {{ either }}),
        array_agg({{ event_condition(of_step(meta.finished)) }} order by {{ earliest_first() }})
            filter (where {{ either }}),
        array_agg(events.occurred_at order by {{ earliest_first() }}) filter (where {{ either }}),
        {{ keys_of(meta, either) }},
        {{ interval_of(meta.in) }}
    ) as unfinished (at)
{%- endmacro %}
