SELECT s, median(v) AS middle, percentile_cont(v, 0.25) AS quarter,
  array_sort(array_agg(v), 'ASC', 'NULLS FIRST') AS every_one
FROM t GROUP BY s
