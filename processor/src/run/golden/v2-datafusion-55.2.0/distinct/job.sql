SELECT window.start AS s, k, count(DISTINCT v) AS n, sum(DISTINCT v) AS total, count(DISTINCT content) AS texts, count(*) AS c
FROM (SELECT created_at, CASE WHEN kind < 3 THEN kind END AS k, TRY_CAST(content AS BIGINT) AS v, content FROM events)
GROUP BY window(created_at, '60 seconds', '20 seconds'), k
