-- Segments that depend on one row of the features alone, as the newest tick has read them. Those evaluated together are
-- left out of dbt's run; they are the ones whose file (`text_hash`) their last evaluation has seen.
create table segments.by_row (
    segment text primary key,
    features text not null,
    condition text not null,
    text_hash text not null,
    is_together boolean not null default false
);

alter table segments.evaluations add column text_hash text;
