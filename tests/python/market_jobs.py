"""Computes what the market's jobs must give, from raw frames and by definition alone, in whole numbers.

    python3 tests/python/market_jobs.py JOB FRAMES.jsonl SIZE_SECONDS|all [SLIDE_SECONDS] [--top N] [--top-assets N]

Prints the rows of JOB as JSON lines; of `all`, each with the key `output`, and of `wide`, which is all jobs with a column a
metric, with the key `job`. Frames are read here anew (forms, prices,
duplicates); nothing is shared with tidegate. Definitions are those of jobs/README.md. An amount is an integer of
10^-36; a price per unit and an average are divided exactly and rounded once.
"""

import argparse
import collections
import datetime
import decimal
import json
import sys

PLACES = 10**36
# An event with an amount from here on is refused: docs/market.md.
AMOUNT_MAX = 10**30 * PLACES
# A volume from here on has no average.
LIMIT = 10**36 * PLACES
ZERO = "0x" + 40 * "0"
ORDER_BASIS_FROM = 1767225600 * 10**6  # 2026-01-01T00:00:00Z
OFFER_TYPES = {"item_listed", "item_received_bid", "item_received_offer", "collection_offer", "trait_offer", "item_cancelled"}
CONTROL = ("phx_", "heartbeat", "presence")
NAMES = {60: "1_minute", 30: "30_seconds", 300: "5_minutes", 1800: "30_minutes", 3600: "1_hour", 43200: "12_hours",
         86400: "1_day", 604800: "7_days", 1209600: "14_days", None: "all_time"}


def half_away(numerator, denominator):
    """The quotient of two integers that are not negative, rounded half up."""
    return (2 * numerator + denominator) // (2 * denominator)


def micros(text):
    """RFC 3339 to microseconds; further digits are cut, and without a zone it is UTC."""
    if not isinstance(text, str):
        return None
    body, zone = text, "+00:00"
    if body.endswith(("Z", "z")):
        body = body[:-1]
    elif body[-6:-5] in ("+", "-"):
        body, zone = body[:-6], body[-6:]
    whole, _, digits = body.partition(".")
    at = datetime.datetime.fromisoformat(whole + zone)
    seconds = (at - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)) // datetime.timedelta(seconds=1)
    return seconds * 10**6 + int((digits + "000000")[:6])


