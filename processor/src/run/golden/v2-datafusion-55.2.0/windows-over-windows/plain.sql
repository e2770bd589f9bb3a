SELECT date_bin(INTERVAL '60 seconds', s + INTERVAL '59999999 microseconds') AS s, sum(n) AS n, count(*) AS windows
FROM (SELECT s, count(*) AS n FROM t GROUP BY s) GROUP BY 1
