{#
    The user that each id stands for, by the identify and alias calls up to as_of (`claims`, see
    macros/engine/identity.sql). An id belongs to the first person that it was linked to. A link that closes a circle is
    refused, and so is one to a person with too many ids.
#}
-- A visitor who is linked to no user is {{ 'a person' if has_visitors() else 'nobody' }}.
with recursive links as (
    select
        *,
        row_number() over said_order as nth,
        row_number() over (
            partition by kind, id
            order by
                upnext.is_visitor(linked_to), occurred_at, source collate "C", message_id collate "C", linked_to
        ) as nth_of_id
    from claims
    window said_order as (
        order by occurred_at, source collate "C", message_id collate "C", kind, linked_to collate "C", id collate "C"
    )
),

user_links as (
    select id, linked_to, nth from links where kind = 'user' and nth_of_id = 1
),

{# Follow each link along the links before it. A walk that returns to its own id closes a circle. #}
walks (id, nth, reached, steps) as (
    select id, nth, linked_to, 1 from user_links
    union all
    select walks.id, walks.nth, user_links.linked_to, walks.steps + 1
    from walks
    inner join user_links on walks.reached = user_links.id and walks.nth > user_links.nth
    where walks.reached <> walks.id and walks.steps < {{ var('max_ids_per_person') }}
),

circles as (
    select id from walks where reached = id
),

kept_links as (
    select id, linked_to from user_links where id not in (select circles.id from circles)
),

roots (id, reached, steps) as (
    select id, linked_to, 1 from kept_links
    union all
    select roots.id, kept_links.linked_to, roots.steps + 1
    from roots
    inner join kept_links on roots.reached = kept_links.id
    where roots.steps < {{ var('max_ids_per_person') }}
),

survivors as (
    select roots.id, roots.reached as user_id
    from roots
    where not exists (select from kept_links where kept_links.id = roots.reached)
),

resolved as (
    select
        links.*,
        case
            when links.nth_of_id > 1 then 'linked to another user before'
            when links.kind = 'user' and links.id in (select circles.id from circles) then 'closes a circle'
            when links.kind = 'user' and survivors.user_id is null then 'the person has too many ids'
        end as refused_because,
        coalesce(survivors.user_id, links.linked_to) as survivor
    from links
    left join survivors on survivors.id = case when links.kind = 'user' then links.id else links.linked_to end
    where links.nth_of_id = 1 or not upnext.is_visitor(links.linked_to)
),

ranked as (
    select
        *,
        dense_rank() over (
            partition by survivor, refused_because is null
            order by occurred_at, source collate "C", message_id collate "C"
        ) as nth_of_person
    from resolved
),

crowded as (
    select id from ranked
    where kind = 'user' and refused_because is null and nth_of_person > {{ var('max_ids_per_person') }}
),

{# Whoever stands before a link that is refused stays a person, with all ids that lead there. #}
cut as (
    select distinct on (places.id) places.id, places.user_id
    from (
        select id, id as user_id, 0 as steps from crowded
        union all
        select roots.id, roots.reached, roots.steps
        from roots
        inner join crowded on roots.reached = crowded.id
    ) as places
    order by places.id, places.steps
),

settled as (
    select
        ranked.kind,
        ranked.id,
        ranked.linked_to,
        ranked.occurred_at,
        ranked.source,
        ranked.message_id,
        case
            when ranked.refused_because is not null then ranked.refused_because
            when ranked.kind = 'user' and ranked.id in (select crowded.id from crowded)
                then 'the person has too many ids'
        end as refused_because,
        coalesce(cut.user_id, ranked.survivor) as survivor
    from ranked
    left join cut on cut.id = case when ranked.kind = 'user' then ranked.id else ranked.linked_to end
),

counted as (
    select
        *,
        dense_rank() over (
            partition by survivor, refused_because is null
            order by occurred_at, source collate "C", message_id collate "C"
        ) as nth_of_person
    from settled
)

select
    kind,
    id,
    linked_to,
    case
        when refused_because is null and nth_of_person <= {{ var('max_ids_per_person') }} then survivor
    end as user_id,
    occurred_at as linked_at,
    source,
    message_id,
    case
        when refused_because is not null then refused_because
        when nth_of_person > {{ var('max_ids_per_person') }} then 'the person has too many ids'
    end as refused_because
from counted
