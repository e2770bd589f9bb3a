-- What each relay delivered: events, first deliveries and copies, and how late its live first deliveries came.
CREATE VIEW deliveries AS
SELECT received_at, relay, id, first,
       -- Only a live first delivery says it: history is late by nature, and of a copy no date is known.
       CASE WHEN first AND phase = 'live' THEN CAST(received_at - created_at AS BIGINT) END AS lateness
FROM sightings;

SELECT window.start AS window_start,
       window.end AS window_end,
       relay,
       count(DISTINCT id) AS events,
       count(*) FILTER (WHERE first) AS first_deliveries,
       count(*) FILTER (WHERE NOT first) AS copies,
       -- Microseconds to milliseconds, in whole numbers.
       sum(lateness) / count(lateness) / 1000 AS lateness_avg_ms,
       max(lateness) / 1000 AS lateness_max_ms
FROM deliveries
GROUP BY window(received_at, '${window}'), relay
