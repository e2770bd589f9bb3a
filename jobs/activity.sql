-- Events and authors, all kinds together.
SELECT window.start AS window_start,
       window.end AS window_end,
       count(*) AS events,
       count(DISTINCT pubkey) AS authors
FROM events
GROUP BY window(created_at, '${window}')
