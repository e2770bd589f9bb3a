SELECT window.start AS s, text, min(text) AS first_text, max(at) AS latest, sum(d) AS total, avg(d) AS mean,
  max(X'00ff' || CAST(text AS BYTEA)) AS bytes, min(f) AS least
FROM (SELECT created_at, created_at AS at, nullif(content, '') AS text, CAST(TRY_CAST(content AS BIGINT) AS DECIMAL(20, 2)) AS d,
  TRY_CAST(content AS DOUBLE) * TRY_CAST(content AS DOUBLE) / 4 AS f FROM events)
GROUP BY window(created_at, '60 seconds', '20 seconds'), text
