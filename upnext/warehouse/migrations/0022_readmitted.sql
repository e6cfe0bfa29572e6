-- Since when somebody who was erased and came back is loaded and mailed again. What happened before is still not loaded.
alter table upnext.erased add column readmitted_at timestamptz;
