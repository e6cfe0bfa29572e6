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
-- read undoes this statement alone. The server's message may quote what is somebody's own: it is told in other words.
create function upnext.attempt(statement text) returns text language plpgsql as $$
begin
    execute statement;
    return null;
exception when data_exception then
    return case sqlstate
        when '22P02' then 'a value is not of the type that it is read as'
        when '22003' then 'a number is out of range'
        when '22007' then 'a value is no time'
        when '22008' then 'a time is out of range'
        when '22012' then 'division by zero'
        when '22023' then 'a function does not take a value that it was given'
        else 'a value cannot be computed with'
    end || ' (SQLSTATE ' || sqlstate || ')';
end
$$;
