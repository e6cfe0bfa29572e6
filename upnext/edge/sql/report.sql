-- The report as the newest analysis left it.

-- name: report
select hash, page from analytics.report;
