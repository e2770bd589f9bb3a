SELECT s, k, count(DISTINCT v) AS n, sum(DISTINCT v) AS total, count(DISTINCT content) AS texts, count(*) AS c
FROM t GROUP BY s, k
