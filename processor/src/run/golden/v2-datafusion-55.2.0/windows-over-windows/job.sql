SELECT window.start AS s, sum(n) AS n, count(*) AS windows
FROM (SELECT window_time(window) AS t, count(*) AS n FROM events GROUP BY window(created_at, '60 seconds', '20 seconds'))
GROUP BY window(t, '60 seconds')
