-- upnext.has_sequence takes other arguments now.
drop function if exists upnext.has_sequence(text [], timestamptz [], text [], interval);
