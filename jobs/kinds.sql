-- Events and authors of every kind.
SELECT window.start AS window_start,
       window.end AS window_end,
       kind,
       count(*) AS events,
       count(DISTINCT pubkey) AS authors
FROM events
GROUP BY window(created_at, '${window}'), kind
