{#- Every segment with an exclusive group; dbt knows them all by the time this is built. -#}
with declared (segment, exclusive_group, priority) as (
    values
    {%- for segment in exclusive_segments() %}
    ({{ quoted([segment.name, segment.config.meta.exclusive_group]) }}, {{ segment.config.meta.priority or 0 }}),
    {%- endfor %}
    (null, null, cast(null as integer))
),

members as (
    select * from {{ source('segments', 'members') }}
)

select distinct on (members.user_id, declared.exclusive_group)
    members.user_id,
    declared.exclusive_group,
    members.segment,
    members.entered_at,
    declared.priority
from members
inner join declared on members.segment = declared.segment
order by
    members.user_id asc,
    declared.exclusive_group asc,
    declared.priority desc,
    members.entered_at desc,
    members.segment asc
