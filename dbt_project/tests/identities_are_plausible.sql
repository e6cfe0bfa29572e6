{{ config(severity='warn') }}
-- Users that are linked in a circle, and persons with too many ids.
select id
from {{ ref('identity_links') }}
where refused_because in ('closes a circle', 'the person has too many ids')
