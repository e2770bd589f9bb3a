SELECT window.start AS s, k, count(*) AS n, count(v) AS c, min(v) AS least, max(v) AS most, sum(v) AS total, avg(v) AS mean,
  bool_and(v > 3) AS every_one, bool_or(v > 3) AS any_one, bit_and(v) AS bits_and, bit_or(v) AS bits_or, bit_xor(v) AS bits_xor,
  approx_count_distinct(v) AS about, approx_count_distinct(content, 0.01) AS about_text
FROM (SELECT created_at, CASE WHEN kind < 3 THEN kind END AS k, TRY_CAST(content AS BIGINT) AS v, content FROM events)
GROUP BY window(created_at, '60 seconds', '20 seconds'), k
