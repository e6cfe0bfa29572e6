-- name: traits
-- Of the newest calls: enough to know a trait by, and few enough to read while somebody waits.
select distinct on (traits.key)
    traits.key as name,
    jsonb_typeof(traits.value) as type
from (
    select properties from raw.events where type = 'identify' order by load_id desc limit 20000
) as calls
cross join lateral jsonb_each(calls.properties) as traits
where jsonb_typeof(traits.value) <> 'null'
order by traits.key;
