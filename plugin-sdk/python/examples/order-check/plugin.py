"""Checks orders and works out their totals: the reference plugin, see ``plugin-sdk/order-check.md``."""

import re
from decimal import Decimal

from sdk import ConfigurationError, Enrich, Plugin, Problem, Reject

PROBLEMS_MAX = 100
LINES_MAX = 500
QUANTITY_MAX = 100_000
PRICE = re.compile(r"([0-9]{1,7})(?:\.([0-9]{1,4}))?")
ESCAPED = re.compile(r'["\\\x00-\x1f]')


class OrderCheck(Plugin):
    def configure(self, config):
        self.segments = config.pop("segments", {})
        is_form = isinstance(self.segments, dict) and all(isinstance(value, str) for value in self.segments.values())
        if config or not is_form:
            raise ConfigurationError(Problem("invalid-configuration", "Invalid configuration"))

    def judge(self, order):
        customer_id = order.json.get("customerId")
        problems = []
        if not isinstance(customer_id, str) or not customer_id:
            problems.append(Problem("customer-id-missing", "The customer id is missing", pointer="/customerId"))
        lines = order.json.get("lines")
        if not isinstance(lines, list) or not 1 <= len(lines) <= LINES_MAX:
            problems.append(Problem("lines-invalid", "The lines are not 1 to 500", pointer="/lines"))
            lines = []
        net, units = totals(lines, problems)
        if problems:
            return Reject(problems[:PROBLEMS_MAX])

        verdict = Enrich().set("/totals", {"net": decimal(net), "units": units, "lines": len(lines)})
        if customer_id in self.segments:
            verdict.set_raw("/segment", quoted(self.segments[customer_id]))
        return verdict.header("order-net", decimal(net))


def totals(lines, problems):
    """Sums up the lines, net in ten-thousandths. Stops soon after the last problem that is reported."""
    net = units = 0
    for index, line in enumerate(lines):
        if len(problems) >= PROBLEMS_MAX:
            break
        if not isinstance(line, dict):
            problems.append(Problem("line-invalid", "The line is not an object", pointer=f"/lines/{index}"))
            continue
        quantity = quantity_of(line.get("quantity"))
        if quantity is None:
            problems.append(Problem("quantity-invalid", "The quantity is not 1 to 100000", pointer=f"/lines/{index}/quantity"))
        price = price_of(line.get("unitPrice"))
        if price is None:
            title = "The unit price is not a decimal above zero"
            problems.append(Problem("unit-price-invalid", title, pointer=f"/lines/{index}/unitPrice"))
        if quantity is not None and price is not None:
            net += quantity * price
            units += quantity
    return net, units


def quantity_of(value):
    """The number as an ``int``, if it is integral and in range. ``True`` is an ``int`` in Python, but no number in JSON."""
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)) or not 1 <= value <= QUANTITY_MAX:
        return None
    return int(value) if value == int(value) else None


def price_of(value):
    """In ten-thousandths."""
    match = PRICE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    price = int(match[1] + (match[2] or "").ljust(4, "0"))
    return price if price > 0 else None


def decimal(ten_thousandths):
    """Ten-thousandths as a decimal: two places, a third or fourth where it is needed."""
    whole, fraction = divmod(ten_thousandths, 10_000)
    digits = f"{fraction:04}"
    return f"{whole}.{digits[:2]}{digits[2:].rstrip('0')}"


def quoted(text):
    """A JSON string in the form that the specification asks for: ``json.dumps`` has other escapes."""
    return '"' + ESCAPED.sub(lambda match: "\\" + match[0] if match[0] in '"\\' else f"\\u{ord(match[0]):04x}", text) + '"'
