"""Makes the input of the cases beside it and computes what the built-in jobs must give, by definition alone.

    python3 tests/cases/answers.py

Every event is put into every window that covers it, one by one; the definitions are those of jobs/README.md. Nothing is
shared with tidegate. Events are not signed: `tidegate test` does not look at signatures.
"""

import collections
import datetime
import fractions
import hashlib
import json
import pathlib
import random
import sys

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "python"))

import market_frames  # noqa: E402
import market_jobs  # noqa: E402

SIZE_SECS, SLIDE_SECS = 3600, 1200
START = 1704067200  # 2024-01-01T00:00:00Z
DVM_EXCLUDED = (5666, 5969, 6666, 6969)
# The kinds of the jobs, their neighbours, and those that a job leaves out.
KINDS = [0, 1, 1, 1, 7, 7, 7, 7, 4999, 5000, 5050, 5999, 5666, 6000, 6050, 6969, 7000, 7001, 65535]


def events():
    """140 events over five hours with an hour of silence, up to four minutes out of order."""
    chance = random.Random(20240101)
    authors = [hashlib.sha256(b"author %d" % n).hexdigest() for n in range(7)]
    made = []
    for number in range(140):
        at = START + number * 5 * 3600 // 140 - chance.randrange(240)
        if START + 2 * 3600 <= at < START + 3 * 3600 + 1800:
            continue
        kind = chance.choice(KINDS)
        tags = [["t", "tag%d" % min(chance.randrange(16), chance.randrange(16))] for _ in range(chance.randrange(5))]
        if kind == 7:
            target = chance.choice(made[:24])["id"] if made else None
            tags += [["e", "root"], ["e", target or "none"], ["e"]][chance.randrange(2):]
        if chance.random() < 0.2:
            tags += [["t"], ["t", "", "x"], []]
        made.append({
            "id": hashlib.sha256(b"event %d" % number).hexdigest(),
            "pubkey": chance.choice(authors),
            "created_at": at,
            "kind": kind,
            "tags": tags,
            "content": "event %d" % number,
            "sig": hashlib.sha512(b"event %d" % number).hexdigest(),
        })
    return made


def sightings(made):
    """Each event first from one relay, then by chance from others or again; in the order of receipt but for a minute."""
    chance = random.Random(20240102)
    relays = ["wss://relay%d.example" % n for n in range(4)]
    given = []
    for event in made:
        first = event["created_at"] * 1000 + chance.randrange(-3000, 90000)
        for copy in range(chance.choice([1, 1, 2, 3, 5])):
            given.append({
                "id": event["id"],
                "relay": chance.choice(relays),
                "received_at": first + (copy and chance.randrange(40000)),
                "phase": "live" if chance.random() < 0.7 else "backfill",
                "first": copy == 0,
            } | ({"created_at": event["created_at"]} if copy == 0 else {}))
    return sorted(given, key=lambda one: one["received_at"] + chance.randrange(60000))


def windows(rows, time):
    """Rows by the start of each window that covers them; `time` gives the second of a row."""
    found = collections.defaultdict(list)
    for row in rows:
        start = time(row) // SLIDE_SECS * SLIDE_SECS
        while start + SIZE_SECS > time(row):
            found[start].append(row)
            start -= SLIDE_SECS
    return sorted(found.items())


def authors_of(rows):
    return len({event["pubkey"] for event in rows})


def values(event, name):
    return [tag[1] for tag in event["tags"] if len(tag) > 1 and tag[0] == name]


def by(rows, key):
    groups = collections.defaultdict(list)
    for event in rows:
        groups[key(event)].append(event)
    return sorted(groups.items())


def top(counted, what, number):
    ranked = sorted(counted.items(), key=lambda pair: (-pair[1], pair[0].encode()))[:10]
    return [{"rank": rank, what: value, number: count} for rank, (value, count) in enumerate(ranked, 1)]


def activity(rows):
    return [{"events": len(rows), "authors": authors_of(rows)}]


def kinds(rows):
    return [{"kind": kind, "events": len(of), "authors": authors_of(of)} for kind, of in by(rows, lambda e: e["kind"])]


def hashtags(rows):
    return top(collections.Counter(tag for event in rows for tag in set(values(event, "t"))), "tag", "events")


def reactions(rows):
    targets = [values(event, "e")[-1:] for event in rows if event["kind"] == 7]
    return top(collections.Counter(target for last in targets for target in last), "event_id", "reactions")


def dvm(rows):
    jobs = [event for event in rows if 5000 <= event["kind"] <= 7000 and event["kind"] not in DVM_EXCLUDED]
    answer = []
    for kind, of in by(jobs, lambda e: e["kind"] - 1000 if 6000 <= e["kind"] < 7000 else e["kind"]):
        requests = [event for event in of if event["kind"] < 6000]
        others = [event for event in of if event["kind"] >= 6000]
        answer.append({
            "job_kind": kind,
            "requests": len(requests),
            "results": sum(event["kind"] < 7000 for event in others),
            "feedback": sum(event["kind"] == 7000 for event in others),
            "customers": authors_of(requests),
            "dvms": authors_of(others),
        })
    return answer


