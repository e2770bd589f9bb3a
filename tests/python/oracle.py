"""Answers of windowed jobs, computed by DuckDB from the definitions in jobs/README.md, sharing no code with tidegate.

    oracle.py JOB EVENTS SIZE_SECS [SLIDE_SECS]

JOB is `kinds`, `activity` or `dvm`; EVENTS is a JSONL file of events (plain or gzip), each believed and distinct.
Prints one JSON object a row to stdout: `window_start` and `window_end` in whole seconds since 1970, then the job's
columns. Windows are [start, end), aligned to 1970; without a slide they tumble.
"""

import gzip
import json
import sys

import duckdb
import pyarrow as pa

# Ranges of NIP-90 and the kinds inside them that other NIPs use.
DVM_EXCLUDED = (5666, 5969, 6666, 6969)

JOBS = {
    "kinds": """
        SELECT window_start, window_start + $size AS window_end, kind, count(*) AS events,
               count(DISTINCT pubkey) AS authors
        FROM windowed GROUP BY window_start, kind ORDER BY window_start, kind
    """,
    "activity": """
        SELECT window_start, window_start + $size AS window_end, count(*) AS events, count(DISTINCT pubkey) AS authors
        FROM windowed GROUP BY window_start ORDER BY window_start
    """,
    # A result answers under the number of its request; feedback names no job, so it has a row of its own.
    "dvm": f"""
        WITH jobs AS (
            SELECT window_start, pubkey,
                   CASE WHEN kind BETWEEN 5000 AND 5999 THEN 'request'
                        WHEN kind BETWEEN 6000 AND 6999 THEN 'result'
                        ELSE 'feedback' END AS part,
                   CASE WHEN kind BETWEEN 6000 AND 6999 THEN kind - 1000 ELSE kind END AS job_kind
            FROM windowed
            WHERE kind BETWEEN 5000 AND 7000 AND kind NOT IN {DVM_EXCLUDED}
        )
        SELECT window_start, window_start + $size AS window_end, job_kind,
               count(*) FILTER (part = 'request') AS requests,
               count(*) FILTER (part = 'result') AS results,
               count(*) FILTER (part = 'feedback') AS feedback,
               count(DISTINCT pubkey) FILTER (part = 'request') AS customers,
               count(DISTINCT pubkey) FILTER (part <> 'request') AS dvms
        FROM jobs GROUP BY window_start, job_kind ORDER BY window_start, job_kind
    """,
}


def events(path):
    """Time, kind and author of each line, read by Python: DuckDB's JSON reader guesses types."""
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    with (gzip.open if packed else open)(path, "rt", encoding="utf-8", newline="\n") as file:
        for line in file:
            event = json.loads(line)
            yield event["created_at"], event["kind"], event["pubkey"]


def main():
    if len(sys.argv) not in (4, 5) or sys.argv[1] not in JOBS:
        sys.exit(__doc__)
    job, path, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
    slide = int(sys.argv[4]) if len(sys.argv) == 5 else size
    if slide <= 0 or slide > size:
        sys.exit(f"slide {slide} must be more than 0 and at most the size, {size}")
    created, kinds, pubkeys = zip(*events(path))
    table = pa.table({"created_at": pa.array(created, pa.int64()), "kind": pa.array(kinds, pa.int64()), "pubkey": pubkeys})
    db = duckdb.connect()
    db.register("events", table)
    # The last start at or before the event, floored also below zero; then back by slides while the window still holds it.
    db.execute(f"""
        CREATE TABLE windowed AS
        SELECT last - step * {slide} AS window_start, kind, pubkey
        FROM (SELECT created_at, kind, pubkey,
                     created_at - ((created_at % {slide}) + {slide}) % {slide} AS last FROM events) AS placed,
             range({size // slide + 1}) AS steps(step)
        WHERE last - step * {slide} + {size} > created_at
    """)
    rows = db.execute(JOBS[job], {"size": size})
    names = [column[0] for column in rows.description]
    for row in rows.fetchall():
        print(json.dumps(dict(zip(names, row))))


main()
