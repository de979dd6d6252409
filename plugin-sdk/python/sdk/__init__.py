"""Plugins for Sluice in Python.

A plugin judges orders::

    from sdk import Accept, Plugin

    class Mine(Plugin):
        def judge(self, order):
            return Accept()

The README shows the rest.
"""

from .host import LookupRefused, log, lookup, metrics
from .exact import to_json
from .order import Order
from .plugin import ConfigurationError, Plugin
from .verdict import Accept, Enrich, Fault, Header, Problem, Reject, Remove, RetryLater, Set, Verdict

__all__ = [
    "Accept",
    "ConfigurationError",
    "Enrich",
    "Fault",
    "Header",
    "LookupRefused",
    "Order",
    "Plugin",
    "Problem",
    "Reject",
    "Remove",
    "RetryLater",
    "Set",
    "Verdict",
    "log",
    "lookup",
    "metrics",
    "to_json",
]
