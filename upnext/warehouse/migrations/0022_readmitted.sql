-- Since when somebody who was erased and came back is loaded and mailed again: what happened before still is not.
alter table upnext.erased add column readmitted_at timestamptz;
