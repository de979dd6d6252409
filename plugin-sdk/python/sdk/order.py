"""An order as a plugin sees it."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from .exact import parse, raw_at, value_at


class Order:
    """An order and what is known about it. Each form of the body is made when it is first asked for."""

    def __init__(
        self,
        body: bytes,
        *,
        id: str = "",
        route: str = "/orders",
        kind: str = "OrderCreated",
        received: str = "",
        attempt: int = 1,
        attrs: list[tuple[str, str]] | None = None,
    ) -> None:
        #: The order: one JSON object in UTF-8, as patched by the plugins before this one.
        self.body = body
        #: Id of the order.
        self.id = id
        #: Path of the order's route, such as ``/orders``.
        self.route = route
        #: Type of the event, such as ``OrderCreated``.
        self.kind = kind
        #: When the order was accepted, RFC 3339 UTC with milliseconds: the only clock a plugin sees.
        self.received = received
        #: Counts the judgements of this order, from 1.
        self.attempt = attempt
        #: More names and values, such as ``traceparent``.
        self.attrs = attrs or []

    @cached_property
    def text(self) -> str:
        """The order as text."""
        return self.body.decode()

    @cached_property
    def json(self) -> dict[str, Any]:
        """The order, its integers as ``int`` and all other numbers as ``Decimal``: both exact."""
        return parse(self.text)

    def get(self, pointer: str, default: Any = None) -> Any:
        """One member by its JSON Pointer (RFC 6901), as in ``json``; the default if it is absent."""
        return value_at(self.json, pointer, default)

    def raw(self, pointer: str) -> str | None:
        """The exact text of one member by its JSON Pointer; none if it is absent. A string comes with its quotes.

        Each call reads the order from its beginning: for many members take ``json``.
        """
        return raw_at(self.text, pointer)

    def attr(self, name: str) -> str | None:
        """The value of one of the ``attrs``."""
        return next((value for own, value in self.attrs if own == name), None)
