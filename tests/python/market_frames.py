"""Makes frames of OpenSea's stream, every one an event of its own: all types and forms, tokens with and without a rate,
odd quantities, missing parts, ties.

    python3 tests/python/market_frames.py COUNT [START_SECONDS] [--in-order] [--resend]

Prints one frame a line, the same for the same arguments; with --resend every tenth comes again at the end, in another
frame.
"""

import datetime
import json
import random
import sys

TOKENS = {
    # Symbol: decimals, ETH and USD for one. Some rates carry the dust that OpenSea sends; some are not known.
    "ETH": (18, "1.000000000000000", "3380.820000000000164000"),
    "WETH": (18, "1.000000000000000000", "3380.82"),
    "USDC": (6, "0.000295784900000000", "1.000099999999999900"),
    "APE": (18, None, "0.19"),
    "DUST": (0, "0", "0"),
    "NONE": (18, None, None),
    "BARE": (None, "1", "2"),
}
START = 1767222000  # 2025-12-31T23:00:00Z: an hour later the rates of orders become their values
HOURS = 2
KINDS = (
    6 * ["item_sold"] + 5 * ["item_transferred"] + 3 * ["item_listed"] + ["item_received_bid", "item_received_offer"]
    + ["collection_offer", "trait_offer", "item_cancelled", "item_metadata_updated", "order_invalidate"]
)


def payment(chance, kind, payload, quantity):
    symbol = chance.choice(["ETH", "ETH", "ETH", "WETH", "USDC", "USDC", *TOKENS])
    decimals, eth, usd = TOKENS[symbol]
    price = chance.choice([5, 10, 10, 25, 333]) * 10 ** (max((decimals or 18) - 3, 0))
    if decimals == 18 and chance.random() < 0.1:
        price = 10**30
    payload["sale_price" if kind == "item_sold" else "base_price"] = str(price * chance.choice([1, 1, quantity or 1]))
    payload["payment_token"] = {"symbol": symbol, "eth_price": eth, "usd_price": usd}
    if decimals is not None:
        payload["payment_token"]["decimals"] = decimals


def frame(chance, number, at):
    """One market event, at a microsecond, in one of the forms in which they come."""
    kind = chance.choice(KINDS)
    stamp = datetime.datetime.fromtimestamp(at // 10**6, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    slug = chance.choice(["azuki", "azuki", "\u00e9tude", "Zed", None])
    quantity = chance.choice([1, 1, 1, 1, 3, 7, "12", 2**70, None, 0])
    payload = {"collection": {"slug": slug} if slug else {}, "chain": "ethereum", "order_hash": "0x%064x" % number}
    if kind not in ("item_metadata_updated",):
        payload["event_timestamp"] = "%s.%06d+00:00" % (stamp, at % 10**6)
    if quantity is not None:
        payload["quantity"] = quantity
    if kind not in ("collection_offer", "trait_offer", "order_invalidate"):
        token = min(chance.randrange(12), chance.randrange(12))
        metadata = {"name": None if token % 3 == 0 else "Item %d" % token, "image_url": "https://example.org/%d.png" % token}
        payload["item"] = {"nft_id": "ethereum/0xab/%d" % (2**255 + token), "metadata": metadata}
        if chance.random() < 0.1:
            payload["item"] = {"permalink": "https://example.org/", "metadata": metadata}
    if kind.startswith(("item_sold", "item_listed", "item_received", "collection_", "trait_", "item_cancelled")):
        payment(chance, kind, payload, int(quantity or 1))
    event = {"event_type": kind, "sent_at": stamp + ".5Z", "payload": payload}
    topic = "collection:" + (slug or "*")
    return chance.choice([
        {"topic": topic, "event": kind, "payload": event, "ref": None},
        [None, None, topic, kind, event],
        event,
    ])


def frames(count, start=START, in_order=False):
    """Frames of two hours, by default across the end of a year and up to three minutes out of order."""
    chance = random.Random(20240103)
    step = HOURS * 3600 * 10**6 // count
    times = [start * 10**6 + number * step - chance.randrange(180 * 10**6) for number in range(count)]
    return [frame(chance, number, at) for number, at in enumerate(sorted(times) if in_order else times)]


def resent(made):
    """Every tenth event again, in the frame that one who follows all collections gets."""
    for one in made[::10]:
        event = one[4] if isinstance(one, list) else one["payload"] if "topic" in one else one
        yield [None, None, "collection:*", event["event_type"], event]


def worked():
    """Prices that can be worked out by hand, an hour each: OpenSea's published listing, the same as a sale, six decimals,
    10^30 wei, 2^70 items, no rate, no collection."""
    eth = {"decimals": 18, "eth_price": "1.0", "usd_price": "1287.16"}
    usdc = {"decimals": 6, "eth_price": "0.0005", "usd_price": "1.0001"}
    orders = [
        ("item_listed", "azuki", "5000000000000000", 1, eth),
        ("item_sold", "azuki", "5000000000000000", 1, eth),
        ("item_sold", "azuki", "1234567891", 2, usdc),
        ("item_sold", "azuki", "1" + 30 * "0", None, eth),
        ("item_sold", "azuki", "1" + 18 * "0", 2**70, eth),
        ("item_sold", "azuki", "1" + 18 * "0", 1, eth | {"eth_price": None, "usd_price": "0"}),
        ("item_sold", None, "1" + 18 * "0", 1, eth),
    ]
    for hour, (kind, slug, price, quantity, token) in enumerate(orders):
        payload = {
            "collection": {"slug": slug} if slug else None,
            "item": {"nft_id": "ethereum/0xab/1"},
            "event_timestamp": "2022-06-01T%02d:30:00.000000+00:00" % hour,
            "order_hash": "0x%064x" % hour,
            "sale_price" if kind == "item_sold" else "base_price": price,
            "payment_token": token,
        }
        if quantity is not None:
            payload["quantity"] = quantity
        yield {"event_type": kind, "sent_at": None, "payload": payload}


def fifty_assets():
    """Fifty assets of one collection, each sold once for the same and moved once."""
    made = []
    for number in range(100):
        kind = ["item_sold", "item_transferred"][number % 2]
        payload = {
            "collection": {"slug": "azuki"},
            "item": {"nft_id": "ethereum/0xab/%d" % (number // 2)},
            "event_timestamp": "2025-06-01T00:00:%02d.000000Z" % (number // 2),
            "order_hash": "0x%064x" % number,
            "quantity": 1,
        }
        if kind == "item_sold":
            token = {"decimals": 18, "eth_price": "1", "usd_price": "2000"}
            payload |= {"sale_price": str(10**18), "payment_token": token}
        made.append([None, None, "collection:azuki", kind, {"event_type": kind, "sent_at": None, "payload": payload}])
    return made


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    made = frames(*numbers, in_order="--in-order" in sys.argv)
    for one in [*made, *(resent(made) if "--resend" in sys.argv else [])]:
        print(json.dumps(one))
