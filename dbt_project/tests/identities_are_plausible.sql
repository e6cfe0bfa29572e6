{{ config(severity='warn') }}
-- Users that stand for each other in a circle, and persons with absurdly many ids.
select id
from {{ ref('identity_links') }}
where refused_because in ('closes a circle', 'the person has too many ids')
