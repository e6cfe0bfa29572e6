{# most_in_session: <event>. The most of them in one session, which 30 minutes without any event end. #}
{% macro most_in_session__value(meta, of, as_of) -%}
    {%- set in_session -%} {{ of }} or not events.is_derived{{ window_condition(meta.within, as_of) }} {%- endset -%}
    upnext.most_in_session(
        array_agg(events.occurred_at order by {{ earliest_first() }}) filter (where {{ in_session }}),
        array_agg({{ of }} order by {{ earliest_first() }}) filter (where {{ in_session }})
    )
{%- endmacro %}

{% macro most_in_session__empty(meta) -%} 0 {%- endmacro %}

{# Any event may continue a session. #}
{% macro most_in_session__changed_by(meta) -%} {{ return({'count_of': 'any'}) }} {%- endmacro %}
