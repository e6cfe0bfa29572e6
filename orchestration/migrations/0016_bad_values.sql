-- A JSON boolean, or a text or a number that is written like one; null for anything else.
create function upnext.boolean(value jsonb) returns boolean
language sql immutable parallel safe
return case
    when lower(value #>> '{}') in ('true', 't', 'yes', 'y', '1') then true
    when lower(value #>> '{}') in ('false', 'f', 'no', 'n', '0') then false
end;

-- An instant that a text states in ISO 8601, in UTC where it names no zone; null for anything else.
create function upnext.instant(value jsonb) returns timestamptz
language plpgsql stable parallel safe as $$
begin
    if value #>> '{}' ~ '^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?( ?(Z|[+-]\d{2}(:?\d{2})?))?)?$' then
        return (value #>> '{}')::timestamptz;
    end if;
    return null;
exception when data_exception then
    return null;
end
$$;

-- Why a segment could not be looked at in a tick; null where it was. Its members stay as they are.
alter table segments.evaluations add column error text;

-- Run a statement, and return what is wrong with the values that it met; null where nothing is. A value that cannot be
-- read undoes this statement alone. What a value is may be anybody's own: only what comes before it is told.
create function upnext.attempt(statement text) returns text language plpgsql as $$
begin
    execute statement;
    return null;
exception when data_exception then
    return split_part(sqlerrm, ':', 1);
end
$$;