def relays(rows):
    answer = []
    for relay, of in by(rows, lambda s: s["relay"]):
        late = [s["received_at"] - s["created_at"] * 1000 for s in of if s["first"] and s["phase"] == "live"]
        answer.append({
            "relay": relay,
            "events": len({s["id"] for s in of}),
            "first_deliveries": sum(s["first"] for s in of),
            "copies": sum(not s["first"] for s in of),
            # Towards zero, as SQL divides.
            "lateness_avg_ms": int(fractions.Fraction(sum(late), len(late))) if late else None,
            "lateness_max_ms": max(late) if late else None,
        })
    return answer


def rfc3339(secs):
    return datetime.datetime.fromtimestamp(secs, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def write(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main():
    made = events()
    write(HERE / "_inputs" / "events.jsonl", made)
    given = sightings(made)
    write(HERE / "_inputs" / "sightings.jsonl", given)
    of_events = windows(made, lambda event: event["created_at"])
    of_sightings = windows(given, lambda sighting: sighting["received_at"] // 1000)
    for job in (activity, kinds, hashtags, reactions, dvm, relays):
        rows = []
        for start, of in of_sightings if job is relays else of_events:
            bounds = {"window_start": rfc3339(start), "window_end": rfc3339(start + SIZE_SECS)}
            rows += [bounds | row for row in job(of)]
        write(HERE / job.__name__ / "expected.jsonl", rows)
    market_cases("market", market_frames.frames(96))
    market_cases("worked", list(market_frames.worked()))
    market_cases("fifty_assets", market_frames.fifty_assets())


# Sales, volume in ETH and USD, floor and average in USD, lowest listing, unpriced sales: worked out by hand.
NOTHING = "0.000000000000000000"
WORKED = [
    (0, NOTHING, NOTHING, None, None, "6.435800000000000000", 0),
    (1, "0.005000000000000000", "6.435800000000000000", "6.435800000000000000", "6.435800000000000000", None, 0),
    (1, "0.617283945500000000", "1234.691347789100000000", "617.345673894550000000", "617.345673894550000000", None, 0),
    (1, "1000000000000." + 18 * "0", "1287160000000000." + 18 * "0", "1287160000000000." + 18 * "0",
     "1287160000000000." + 18 * "0", None, 0),
    # 1287.16 / 2^70 is 0.00000000000000000109…
    (1, "1.000000000000000000", "1287.160000000000000000", "0.000000000000000001", "0.000000000000000001", None, 0),
    (1, NOTHING, NOTHING, None, None, None, 1),
    (1, "1.000000000000000000", "1287.160000000000000000", "1287.160000000000000000", "1287.160000000000000000", None, 0),
]


def market_cases(name, made):
    """Every job of the market over an hour; over hours that slide, and over all time, some."""
    write(HERE / "_inputs" / (name + ".jsonl"), made)
    events = list(market_jobs.read(json.dumps(one) for one in made))
    assert len(events) == len(made), "an event is there twice"
    wide = list(market_jobs.WIDE)
    cases = [(job, job, 3600, 1200 if job in wide else 3600) for job in [*wide, "global", "collections", "all"]]
    cases += [(job + "_all_time", job, None, None) for job in [*wide, "all"]]
    if name == "worked":
        cases = [("worked", "collection_totals", 3600, 3600)]
        rows = [row for _, row in market_jobs.answer("collection_totals", events, 3600, 3600, market_jobs.options())]
        worked = [
            (row["total_sales_count"], row["total_eth_volume"], row["total_usd_volume"], row["floor_assets_usd_price"],
             row["avg_assets_usd_price"], row["floor_listings_usd_price"], row["unpriced_sales"])
            for row in rows
        ]
        assert worked == WORKED, worked
    if name == "fifty_assets":
        cases = [(name, "collections", 3600, 3600), (name + "_all_time", "collections", None, None)]
    for folder, job, size, slide in cases:
        outputs = collections.defaultdict(list)
        for output, row in market_jobs.answer(job, events, size, slide, market_jobs.options()):
            outputs[".%s" % output if job == "all" else ""].append(row)
        for output, rows in outputs.items():
            write(HERE / folder / ("expected%s.jsonl" % output), rows)
        slides = 'slide = "%d minutes"\n' % (slide // 60) if slide != size else ""
        window = "1 hour" if size else "all time"
        (HERE / folder / "case.toml").write_text(
            'job = "../../../jobs/%s.sql"\nwindow = "%s"\n%s\n[[table]]\nname = "market"\nfile = "../_inputs/%s.jsonl"\n'
            % (job, window, slides, name), encoding="utf-8")


if __name__ == "__main__":
    main()
