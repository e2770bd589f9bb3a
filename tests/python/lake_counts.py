"""Counts what lies in a lake, by DuckDB and by pyarrow, which know nothing of tidegate.

    lake_counts.py LAKE [TOPIC [--compacted]]

LAKE is a local lake root, the directory that holds `topics/`; TOPIC is `nostr-event` unless given. Counts raw objects,
or the compacted files. Prints one JSON object: `rows`, `kinds` (kind -> rows), `pubkeys` (distinct), `created_at` (least
and greatest, microseconds since 1970), `hours` (Hive prefix -> rows), `objects`. Ends with exit code 1 when the two readers disagree, and says where.
"""

import glob
import json
import os
import sys

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds


def by_duckdb(pattern, levels):
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")
    # Types of Hive columns are guessed otherwise: month=07 would be 7.
    db.execute(
        "CREATE VIEW lake AS SELECT * FROM read_parquet(?, hive_partitioning = true, hive_types_autocast = false)"
        .replace("?", "'" + pattern.replace("'", "''") + "'")
    )
    rows, pubkeys, first, last = db.execute(
        "SELECT count(*), count(DISTINCT pubkey), epoch_us(min(created_at)), epoch_us(max(created_at)) FROM lake"
    ).fetchone()
    kinds = db.execute("SELECT kind, count(*) FROM lake GROUP BY kind").fetchall()
    hours = db.execute(f"SELECT {', '.join(levels)}, count(*) FROM lake GROUP BY ALL").fetchall()
    return {
        "rows": rows,
        "kinds": {str(kind): count for kind, count in kinds},
        "pubkeys": pubkeys,
        "created_at": [first, last],
        "hours": {prefix(levels, row): row[-1] for row in hours},
    }


def prefix(levels, row):
    return "/".join(f"{level}={value}" for level, value in zip(levels, row))


def by_pyarrow(root, levels):
    hive = ds.partitioning(pa.schema([(name, pa.string()) for name in levels]), flavor="hive")
    lake = ds.dataset(root, format="parquet", partitioning=hive, exclude_invalid_files=False)
    table = lake.to_table(columns=["kind", "pubkey", "created_at", *levels])
    created = pc.cast(table["created_at"], pa.int64())
    bounds = pc.min_max(created).as_py()
    kinds = pc.value_counts(table["kind"]).to_pylist()
    hours = table.group_by(list(levels)).aggregate([([], "count_all")]).to_pylist()
    return {
        "rows": table.num_rows,
        "kinds": {str(entry["values"]): entry["counts"] for entry in kinds},
        "pubkeys": pc.count_distinct(table["pubkey"]).as_py(),
        "created_at": [bounds["min"], bounds["max"]],
        "hours": {prefix(levels, [row[level] for level in levels]): row["count_all"] for row in hours},
    }


def main():
    if len(sys.argv) not in (2, 3, 4) or sys.argv[3:] not in ([], ["--compacted"]):
        sys.exit(__doc__)
    topic = sys.argv[2] if len(sys.argv) > 2 else "nostr-event"
    if sys.argv[3:]:
        root, levels = os.path.join(sys.argv[1], "curated", topic, "v1"), ["rx_day"]
    else:
        root, levels = os.path.join(sys.argv[1], "topics", topic), ["year", "month", "day", "hour"]
    pattern = os.path.join(root, *(f"{level}=*" for level in levels), "*.parquet")
    objects = glob.glob(pattern)
    if not objects:
        sys.exit(f"no Parquet object lies under {root}")
    duck, arrow = by_duckdb(pattern, levels), by_pyarrow(root, levels)
    differing = [name for name in duck if duck[name] != arrow[name]]
    for name in differing:
        print(f"{name}: DuckDB {duck[name]}, pyarrow {arrow[name]}", file=sys.stderr)
    print(json.dumps({**duck, "objects": len(objects)}, sort_keys=True))
    sys.exit(1 if differing else 0)


main()
