-- The ten events with the most reactions (NIP-25): the target of a kind 7 is its last `e` tag that has a value.
CREATE VIEW reacted AS
SELECT created_at, array_element(tag_values(tags, 'e'), -1) AS event_id
FROM events
WHERE kind = 7;

SELECT window.start AS window_start,
       window.end AS window_end,
       row_number() OVER (PARTITION BY window ORDER BY count(*) DESC, event_id) AS rank,
       event_id,
       count(*) AS reactions
FROM reacted
WHERE event_id IS NOT NULL
GROUP BY window(created_at, '${window}'), event_id
QUALIFY row_number() OVER (PARTITION BY window ORDER BY count(*) DESC, event_id) <= 10
