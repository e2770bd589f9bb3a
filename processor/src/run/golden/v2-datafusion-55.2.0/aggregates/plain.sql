SELECT s, k, count(*) AS n, count(v) AS c, min(v) AS least, max(v) AS most, sum(v) AS total, avg(v) AS mean,
  bool_and(v > 3) AS every_one, bool_or(v > 3) AS any_one, bit_and(v) AS bits_and, bit_or(v) AS bits_or, bit_xor(v) AS bits_xor,
  count(DISTINCT v) AS about, count(DISTINCT content) AS about_text
FROM t GROUP BY s, k
