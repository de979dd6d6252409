"""What a plugin may ask of the gateway: its log, numbers for the operator, and tables to look things up in."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Protocol

from .exact import parse

COUNT_MAX = 0xFFFF_FFFF
_SURROGATE = re.compile("[\ud800-\udfff]")


class Host(Protocol):
    """The imports of the contract. In a native test ``sdk.testing`` stands in."""

    def write(self, level: str, message: str) -> None: ...

    def count(self, name: str, by: int) -> None: ...

    def observe(self, name: str, value: float) -> None: ...

    def get(self, table: str, key: str) -> bytes | None: ...

    def get_many(self, table: str, keys: list[str]) -> list[bytes | None]: ...


class LookupRefused(Exception):
    """A look-up that the gateway does not answer. Where nobody catches it, it becomes the plugin's fault.

    ``code`` is ``unknown-table`` (the gateway has no such table) or ``too-many`` (the batch has used up its look-ups).
    """

    def __init__(self, code: str, table: str) -> None:
        super().__init__(f"look-up in the table {table}: {code}")
        self.code = code


class _Nobody:
    """Before the gateway is there, such as when the plugin is built, lines go nowhere."""

    def write(self, level: str, message: str) -> None:
        pass


_host: Any = _Nobody()


def bind(host: Any) -> None:
    """Says who answers from now on."""
    global _host
    _host = host


def carried(text: str) -> str:
    """Text that the contract can carry: lone surrogates become U+FFFD."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


class _Log:
    """Writes lines to the gateway's log, with the plugin's name beside them. Long lines are cut, too many are dropped."""

    def debug(self, message: object) -> None:
        _host.write("debug", carried(str(message)))

    def info(self, message: object) -> None:
        _host.write("info", carried(str(message)))

    def warn(self, message: object) -> None:
        _host.write("warn", carried(str(message)))

    def error(self, message: object) -> None:
        _host.write("error", carried(str(message)))


class _Metrics:
    """Numbers for the operator, in ``/metrics`` of the gateway. World ``enricher``, to be granted by the operator."""

    def count(self, name: str, by: int = 1) -> None:
        """Adds to a counter: a whole number from 0."""
        if not isinstance(by, int) or not 0 <= by <= COUNT_MAX:
            raise ValueError(f"metrics.count: {by!r} is not a whole number from 0 to {COUNT_MAX}")
        _granted("metrics", "count")(carried(name), int(by))

    def observe(self, name: str, value: float) -> None:
        """Notes one value of a distribution."""
        _granted("metrics", "observe")(carried(name), float(value))


class _Lookup:
    """Tables that the operator keeps in the gateway's memory. World ``enricher``, to be granted by the operator."""

    def get(self, table: str, key: str, default: Any = None) -> Any:
        """The value under a key, its numbers exact."""
        text = self.raw(table, key)
        return default if text is None else parse(text)

    def raw(self, table: str, key: str) -> str | None:
        """The JSON text under a key."""
        value = _granted("lookup", "get")(carried(table), carried(key))
        return None if value is None else value.decode()

    def get_many(self, table: str, keys: Iterable[str], default: Any = None) -> list[Any]:
        """The values under many keys, in their sequence; cheaper than one by one."""
        values = _granted("lookup", "get_many")(carried(table), [carried(key) for key in keys])
        return [default if value is None else parse(value.decode()) for value in values]


def _granted(part: str, function: str) -> Any:
    found = getattr(_host, function, None)
    if found is None:
        raise RuntimeError(f'{part} is not there: set world = "enricher" in plugin.toml')
    return found


log = _Log()
metrics = _Metrics()
lookup = _Lookup()
