-- From 0.1, which had numbered migrations of its own, to the baseline of 0.2. dbt's views over renamed tables are
-- dropped; the next build re-creates them.
drop view if exists analytics.touched_exposures, analytics.touched_outcomes, analytics.touched_moments cascade;

alter table features.touched rename to changed_keys;
alter index features.touched_by_tick rename to changed_keys_by_tick;

alter table segments.moved_users rename to merged_users;
alter table segments.merged_users rename constraint moved_users_pkey to merged_users_pkey;
alter table segments.merged_users rename constraint moved_users_tick_id_fkey to merged_users_tick_id_fkey;

alter table segments.consumers rename to consumer_offsets;
alter table segments.consumer_offsets rename constraint consumers_pkey to consumer_offsets_pkey;

alter table experiences.acted_on set schema segments;
alter table segments.acted_on rename to seen_definitions;
alter table segments.seen_definitions rename column experience to name;
alter table segments.seen_definitions rename column state to hash;
alter table segments.seen_definitions rename constraint acted_on_pkey to seen_definitions_pkey;

alter table journeys.endpoints rename to disabled_endpoints;
alter table journeys.disabled_endpoints rename constraint endpoints_pkey to disabled_endpoints_pkey;

alter table analytics.touched_users rename to stale_users;
alter table analytics.stale_users rename constraint touched_users_pkey to stale_users_pkey;
alter table analytics.touched_days rename to stale_days;
alter table analytics.stale_days rename constraint touched_days_pkey to stale_days_pkey;
alter table analytics.changed_users rename to invalidated_users;

-- dbt keeps the position of the users of experiments now, and recomputes all of them once.
delete from segments.consumer_offsets where consumer = 'analytics.experiment_users';

-- Their triggers are dropped with them, and are re-created under the current names.
drop function analytics.note_changed_users, analytics.note_changed_user, analytics.note_late_assignments cascade;

delete from upnext.migrations;
create table upnext.recreated (
    file text primary key,
    hash text not null
);
