{#
    changed: <property>, of: <event>, or without `of` a trait. Whether its value has changed, `within` the window: the
    value before the change may be older.
#}
{% macro changed__value(meta, of, as_of) -%}
    {%- set ever = event_condition(meta, as_of) -%}
    coalesce(
        {{ last_change_of(meta.changed, ever) }}
        {%- if meta.within %} > {{ as_of }} - {{ interval_of(meta.within) }}{% else %} is not null{% endif %},
        false
    )
{%- endmacro %}

{% macro changed__empty(meta) -%} false {%- endmacro %}

{% macro changed__about(meta) -%} {{ return(of_event_or_trait(meta)) }} {%- endmacro %}