def rfc3339(at):
    if at is None:
        return None
    time = datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=at)
    text = time.strftime("%Y-%m-%dT%H:%M:%S")
    rest = at % 10**6
    if rest:
        text += ".%03d" % (rest // 1000) if rest % 1000 == 0 else ".%06d" % rest
    return text + "Z"


def unframed(message):
    """(type, sent_at, payload) of a market event in any of its forms; none for control frames."""
    if isinstance(message, list):
        if len(message) != 5:
            return None
        message = {"event": message[3], "payload": message[4]}
    if "event" in message and "topic" in message or "event" in message and "event_type" not in message:
        if str(message["event"]).startswith(CONTROL):
            return None
        message = message["payload"]
    if not isinstance(message, dict) or "event_type" not in message:
        return None
    return message["event_type"], message.get("sent_at"), message["payload"]


def at(value, *path):
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def text(value):
    return value if isinstance(value, str) else None


def rate(value):
    """A rate as a fraction of integers; none where it is absent, zero or 10^20 and more."""
    if not isinstance(value, str) or not value[:1].isdigit():
        return None
    sign, digits, exponent = decimal.Decimal(value).as_tuple()
    number = int("".join(map(str, digits)))
    worth = (number * 10**exponent, 1) if exponent >= 0 else (number, 10**-exponent)
    return None if number == 0 or sign or worth[0] >= 10**20 * worth[1] else worth


def nft(payload):
    named = text(at(payload, "item", "nft_id"))
    if named is None or named.count("/") != 1:
        return named
    consideration = at(payload, "protocol_data", "parameters", "consideration")
    first = consideration[0] if consideration else {}
    token = first.get("identifierOrCriteria")
    exact = isinstance(token, str) or (isinstance(token, int) and not isinstance(token, bool))
    return "%s/%s" % (named, token) if first.get("itemType") in (2, 3) and exact else named


def read(lines):
    """Events, each once."""
    seen = set()
    for line in lines:
        found = unframed(json.loads(line, parse_float=decimal.Decimal))
        if found is None:
            continue
        kind, sent, payload = found
        stamp, order, hashed = payload.get("event_timestamp"), payload.get("order_hash"), at(payload, "transaction", "hash")
        sides = [at(payload, side, "address") for side in ("from_account", "to_account")]
        if stamp is not None and (order is not None or hashed is not None):
            key = (kind, order, hashed, text(at(payload, "item", "nft_id")), stamp, *sides, str(payload.get("quantity")))
        else:
            key = (kind, json.dumps(payload, default=str))
        if key in seen:
            continue
        seen.add(key)
        one = event(kind, sent, payload)
        if one["quantity"] < 10**57 and max(one[unit] or 0 for unit in ("tokens", "eth", "usd")) < AMOUNT_MAX:
            yield one


def event(kind, sent, payload):
    time = micros(payload.get("event_timestamp"))
    if time is None:
        time = micros(sent)
    quantity = payload.get("quantity")
    one = {
        "kind": kind,
        "time": time,
        "collection": text(at(payload, "collection", "slug")),
        "nft": nft(payload),
        "name": text(at(payload, "item", "metadata", "name")),
        "url": text(at(payload, "item", "permalink")),
        "image": text(at(payload, "item", "metadata", "image_url")),
        "quantity": 1 if quantity is None else int(quantity),
        "tokens": None,
        "eth": None,
        "usd": None,
    }
    price = payload.get("sale_price")
    price = payload.get("base_price") if price is None else price
    decimals = at(payload, "payment_token", "decimals")
    if price is None:
        return one
    if decimals is not None:
        one["tokens"] = half_away(int(price) * PLACES, 10 ** int(decimals))
    for unit in ("eth", "usd"):
        of = rate(at(payload, "payment_token", unit + "_price"))
        if of is None:
            continue
        if kind in OFFER_TYPES and time >= ORDER_BASIS_FROM:
            one[unit] = half_away(of[0] * PLACES, of[1])
        elif decimals is not None:
            one[unit] = half_away(int(price) * of[0] * PLACES, 10 ** int(decimals) * of[1])
    return one


def windows(events, size, slide):
    """Events by the (start, end) of each window that covers them, in microseconds."""
    found = collections.defaultdict(list)
    for one in events:
        if size is None:
            found[None, None].append(one)
            continue
        start = one["time"] // (slide * 10**6) * slide * 10**6
        while start + size * 10**6 > one["time"]:
            found[start, start + size * 10**6].append(one)
            start -= slide * 10**6
    return found


class Tally:
    """What is counted of a group of events."""

    def __init__(self, events):
        of = lambda *kinds: [one for one in events if one["kind"] in kinds]
        self.latest = max(one["time"] for one in events)
        self.events = len(events)
        moved, sold, listed = of("item_transferred"), of("item_sold"), of("item_listed")
        self.transfers, self.items = len(moved), sum(one["quantity"] for one in moved)
        self.sales, self.assets = len(sold), sum(one["quantity"] for one in sold)
        self.unpriced = sum(one["eth"] is None or one["usd"] is None for one in sold)
        self.distinct_assets = len({one["nft"] for one in sold} - {None})
        self.distinct_collections = len({one["collection"] for one in sold} - {None})
        self.listings, self.cancellations = len(listed), len(of("item_cancelled"))
        self.bids = len(of("item_received_bid", "item_received_offer"))
        self.offers = len(of("collection_offer", "trait_offer"))
        self.volume, self.average, self.floor, self.listing_floor = {}, {}, {}, {}
        for unit in ("eth", "usd"):
            priced = [one for one in sold if one[unit] is not None]
            self.volume[unit] = sum(one[unit] for one in priced)
            units = sum(one["quantity"] for one in priced)
            self.average[unit] = (self.volume[unit], units) if units and self.volume[unit] < LIMIT else None
            self.floor[unit], self.listing_floor[unit] = lowest(priced, unit), lowest(listed, unit)
        best = lambda name: max((one[name] for one in events if one[name] is not None), key=str.encode, default=None)
        self.name, self.url, self.image = best("name"), best("url"), best("image")


def lowest(events, unit):
    """The lowest price of one asset as a fraction; none where none is priced."""
    priced = [one for one in events if one[unit] is not None]
    prices = [(one[unit], one["quantity"]) for one in priced if one["quantity"] > 0]
    least = None
    for price in prices:
        if least is None or price[0] * least[1] < least[0] * price[1]:
            least = price
    return least


def places(fraction):
    """Of 10^-36, as text with 18 places, half away from zero."""
    if fraction is None:
        return None
    numerator, denominator = fraction if isinstance(fraction, tuple) else (fraction, 1)
    scaled = half_away(numerator, denominator * 10**18)
    return "%d.%018d" % (scaled // 10**18, scaled % 10**18)


def groups(events, key):
    found = collections.defaultdict(list)
    for one in events:
        found[key(one)].append(one)
    return found


def ranked(tallies, by, number):
    """(rank, name, tally) of the first: more first, then the name by its bytes."""
    order = sorted(tallies.items(), key=lambda pair: (-by(pair[1]), pair[0].encode()))
    return [(rank, name, tally) for rank, (name, tally) in enumerate(order[:number], 1)]


class Window:
    """The tallies of one window."""

    def __init__(self, events, options, all_time):
        self.total = Tally(events)
        by_collection = groups(events, lambda one: one["collection"])
        self.collections = {name: Tally(of) for name, of in by_collection.items()}
        named = {name: tally for name, tally in self.collections.items() if name is not None}
        sold = {name: tally for name, tally in named.items() if tally.sales}
        moved = {name: tally for name, tally in named.items() if tally.transfers}
        self.top_by_sales = ranked(sold, lambda tally: tally.volume["usd"], options.top)
        self.top_by_transfers = ranked(moved, lambda tally: tally.transfers, options.top)
        self.assets_by_sales, self.assets_by_transfers = {}, {}
        for collection, of in by_collection.items():
            traded = [one for one in of if one["kind"] in ("item_sold", "item_transferred") and one["nft"] is not None]
            assets = {name: Tally(of) for name, of in groups(traded, lambda one: one["nft"]).items()}
            sold = {name: tally for name, tally in assets.items() if tally.sales}
            moved = {name: tally for name, tally in assets.items() if tally.transfers}
            first = options.top_assets_all_time if all_time else options.top_assets
            self.assets_by_sales[collection] = ranked(sold, lambda tally: tally.volume["usd"], first)
            every = options.top_assets_all_time if all_time else None
            self.assets_by_transfers[collection] = ranked(moved, lambda tally: tally.transfers, every)


def market_totals(window):
    t = window.total
    yield {
        "latest": rfc3339(t.latest),
        "total_number_of_events": t.events,
        "total_transfers": t.transfers,
        "total_items_transferred": str(t.items),
        "total_sales": t.sales,
        "unpriced_sales": t.unpriced,
        "total_assets_sold": str(t.assets),
        "total_eth_volume": places(t.volume["eth"]),
        "total_usd_volume": places(t.volume["usd"]),
        "total_distinct_collections_sold": t.distinct_collections,
        "total_listings": t.listings,
        "total_bids": t.bids,
        "total_offers": t.offers,
        "total_cancellations": t.cancellations,
    }


def collection_totals(window):
    for collection, t in window.collections.items():
        yield {
            "collection": collection,
            "latest": rfc3339(t.latest),
            "total_number_of_events": t.events,
            "total_transfers": t.transfers,
            "total_items_transferred": str(t.items),
            "total_sales_count": t.sales,
            "unpriced_sales": t.unpriced,
            "total_assets_sold": str(t.assets),
            "total_distinct_assets_sold": t.distinct_assets,
            "total_eth_volume": places(t.volume["eth"]),
            "total_usd_volume": places(t.volume["usd"]),
            "floor_assets_eth_price": places(t.floor["eth"]),
            "floor_assets_usd_price": places(t.floor["usd"]),
            "avg_assets_eth_price": places(t.average["eth"]),
            "avg_assets_usd_price": places(t.average["usd"]),
            "total_listings": t.listings,
            "floor_listings_eth_price": places(t.listing_floor["eth"]),
            "floor_listings_usd_price": places(t.listing_floor["usd"]),
            "total_bids": t.bids,
            "total_offers": t.offers,
            "total_cancellations": t.cancellations,
        }


def top_collections(window):
    for by, top in (("sales", window.top_by_sales), ("transfers", window.top_by_transfers)):
        for rank, collection, t in top:
            yield {
                "ranked_by": by,
                "rank": rank,
                "collection": collection,
                "latest": rfc3339(t.latest),
                "usd_volume": places(t.volume["usd"]),
                "eth_volume": places(t.volume["eth"]),
                "sales_count": t.sales,
                "unpriced_sales": t.unpriced,
                "floor_usd_price": places(t.floor["usd"]),
                "avg_usd_price": places(t.average["usd"]),
                "transfers_count": t.transfers,
                "items_transferred": str(t.items),
            }


def asset(name, t):
    return {"nft_id": name, "asset_name": name if t.name is None else t.name, "asset_url": t.url, "image_url": t.image}


def top_assets(window):
    for by, tops in (("sales", window.assets_by_sales), ("transfers", window.assets_by_transfers)):
        for collection, top in tops.items():
            for rank, name, t in top:
                yield {
                    "collection": collection,
                    "ranked_by": by,
                    "rank": rank,
                    **asset(name, t),
                    "latest": rfc3339(t.latest),
                    "usd_volume": places(t.volume["usd"]),
                    "eth_volume": places(t.volume["eth"]),
                    "sales_count": t.sales,
                    "transfers_count": t.transfers,
                }


def number(value):
    return None if value is None else float(value)


def long_rows(row, names, prefix):
    for name in names:
        yield prefix + name, number(row[name])


def global_rows(window):
    t = window.total
    for row in market_totals(window):
        for metric, value in long_rows(row, [name for name in row if name != "latest"], ""):
            yield metric, t.latest, {"collection": "", "rank": None, "value": value}
    sales = ("usd_volume", "eth_volume", "sales_count", "floor_usd_price", "avg_usd_price", "usd_price")
    tops = {"sales": window.top_by_sales, "transfers": window.top_by_transfers}
    latest = {(by, rank): t.latest for by, top in tops.items() for rank, _, t in top}
    for row in top_collections(window):
        row["usd_price"] = row["usd_volume"]
        names = sales if row["ranked_by"] == "sales" else ("transfers_count", "items_transferred")
        for metric, value in long_rows(row, names, "top_collections_by_%s_volume_" % row["ranked_by"]):
            rest = {"collection": row["collection"], "rank": row["rank"], "value": value}
            yield metric, latest[row["ranked_by"], row["rank"]], rest


def collections_rows(window):
    none = {"nft_id": None, "asset_name": None, "asset_url": None, "image_url": None}
    for row in collection_totals(window):
        t = window.collections[row["collection"]]
        names = [name for name in row if name not in ("collection", "latest", "total_distinct_assets_sold")]
        for metric, value in long_rows(row, names, "collection_"):
            yield metric, t.latest, {"collection": row["collection"], "rank": None, "value": value} | none
    for metric, tops, measure in (
        ("sales_volume", window.assets_by_sales, lambda t: number(places(t.volume["usd"]))),
        ("usd_volume", window.assets_by_sales, lambda t: number(places(t.volume["usd"]))),
        ("transfers", window.assets_by_transfers, lambda t: float(t.transfers)),
    ):
        for collection, top in tops.items():
            for rank, name, t in top:
                rest = {"collection": collection, "rank": rank, "value": measure(t)} | asset(name, t)
                yield "collection_top_assets_by_" + metric, t.latest, rest


def distinct_rows(events):
    """Distinct assets sold, whose row is as late as the last event of an asset that was sold."""
    for collection, of in groups(events, lambda one: one["collection"]).items():
        traded = [one for one in of if one["kind"] in ("item_sold", "item_transferred") and one["nft"] is not None]
        sold = {one["nft"] for one in traded if one["kind"] == "item_sold"}
        if sold:
            latest = max(one["time"] for one in traded if one["nft"] in sold)
            yield "collection_total_distinct_assets_sold", latest, {
                "collection": collection, "rank": None, "value": float(len(sold)),
                "nft_id": None, "asset_name": None, "asset_url": None, "image_url": None,
            }


WIDE = {"market_totals": market_totals, "collection_totals": collection_totals, "top_collections": top_collections,
        "top_assets": top_assets}
LONG = {"global": "OpenSeaEnrichedGlobalEvents", "collections": "OpenSeaEnrichedCollectionsEvents"}


def answer(job, events, size, slide, options):
    """(job or output, row) of a job."""
    name = NAMES.get(size) or "%d_seconds" % size
    for (start, end), of in sorted(windows(events, size, slide).items(), key=lambda pair: pair[0][0] or 0):
        window = Window(of, options, size is None)
        bounds = {"window_start": rfc3339(start), "window_end": rfc3339(end)}
        for wide, rows in WIDE.items():
            for row in rows(window) if job in (wide, "wide") else []:
                yield wide, bounds | row
        for long, topic in LONG.items():
            if job not in (long, "all"):
                continue
            rows = global_rows(window) if long == "global" else [*collections_rows(window), *distinct_rows(of)]
            for metric, latest, rest in rows:
                stamp = {"metric": "%s__%s" % (metric, name), "timestamp": rfc3339(latest if end is None else end)}
                yield topic, bounds | stamp | rest


def options(arguments=()):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--top", type=int, default=10)
    parser.add_argument("--top-assets", type=int, default=20)
    parser.add_argument("--top-assets-all-time", type=int, default=50)
    parser.add_argument("rest", nargs="*")
    return parser.parse_args(arguments)


def main():
    given = options(sys.argv[1:])
    job, frames, size = given.rest[0], given.rest[1], None if given.rest[2] == "all" else int(given.rest[2])
    slide = int(given.rest[3]) if len(given.rest) > 3 else size
    with open(frames, encoding="utf-8") as lines:
        events = list(read(line for line in lines if line.strip()))
    for output, row in answer(job, events, size, slide, given):
        print(json.dumps({"all": {"output": output}, "wide": {"job": output}}.get(job, {}) | row))


if __name__ == "__main__":
    main()
