-- What a person was drawn for in a journey; null where nobody drew, since another journey had the place. The status of an
-- entry changes on the way (taken over, merged, converted, left), this never: who is compared with whom goes by it.
alter table journeys.entries
    add column arm text check (arm in ('treated', 'held_out')),
    add column is_held_out_globally boolean not null default false;
update journeys.entries
set
    is_held_out_globally = entries.status = 'held_out' and entries.reason = 'global holdout',
    arm = case
        when entries.status = 'held_out' then 'held_out'
        when entries.status <> 'excluded' then 'treated'
        when entries.reason <> 'merged' and not starts_with(entries.reason, 'taken over by ') then null
        when
            upnext.bucket('journey:' || entries.journey, entries.user_id)
            < (definitions.definition ->> 'holdout')::double precision
            then 'held_out'
        else 'treated'
    end
from journeys.definitions
where definitions.journey = entries.journey and definitions.version = entries.version;

drop trigger entries_updated on journeys.entries;
create trigger entries_updated after update on journeys.entries
for each row when (
    (old.user_id, old.version, old.entered_at, old.is_in_both_arms, old.arm, old.is_held_out_globally)
    is distinct from
    (new.user_id, new.version, new.entered_at, new.is_in_both_arms, new.arm, new.is_held_out_globally)
) execute function analytics.note_changed_user();

-- Words that people look at every hour go by p-values that hold at every look.
alter table analytics.segment_results add column p_always_valid double precision;

-- p-values of before were of all traffic splits pooled, and of who was still treated: their minimum is no evidence.
update analytics.experiment_results set p_always_valid = null;
