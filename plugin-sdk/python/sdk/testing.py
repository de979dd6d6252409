"""Runs a plugin natively, in a unit test: without WebAssembly and without a gateway."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import TestCase

from .host import LookupRefused, bind
from .exact import elements, members, pointer_names, skip_space, to_json
from .order import Order
from .plugin import Plugin, configured, judged
from .verdict import Accept, Enrich, Fault, Header, Reject, Remove, RetryLater, Set, Verdict

_NAMES = {Accept: "accept", Enrich: "enrich", Reject: "reject", RetryLater: "retry-later", Fault: "fault"}


class Harness:
    """A plugin under test. Raises a ``ConfigurationError`` if it does not take its configuration."""

    def __init__(self, kind: type[Plugin], config: Any = None, tables: dict[str, dict[str, Any]] | None = None) -> None:
        #: What the plugin has logged, as level and message.
        self.lines: list[tuple[str, str]] = []
        #: What it has counted and observed, as name and value.
        self.numbers: list[tuple[str, float]] = []
        self._tables = tables or {}
        bind(self)
        self._plugin = configured(kind, _as_text({} if config is None else config).encode())

    def judge(self, order: Any, **facts: Any) -> Verdict:
        """Judges one order, given as JSON text or as a value; ``facts`` are those of ``Order``."""
        return judged(self._plugin, Order(_as_text(order).encode(), **facts))

    def write(self, level: str, message: str) -> None:
        self.lines.append((level, message))

    def count(self, name: str, by: int) -> None:
        self.numbers.append((name, by))

    def observe(self, name: str, value: float) -> None:
        self.numbers.append((name, value))

    def get(self, table: str, key: str) -> bytes | None:
        if table not in self._tables:
            raise LookupRefused("unknown-table", table)
        return to_json(self._tables[table][key]).encode() if key in self._tables[table] else None

    def get_many(self, table: str, keys: list[str]) -> list[bytes | None]:
        return [self.get(table, key) for key in keys]


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else to_json(value)


@dataclass(frozen=True)
class Vector:
    """One line of ``vectors.ndjson``: an order and what has to become of it. What ``expect`` leaves out is not compared."""

    name: str
    #: Exact texts.
    order: str
    config: str | None
    expected: str | None
    attempt: int = 1
    expect: dict[str, Any] = field(default_factory=dict)


def vectors(path: str | Path = "vectors.ndjson") -> list[Vector]:
    """Reads the vectors of a file."""
    return [_vector(line) for line in Path(path).read_text("utf-8").split("\n") if line.strip()]


def _vector(line: str) -> Vector:
    texts = _texts(line)
    value = json.loads(line)
    expected = _texts(texts.get("expect", "{}")).get("order")
    return Vector(value["name"], texts["order"], texts.get("config"), expected, value.get("attempt", 1), value["expect"])


def check(test: TestCase, kind: type[Plugin], vector: Vector, config: Any = None) -> None:
    """Judges a vector's order and compares. ``config`` is for vectors that have none."""
    harness = Harness(kind, config if vector.config is None else vector.config)
    verdict = harness.judge(vector.order, attempt=vector.attempt)
    expect = vector.expect
    name = "accept" if verdict == Enrich() else _NAMES[type(verdict)]
    test.assertEqual(name, expect["verdict"], verdict)
    if "problems" in expect:
        problems = verdict.problems if isinstance(verdict, Reject) else []
        given = [{"code": one.code, **({} if one.pointer is None else {"pointer": one.pointer})} for one in problems]
        test.assertEqual(given, expect["problems"])
    if "headers" in expect:
        test.assertEqual(headers(verdict), expect["headers"])
    if "reason" in expect:
        test.assertEqual(getattr(verdict, "reason", None), expect["reason"])
    if vector.expected is not None:
        test.assertEqual(_tree(patched(vector.order, verdict)), _tree(vector.expected))


def headers(verdict: Verdict) -> dict[str, str]:
    """The headers that a verdict gives the order's record."""
    ops = verdict.patch if isinstance(verdict, Enrich) else []
    return {op.name: op.value for op in ops if isinstance(op, Header)}


def patched(order: str, verdict: Verdict) -> str:
    """The order as a verdict leaves it, as JSON text."""
    root = _tree(order)
    for op in verdict.patch if isinstance(verdict, Enrich) else []:
        if isinstance(op, Header):
            continue
        names = pointer_names(op.pointer)
        if not names:
            raise ValueError(f"{op.pointer!r} is not a JSON Pointer to a member")
        if isinstance(op, Set):
            root = _with(root, names, _tree(op.value), op.pointer)
        elif isinstance(op, Remove):
            _remove(root, names, op.pointer)
    return _printed(root)


def _tree(text: str, start: int | None = None) -> Any:
    """JSON whose scalars are their exact text."""
    if start is None:
        json.loads(text)
        start = skip_space(text, 0)
        if text[start] not in "{[":
            return text.strip()

    def part(begin: int, end: int) -> Any:
        return _tree(text, begin) if text[begin] in "{[" else text[begin:end]

    if text[start] == "[":
        return [part(*element) for element in elements(text, start)]
    return {name: part(begin, end) for name, begin, end in members(text, start)}


def _printed(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{to_json(name)}:{_printed(member)}" for name, member in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_printed, value)) + "]"
    return value


def _texts(text: str) -> dict[str, str]:
    return {name: text[begin:end] for name, begin, end in members(text, skip_space(text, 0))}


def _with(at: Any, names: list[str], value: Any, pointer: str) -> Any:
    if not names:
        return value
    name, *rest = names
    if at is None:
        return {name: _with(None, rest, value, pointer)}
    if isinstance(at, dict):
        at[name] = _with(at.get(name), rest, value, pointer)
    elif isinstance(at, list):
        index = len(at) if name == "-" else int(name)
        if index > len(at):
            raise ValueError(f"{pointer}: no element of the array")
        at[index : index + 1] = [_with(at[index] if index < len(at) else None, rest, value, pointer)]
    else:
        raise ValueError(f"{pointer}: a value on the way is neither an object nor an array")
    return at


def _remove(at: Any, names: list[str], pointer: str) -> None:
    try:
        for name in names[:-1]:
            at = at[int(name)] if isinstance(at, list) else at[name]
        del at[int(names[-1]) if isinstance(at, list) else names[-1]]
    except (KeyError, IndexError, TypeError, ValueError):
        raise ValueError(f"{pointer}: there is nothing to remove") from None
