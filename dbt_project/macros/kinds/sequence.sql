{#
    sequence: [<step>, ...], in: 2 days. Whether these came one after the other, from first to last within that time, or
    `in: session`. A step is an event, or `{event: <event>, where: {...}}`. `order: any` takes them in any order,
    `order: strict` with no other event between; `without: <step>` must not lie between. With `keyed_by: <property>`,
    all have the same value of it, and events without it do not count.
#}
{% macro sequence__value(meta, of, as_of) -%}
    {%- set all_events -%} or not events.is_derived{{ window_condition(meta.within, as_of) }} {%- endset -%}
    {%- set counted -%} {{ of }} {{ all_events if reads_all_events(meta) }} {%- endset -%}
    {%- set steps = meta.sequence | unique | list if meta.order == 'any' else meta.sequence -%}
    {%- set needed = [] -%}
    {%- for step in steps -%} {%- do needed.append(meta.sequence.count(step)) -%} {%- endfor -%}
    upnext.has_sequence(
        array_agg(
            {% for step in steps + ([meta.without] if meta.without else []) -%}
            case when {{ of }} and {{ event_condition(of_step(step)) }}
                then {{ 2 ** loop.index0 if loop.index0 < steps | length else 2 ** 30 }} else 0 end
            {{ '+ ' if not loop.last }}
            {%- endfor %}
            order by {{ earliest_first() }}
        ) filter (where {{ counted }}),
        array_agg(events.occurred_at order by {{ earliest_first() }}) filter (where {{ counted }}),
        {{ keys_of(meta, counted) }},
        array[{{ needed | join(', ') }}],
        {% if meta.in == 'session' %}null{% else %}{{ interval_of(meta.in) }}{% endif %},
        '{{ meta.order or "given" }}'
    )
{%- endmacro %}

{% macro sequence__metric(value) -%} cast(cast({{ value }} as integer) as double precision) {%- endmacro %}

{% macro sequence__empty(meta) -%} false {%- endmacro %}

{% macro sequence__about(meta) -%}
    {{ return(of_steps(meta, meta.sequence + ([meta.without] if meta.without else []))) }}
{%- endmacro %}

{% macro sequence__changed_by(meta) -%}
    {{ return({'count_of': 'any'} if reads_all_events(meta) else sequence__about(meta)) }}
{%- endmacro %}

{# Any event may continue a session, or lie between two. #}
{% macro reads_all_events(meta) -%}
    {{ return(meta.in == 'session' or meta.order == 'strict') }}
{%- endmacro %}

{# A step as the meta of a feature that counts it. #}
{% macro of_step(step) -%}
    {%- if step is string -%} {{ return({'count_of': step}) }} {%- endif -%}
    {{ return({'count_of': step.event, 'where': step.where, 'context': step.context}) }}
{%- endmacro %}

{# The events of several steps, under the conditions that hold for all of them, as the meta of a feature. #}
{% macro of_steps(meta, steps) -%}
    {%- set names = [] -%}
    {%- for step in steps -%} {%- do names.extend(events_of(of_step(step))) -%} {%- endfor -%}
    {{ return({'count_of': {'any_of': names | unique | list}, 'where': meta.where, 'context': meta.context}) }}
{%- endmacro %}

{% macro keys_of(meta, counted) -%}
    {%- if meta.keyed_by -%}
    array_agg({{ path_of('events.properties', meta.keyed_by) }} #>> '{}' order by {{ earliest_first() }})
        filter (where {{ counted }})
    {%- else -%} null
    {%- endif -%}
{%- endmacro %}
