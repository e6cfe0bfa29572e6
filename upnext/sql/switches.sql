-- name: started
select name, since, started_by from upnext.started;

-- name: switch
insert into upnext.switches (name, is_started, changed_at, changed_by)
select :name, :is_started, :at, :by
where (exists (select from upnext.started where name = :name)) is distinct from cast(:is_started as boolean);
