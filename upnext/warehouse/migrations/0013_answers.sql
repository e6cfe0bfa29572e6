-- The fields of a receiver's answer that its endpoint keeps.
alter table journeys.messages add column answer jsonb;
