-- name: known_lists
select list, hash from segments.list_files;

-- name: forget_lists
with files as (
    delete from segments.list_files where list = any(cast(:lists as text []))
)

delete from segments.lists where list = any(cast(:lists as text []));

-- name: keep_list_file
insert into segments.list_files (list, hash) values (:list, :hash);
