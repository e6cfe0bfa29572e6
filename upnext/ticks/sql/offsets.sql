-- name: consumed
select tick_id, as_of from segments.consumer_offsets where consumer = :consumer;

-- name: record_consumed
insert into segments.consumer_offsets (consumer, tick_id, as_of, begun_at)
values (:consumer, :tick_id, :as_of, :as_of)
on conflict (consumer) do update set tick_id = excluded.tick_id, as_of = excluded.as_of;

-- name: is_behind
select exists (
    select from segments.published_changes
    where
        segment = any(:segments)
        and tick_id > coalesce(
            (select tick_id from segments.consumer_offsets where consumer = :consumer), 0
        )
);

-- name: has_new_events
select exists (
    select 1 from events.user_events
    where
        event = any(:events)
        and load_id = any(array(
            select load_id from raw.loads
            where
                tick_id <= :published
                and tick_id > coalesce(
                    (select tick_id from segments.consumer_offsets where consumer = :consumer), 0
                )
        ))
);
