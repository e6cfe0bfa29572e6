-- name: known_lists
select list, hash from segments.list_files;

-- name: forget_lists
with files as (
    delete from segments.list_files where list = any(cast(:lists as text []))
)

delete from segments.lists where list = any(cast(:lists as text []));

-- name: keep_list_file
insert into segments.list_files (list, hash) values (:list, :hash);

-- name: forget_borrowed
drop table if exists pg_temp.lists;

-- name: create_borrowed
create temporary table lists (list text not null, id text not null);
