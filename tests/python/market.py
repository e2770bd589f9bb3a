"""What frames of OpenSea's stream are as rows of the table `market`, by exact decimals and nothing of tidegate.

    market.py FILE [FILE…]

Each file holds frames, one a line, in the order in which they came. Prints the rows as JSON lines, columns as
`tidegate sql --format ndjson` prints them but for those of the log, each id once, the first that came; and in the end
one line `{"rows": …, "copies": …, "control": …, "refused": …}`. docs/market.md says what the columns mean.
"""

import decimal
import hashlib
import json
import re
import sys
from datetime import datetime, timedelta
from decimal import Decimal

decimal.getcontext().prec = 500
# Halves go away from zero.
decimal.getcontext().rounding = decimal.ROUND_HALF_UP

ORDERS = {
    "item_listed", "item_received_bid", "item_received_offer", "collection_offer", "trait_offer", "item_cancelled",
}
ZERO = "0x" + 40 * "0"
TURN = 1767225600 * 10**6
DECODER = json.JSONDecoder(parse_float=Decimal)
EPOCH = datetime(1970, 1, 1)


class Refused(Exception):
    """No row."""


def members(text):
    """The members of a JSON object or array as they are written."""
    blank = re.compile(r"[ \t\r\n]*")
    at = blank.match(text).end()
    closing = {"{": "}", "[": "]"}[text[at]]
    at = blank.match(text, at + 1).end()
    found = {} if closing == "}" else []
    while text[at] != closing:
        if closing == "}":
            key, at = DECODER.raw_decode(text, at)
            at = blank.match(text, blank.match(text, at).end() + 1).end()
        _, end = DECODER.raw_decode(text, at)
        if closing == "}":
            found[key] = text[at:end]
        else:
            found.append(text[at:end])
        at = blank.match(text, end).end()
        if text[at] == ",":
            at = blank.match(text, at + 1).end()
    return found


def text_of(value):
    return value if isinstance(value, str) else None


def part(value, key):
    return value.get(key) if isinstance(value, dict) else None


def micros(text):
    """Microseconds since 1970; none where it is no time."""
    match = re.fullmatch(
        r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))?", text or "", re.ASCII
    )
    if not match:
        return None
    day, clock, fraction, sign, hours, minutes = match.groups()
    try:
        at = datetime.strptime(f"{day} {clock}", "%Y-%m-%d %H:%M:%S")
    except ValueError:
        return None
    if sign:
        at -= (1 if sign == "+" else -1) * timedelta(hours=int(hours), minutes=int(minutes))
    return (at - EPOCH) // timedelta(microseconds=1) + int(((fraction or "") + "000000")[:6])


def printed(at):
    """A time as rows have it."""
    if at is None:
        return None
    seconds, below = divmod(at, 10**6)
    text = (EPOCH + timedelta(seconds=seconds)).isoformat()
    if below == 0:
        return text + "Z"
    return f"{text}.{below // 1000:03}Z" if below % 1000 == 0 else f"{text}.{below:06}Z"


def whole(written, digits_max):
    """A number of which not a digit may be lost."""
    if written is None or written == "null":
        return None
    digits = written[1:-1] if written.startswith('"') else written
    if not re.fullmatch("[0-9]+", digits) or len(digits.lstrip("0")) > digits_max:
        raise Refused
    return int(digits)


def rate(value):
    """A rate as it was sent, a string or a number; none where it says nothing."""
    text = str(value) if isinstance(value, (str, int, Decimal)) and not isinstance(value, bool) else ""
    if len(text) > 100 or not re.fullmatch(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,9})?", text, re.ASCII):
        return None
    number = Decimal(text)
    # Just below the limit it would be rounded to what the column cannot hold.
    return number if 0 < number < Decimal(10) ** 20 - Decimal(5).scaleb(-19) else None


def column(number, places):
    if number is None:
        return None
    rounded = number.quantize(Decimal(1).scaleb(-places))
    if rounded >= Decimal(10) ** 30:
        raise Refused
    return f"{rounded:f}"


def opened(line):
    """Type, time of sending and payload as it is written; none for a control frame."""
    outer = members(line)
    name = None
    if isinstance(outer, list):
        if len(outer) != 5:
            raise Refused
        name, topic, outer = json.loads(outer[3]), json.loads(outer[2]), outer[4]
    elif text_of(json.loads(outer.get("event_type", "null"))) is None:
        name, topic, outer = json.loads(outer.get("event", "null")), json.loads(outer.get("topic", "null")), outer.get("payload")
        if name is None:
            raise Refused
    if name is not None:
        if name.startswith(("phx_", "presence_")) or name == "heartbeat" or topic == "phoenix":
            return None
        outer = members(outer)
    event_type = text_of(json.loads(outer.get("event_type", "null"))) or name
    payload = outer.get("payload")
    if payload is None or not payload.startswith("{"):
        raise Refused
    return event_type, text_of(json.loads(outer.get("sent_at", "null"))), payload


