SELECT s, nullif(content, '') AS text, min(nullif(content, '')) AS first_text, max(at) AS latest,
  sum(CAST(v AS DECIMAL(20, 2))) AS total, avg(CAST(v AS DECIMAL(20, 2))) AS mean,
  max(X'00ff' || CAST(nullif(content, '') AS BYTEA)) AS bytes, min(f) AS least
FROM t GROUP BY s, nullif(content, '')
