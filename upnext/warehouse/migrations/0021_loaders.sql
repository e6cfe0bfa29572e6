-- The loads whose consent events were not applied yet. Loaders work side by side, so a load may be committed after one
-- with a higher id. Each load is applied once, so a deleted suppression stays deleted.
create table journeys.unread_loads (
    load_id bigint primary key
);
insert into journeys.unread_loads (load_id)
select load_id from raw.loads
where load_id > (select load_id from journeys.consent_read);
drop table journeys.consent_read;

create function journeys.note_load() returns trigger language plpgsql as $$
begin
    insert into journeys.unread_loads (load_id) values (new.load_id);
    return null;
end
$$;
create trigger note_load after insert on raw.loads for each row execute function journeys.note_load();
