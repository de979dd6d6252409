"""{{name}}: refuses orders of blocked customers, and stamps the others with a priority."""

import re
from decimal import Decimal

from sdk import Accept, ConfigurationError, Enrich, Plugin, Problem, Reject

AMOUNT = re.compile(r"[0-9]+(\.[0-9]{1,2})?")


class OrderPriority(Plugin):
    def configure(self, config):
        """Called once for each batch of orders, so keep it cheap. The operator's configuration can be anything: look at it."""
        self.blocked = config.get("blocked", [])
        express_from = config.get("express_from", "1000")
        if not isinstance(self.blocked, list) or not is_amount(express_from):
            detail = "blocked is a list, express_from an amount as text"
            raise ConfigurationError(Problem("invalid-configuration", "Invalid configuration", detail))
        self.express_from = Decimal(express_from)

    def judge(self, order):
        """Judges one order. An exception holds this order as the plugin's fault, and no other."""
        if order.get("/customerId") in self.blocked:
            return Reject(Problem("customer-blocked", "This customer cannot order", pointer="/customerId"))
        total = order.get("/total")
        if not is_amount(total):
            return Accept()
        return Enrich().set("/priority", "express" if Decimal(total) >= self.express_from else "standard")


def is_amount(value):
    """Money is text and becomes a Decimal: a float would round it."""
    return isinstance(value, str) and AMOUNT.fullmatch(value) is not None
