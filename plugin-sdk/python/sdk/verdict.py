"""What a plugin answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Union

from .exact import to_json

AFTER_MS_MAX = 0xFFFF_FFFF


@dataclass(frozen=True)
class Problem:
    """One finding about an order, or about the plugin's configuration."""

    #: Stable word for programs, such as ``quantity-not-positive``.
    code: str
    #: Short text for people, the same for each order.
    title: str
    #: What is wrong with this order.
    detail: str | None = None
    #: JSON Pointer (RFC 6901) to the member at fault.
    pointer: str | None = None


@dataclass(frozen=True)
class Set:
    """Creates or replaces a member, or appends to an array with ``-``; missing objects on the way are created."""

    pointer: str
    #: JSON text.
    value: str


@dataclass(frozen=True)
class Remove:
    """Removes a member."""

    pointer: str


@dataclass(frozen=True)
class Header:
    """Gives the order's record a header."""

    name: str
    value: str


@dataclass(frozen=True)
class Accept:
    """The order may pass as it is."""


@dataclass
class Enrich:
    """The order may pass with these changes, applied in this sequence; without any it is accepted."""

    patch: list[Set | Remove | Header] = field(default_factory=list)

    def set(self, pointer: str, value: Any) -> Enrich:
        """Creates or replaces a member; ``int`` and ``Decimal`` keep their digits."""
        return self.set_raw(pointer, to_json(value))

    def set_raw(self, pointer: str, json: str) -> Enrich:
        """The same with the JSON text of the value, which is kept as it is."""
        self.patch.append(Set(pointer, json))
        return self

    def remove(self, pointer: str) -> Enrich:
        """Removes a member."""
        self.patch.append(Remove(pointer))
        return self

    def header(self, name: str, value: str) -> Enrich:
        """Gives the order's record a header."""
        self.patch.append(Header(name, value))
        return self


@dataclass(frozen=True)
class Reject:
    """The order is refused for good, with at least one problem."""

    problems: list[Problem]

    def __init__(self, problems: Problem | Iterable[Problem], *more: Problem) -> None:
        all_of_them = [problems] if isinstance(problems, Problem) else list(problems)
        object.__setattr__(self, "problems", [*all_of_them, *more])
        if not self.problems:
            raise ValueError("Reject: at least one problem has to say why")


@dataclass(frozen=True)
class RetryLater:
    """ "Ask me again": the order is held and judged anew, not before this many milliseconds. The client sees the reason."""

    after_ms: int
    reason: str

    def __post_init__(self) -> None:
        if not isinstance(self.after_ms, int) or not 0 <= self.after_ms <= AFTER_MS_MAX:
            raise ValueError(f"RetryLater: {self.after_ms!r} is not a whole number of milliseconds")


@dataclass(frozen=True)
class Fault:
    """The plugin itself has failed; the order is held. An exception becomes one by itself."""

    code: str
    detail: str
    retryable: bool = False


Verdict = Union[Accept, Enrich, Reject, RetryLater, Fault]
