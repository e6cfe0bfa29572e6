{#
    held_since: <property>, of: <event>, or without `of` a trait. Since when it has had its latest value: the time of
    the first event of the last run of equal values; null where no event has it.
#}
{% macro held_since__value(meta, of, as_of) -%}
    {%- set value -%} {{ path_of('events.properties', meta.held_since) }} #>> '{}' {%- endset -%}
    coalesce(
        {{ last_change_of(meta.held_since, of) }},
        min(events.occurred_at) filter (where {{ of }} and {{ value }} is not null)
    )
{%- endmacro %}

{% macro held_since__empty(meta) -%} cast(null as timestamptz) {%- endmacro %}

{% macro held_since__about(meta) -%} {{ return(of_event_or_trait(meta)) }} {%- endmacro %}

{# A property of an event, or without one a trait: the properties of identify calls are traits. #}
{% macro of_event_or_trait(meta) -%}
    {{ return(meta if meta.of or meta.type else dict(meta, type='identify')) }}
{%- endmacro %}

{# When a property last changed from one value to another; null where it never has. #}
{% macro last_change_of(property, of) -%}
    {%- set value -%} {{ path_of('events.properties', property) }} #>> '{}' {%- endset -%}
    {%- set counts -%} {{ of }} and {{ value }} is not null {%- endset -%}
    upnext.last_change(
        array_agg({{ value }} order by {{ earliest_first() }}) filter (where {{ counts }}),
        array_agg(events.occurred_at order by {{ earliest_first() }}) filter (where {{ counts }})
    )
{%- endmacro %}
