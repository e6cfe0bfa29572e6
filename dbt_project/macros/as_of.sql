{# The instant that everything is computed at: the tick's, or for a model built by hand the last published one. #}
{% macro as_of() -%}
    {%- if var('as_of', none) -%}
        '{{ var("as_of") }}'::timestamptz
    {%- else -%}
        {{ published_as_of() }}
    {%- endif -%}
{%- endmacro %}

{% macro published_as_of() -%}
    (select max(ticks.as_of) from segments.ticks as ticks where ticks.published_at is not null)
{%- endmacro %}
