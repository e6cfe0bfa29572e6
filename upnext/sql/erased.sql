-- Tombstones of people who were erased.

-- name: tombstones
select hash, key from upnext.erased;

-- name: bury
insert into upnext.erased (hash, key, erased_at) values (:hash, :key, :at) on conflict (hash) do nothing;
