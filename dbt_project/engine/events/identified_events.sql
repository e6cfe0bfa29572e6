{# An event is a person's, who changes when its id turns out to be somebody else's: see macros/engine/identity.sql. #}
-- depends_on: {{ ref('identity_links') }}
with events as not materialized (
    select * from {{ source('raw', 'events') }}
)

select {{ event_columns('events.person_id') }}
from events
where events.person_id <> '' {{- '' if has_visitors() else ' and not upnext.is_visitor(events.person_id)' }}
