-- What the edge writes.

-- name: count_refusals
insert into edge.refusals (minute, key_id, reason, count)
values (:minute, :key_id, :reason, :count)
on conflict (minute, key_id, reason) do update set count = refusals.count + excluded.count;

-- name: is_ready
select current_setting('transaction_read_only') = 'off' as can_commit;
