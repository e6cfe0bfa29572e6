-- The loads whose consent events were not applied yet. Loaders work side by side, so a load may be committed after one
-- with a higher id. Each load is applied once, so a deleted suppression stays deleted.
create table journeys.unread_loads (
    load_id bigint primary key
);

create function journeys.note_load() returns trigger language plpgsql as $$
begin
    insert into journeys.unread_loads (load_id) values (new.load_id);
    return null;
end
$$;
-- It waits for loads that are under way, so that the next statement sees them.
create trigger note_load after insert on raw.loads for each row execute function journeys.note_load();

insert into journeys.unread_loads (load_id)
select load_id from raw.loads
where load_id > (select load_id from journeys.consent_read)
on conflict do nothing;
drop table journeys.consent_read;
