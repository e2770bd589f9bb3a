SELECT s, var(f) AS v1, var_pop(f) AS v2, stddev(f) AS d1, stddev_pop(f) AS d2, corr(f, v) AS c1,
  covar_pop(f, v) AS c2, covar_samp(f, v) AS c3, regr_avgx(f, v) AS r1, regr_avgy(f, v) AS r2, regr_count(f, v) AS r3,
  regr_intercept(f, v) AS r4, regr_r2(f, v) AS r5, regr_slope(f, v) AS r6, regr_sxx(f, v) AS r7, regr_sxy(f, v) AS r8,
  regr_syy(f, v) AS r9, sum(f) AS total, avg(f) FILTER (WHERE v > 3) AS mean
FROM t GROUP BY s
