{#
    One branch for each way that an event belongs to a user. None is materialized, so the events of one user are found
    by an index, and the events of all users are read in one pass.
#}
with events as not materialized (
    select * from {{ source('raw', 'events') }}
),

links as not materialized (
    select kind, id, user_id from {{ ref('identity_links') }} where user_id is not null
)

select {{ event_columns('events.user_id') }}
from events
where
    events.user_id is not null
    and not exists (select from links where links.kind = 'user' and links.id = events.user_id)
union all
select {{ event_columns('links.user_id') }}
from links
inner join events on links.id = events.user_id
where links.kind = 'user'
union all
select {{ event_columns('links.user_id') }}
from links
inner join events on links.id = events.anonymous_id
where links.kind = 'visitor' and events.user_id is null
