-- The definition of each column of a table of features, as the table has it, and with the name '' that of its events.
-- A tick with other definitions computes only the columns that are new or have changed.
create table features.columns (
    model text not null,
    name text not null,
    definition text not null,
    primary key (model, name)
);
