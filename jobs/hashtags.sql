-- The ten most frequent hashtags: values of `t` tags as written, each once an event.
CREATE VIEW tagged AS
SELECT created_at, explode(array_distinct(tag_values(tags, 't'))) AS tag
FROM events;

SELECT window.start AS window_start,
       window.end AS window_end,
       row_number() OVER (PARTITION BY window ORDER BY count(*) DESC, tag) AS rank,
       tag,
       count(*) AS events
FROM tagged
GROUP BY window(created_at, '${window}'), tag
QUALIFY row_number() OVER (PARTITION BY window ORDER BY count(*) DESC, tag) <= 10