def nft_id(payload):
    sent = text_of(part(payload.get("item"), "nft_id"))
    if sent is None or sent.count("/") != 1:
        return sent
    considered = part(part(payload.get("protocol_data"), "parameters"), "consideration")
    first = considered[0] if isinstance(considered, list) and considered else None
    token = part(first, "identifierOrCriteria")
    exact = isinstance(token, (int, str)) and re.fullmatch("[0-9]+", str(token))
    return f"{sent}/{token}" if part(first, "itemType") in (2, 3) and exact else sent


def named(value):
    return text_of(value) or text_of(part(value, "name"))


def address(value):
    text = text_of(value)
    return text.lower() if text is not None and text[:2].lower() == "0x" else text


def account(value):
    return address(part(value, "address"))


def row(event_type, sent_at, written):
    payload = DECODER.decode(written)
    spans = members(written)
    happened = text_of(payload.get("event_timestamp"))
    sent = micros(sent_at)
    at = micros(happened)
    at = sent if at is None else at
    if at is None:
        raise Refused
    quantity = whole(spans.get("quantity"), 57)
    price = whole(spans.get("sale_price"), 76)
    price = whole(spans.get("base_price"), 76) if price is None else price
    token = payload.get("payment_token")
    decimals = part(token, "decimals")
    if isinstance(decimals, str) and re.fullmatch("[0-9]+", decimals):
        decimals = int(decimals)
    if not (isinstance(decimals, int) and not isinstance(decimals, bool) and 0 <= decimals <= 255):
        decimals = None
    basis = None
    if price is not None:
        basis = "rate" if event_type == "item_sold" else None
        if event_type in ORDERS:
            basis = "rate" if at < TURN else "order"
    amount = None if price is None or decimals is None else Decimal(price).scaleb(-decimals)

    def worth(value):
        if value is None or basis is None:
            return None
        if basis == "order":
            return value
        return None if amount is None else amount * value

    eth, usd = rate(part(token, "eth_price")), rate(part(token, "usd_price"))
    item, transaction = payload.get("item"), payload.get("transaction")
    nft = nft_id(payload)
    taker = account(payload.get("taker"))
    found = {
        "event_type": event_type,
        "event_time": printed(at),
        "sent_at": printed(sent),
        "collection": text_of(part(payload.get("collection"), "slug")),
        "chain": named(payload.get("chain")) or named(part(item, "chain")) or (nft.split("/")[0] if nft and "/" in nft else None),
        "nft_id": nft,
        "item_name": text_of(part(part(item, "metadata"), "name")),
        "item_url": text_of(part(item, "permalink")),
        "image_url": text_of(part(part(item, "metadata"), "image_url")),
        "from_account": account(payload.get("from_account")),
        "to_account": account(payload.get("to_account")),
        "maker": account(payload.get("maker")),
        "taker": None if taker == ZERO else taker,
        "quantity": str(1 if quantity is None else quantity),
        "price": None if price is None else str(price),
        "payment_token": address(part(token, "address")),
        "payment_symbol": text_of(part(token, "symbol")),
        "payment_decimals": decimals,
        "eth_price": column(eth, 18),
        "usd_price": column(usd, 18),
        "price_basis": basis,
        "amount": column(amount, 36),
        "amount_eth": column(worth(eth), 36),
        "amount_usd": column(worth(usd), 36),
        "order_hash": text_of(payload.get("order_hash")),
        "transaction_hash": text_of(part(transaction, "hash")),
        "listing_type": text_of(payload.get("listing_type")),
        "is_private": payload.get("is_private") if isinstance(payload.get("is_private"), bool) else None,
        "expires_at": printed(micros(text_of(payload.get("expiration_date")))),
    }
    if happened is not None and (found["order_hash"] is not None or found["transaction_hash"] is not None):
        parts = [event_type, found["order_hash"], found["transaction_hash"], nft, happened, found["from_account"], found["to_account"]]
        key = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))[:-1] + "," + spans.get("quantity", "null") + "]"
    else:
        key = f"[{json.dumps(event_type, ensure_ascii=False)},{written}]"
    return {"id": hashlib.sha256(key.encode()).hexdigest(), **found}


def main():
    counts = {"rows": 0, "copies": 0, "control": 0, "refused": 0}
    known = set()
    for name in sys.argv[1:]:
        with open(name, encoding="utf-8") as frames:
            for line in frames:
                try:
                    event = opened(line.rstrip("\n"))
                    found = row(*event) if event else None
                except (Refused, ValueError, KeyError, IndexError):
                    counts["refused"] += 1
                    continue
                if found is None:
                    counts["control"] += 1
                elif found["id"] in known:
                    counts["copies"] += 1
                else:
                    known.add(found["id"])
                    counts["rows"] += 1
                    print(json.dumps(found, ensure_ascii=False))
    print(json.dumps(counts))


main()
