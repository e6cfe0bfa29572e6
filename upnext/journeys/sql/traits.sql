-- name: person
select traits.traits, to_jsonb(user_features) as features
from features.user_features
cross join lateral journeys.traits_of(user_features.user_id, :as_of) as traits
where user_features.user_id = :user_id;

-- name: traits
-- Traits of the newest calls: enough calls to find each trait, and few enough to read interactively.
select distinct on (traits.key)
    traits.key as name,
    jsonb_typeof(traits.value) as type
from (
    select properties from raw.events where type = 'identify' order by load_id desc limit 20000
) as calls
cross join lateral jsonb_each(calls.properties) as traits
where jsonb_typeof(traits.value) <> 'null'
order by traits.key;
