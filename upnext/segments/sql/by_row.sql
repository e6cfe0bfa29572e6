-- name: forget_conditions
delete from segments.by_row where segment <> all(cast(:segments as text []));

-- name: store_conditions
insert into segments.by_row as stored (segment, features, condition, text_hash)
select
    segment,
    features,
    condition,
    text_hash
from unnest(
    cast(:segments as text []), cast(:features as text []), cast(:conditions as text []), cast(:hashes as text [])
) as given (segment, features, condition, text_hash)
on conflict (segment) do update
set features = excluded.features, condition = excluded.condition, text_hash = excluded.text_hash
where (stored.features, stored.condition, stored.text_hash)
    is distinct from (excluded.features, excluded.condition, excluded.text_hash);

-- name: choose_together
update segments.by_row
set is_together = chosen.is_together
from (
    select
        by_row.segment,
        coalesce(
            last.text_hash = by_row.text_hash
            and not last.is_held
            and last.error is null
            -- The key of its view.
            and (
                select attname from pg_attribute
                where attrelid = to_regclass('segments.' || by_row.segment) and attnum = 1
            ) = case by_row.features when 'account_features' then 'account_id' else 'user_id' end,
            false
        ) as is_together
    from segments.by_row
    left join lateral (
        select
            text_hash,
            is_held,
            error
        from segments.evaluations
        where segment = by_row.segment
        order by tick_id desc
        limit 1
    ) as last on true
) as chosen
where by_row.segment = chosen.segment and by_row.is_together <> chosen.is_together;

-- name: evaluated_together
select segment from segments.by_row where is_together order by segment;
