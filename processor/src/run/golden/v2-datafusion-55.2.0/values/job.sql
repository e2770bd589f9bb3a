SELECT window.start AS s, median(v) AS middle, percentile_cont(v, 0.25) AS quarter, array_agg(v) AS every_one
FROM (SELECT created_at, TRY_CAST(content AS BIGINT) AS v FROM events)
GROUP BY window(created_at, '60 seconds', '20 seconds')
