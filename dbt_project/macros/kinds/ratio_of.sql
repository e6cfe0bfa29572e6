{#
    ratio_of: <feature>, per: <feature>. One feature of the table divided by another, numeric; null where the second is
    0 or null. It is a generated column, so it follows the two by itself.
#}
{% macro ratio_of__generated(meta) -%}
    cast({{ meta.ratio_of }} as numeric) / nullif(cast({{ meta.per }} as numeric), 0)
{%- endmacro %}
