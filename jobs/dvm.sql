-- Data vending machines (NIP-90): requests, results under the kind they answer, and feedback in a row of its own.
-- The registry of kinds is the data below; edit a copy of this file to count others.
CREATE VIEW roles AS
SELECT * FROM (VALUES
    ('request', 5000, 5999, 0),
    ('result', 6000, 6999, 1000),
    ('feedback', 7000, 7000, 0)
) AS roles (role, first_kind, last_kind, minus);

CREATE VIEW messages AS
SELECT created_at, pubkey, role, kind - minus AS job_kind
FROM events JOIN roles ON kind BETWEEN first_kind AND last_kind
-- Kinds inside these ranges that other NIPs use for something else.
WHERE kind NOT IN (5666, 5969, 6666, 6969);

SELECT window.start AS window_start,
       window.end AS window_end,
       job_kind,
       count(*) FILTER (WHERE role = 'request') AS requests,
       count(*) FILTER (WHERE role = 'result') AS results,
       count(*) FILTER (WHERE role = 'feedback') AS feedback,
       count(DISTINCT pubkey) FILTER (WHERE role = 'request') AS customers,
       count(DISTINCT pubkey) FILTER (WHERE role <> 'request') AS dvms
FROM messages
GROUP BY window(created_at, '${window}'), job_kind
