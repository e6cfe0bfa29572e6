-- Keys of clients and of servers.

-- name: add_key
insert into edge.keys (kind, source, hash, origins, identity, events_per_second, created_at)
values (:kind, :source, :hash, :origins, :identity, :events_per_second, :now)
returning key_id;

-- name: list_keys
select key_id, kind, source, origins, identity, events_per_second, created_at, disabled_at
from edge.keys
order by key_id;

-- name: disable_key
update edge.keys set disabled_at = coalesce(disabled_at, :now) where key_id = :key_id returning key_id;

-- name: keys_in_use
select hash, key_id, kind, source, origins, identity, events_per_second
from edge.keys
where disabled_at is null;
