SELECT w.start AS s, kind, content
FROM (SELECT window(created_at, '60 seconds', '20 seconds') AS w, kind, content FROM events WHERE kind <> 2)
