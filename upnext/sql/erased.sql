-- Tombstones of people who were erased.

-- name: tombstones
select hash, key, readmitted_at from upnext.erased;

-- name: bury
insert into upnext.erased (hash, key, erased_at) values (:hash, :key, :at)
on conflict (hash) do update set readmitted_at = null, erased_at = excluded.erased_at
where erased.readmitted_at is not null;

-- name: readmit
update upnext.erased set readmitted_at = :at where hash = any(:hashes) and readmitted_at is null;
