-- How many are one condition short of a segment.

-- name: count_rows
select cast(greatest(reltuples, 0) as bigint) from pg_class where oid = to_regclass(:table);
