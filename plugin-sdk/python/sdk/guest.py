"""The side that faces the gateway: from the contract's types to the SDK's and back. ``build`` makes the module that calls it."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from componentize_py_types import Err, Ok, Result
from wit_world.imports import log as wit_log
from wit_world.imports import types

from . import sandbox
from .host import LookupRefused, bind, carried, log
from .order import Order
from .plugin import ConfigurationError, Plugin, configured, judged
from .verdict import Accept, Enrich, Fault, Header, Problem, Reject, Remove, RetryLater, Set, Verdict

try:
    from wit_world.imports import lookup as wit_lookup
    from wit_world.imports import metrics as wit_metrics
except ImportError:
    # The world of this plugin has neither.
    wit_lookup = wit_metrics = None  # type: ignore[assignment]

sandbox.install()

_LEVELS = {level.name.lower(): level for level in wit_log.Level}


class _Log:
    def write(self, level: str, message: str) -> None:
        wit_log.write(_LEVELS[level], message)


class _Enricher(_Log):
    def count(self, name: str, by: int) -> None:
        wit_metrics.count(name, by)

    def observe(self, name: str, value: float) -> None:
        wit_metrics.observe(name, value)

    def get(self, table: str, key: str) -> bytes | None:
        try:
            return wit_lookup.get(table, key)
        except Err as error:
            raise _refused(error, table) from None

    def get_many(self, table: str, keys: list[str]) -> list[bytes | None]:
        try:
            return wit_lookup.get_many(table, keys)
        except Err as error:
            raise _refused(error, table) from None


def _refused(error: Err, table: str) -> LookupRefused:
    return LookupRefused(error.value.name.lower().replace("_", "-"), table)


class _Lines:
    """Takes what is printed, line by line, to the gateway's log."""

    encoding = "utf-8"

    def __init__(self, write: Any) -> None:
        self._write = write
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._write(line)
        return len(text)

    def flush(self) -> None:
        pass


def export(module: ModuleType) -> tuple[type, type]:
    """The exports of the contract for the plugin that a module has."""
    kind = _plugin_of(module)
    bind(_Log() if wit_lookup is None else _Enricher())
    plugin: Plugin | None = None

    class Lifecycle:
        def configure(self, config: bytes) -> None:
            nonlocal plugin
            sandbox.enter()
            sys.stdout, sys.stderr = _Lines(log.info), _Lines(log.error)  # type: ignore[assignment]
            try:
                plugin = configured(kind, config)
            except ConfigurationError as error:
                raise Err([_problem(one) for one in error.problems]) from None

    class Processor:
        def process(self, batch: list[types.Event]) -> list[types.Outcome]:
            return [types.Outcome(event.seq, _answered(plugin, event)) for event in batch]

    return Lifecycle, Processor


def _plugin_of(module: ModuleType) -> type[Plugin]:
    found = [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Plugin) and kind.__module__ == module.__name__
    ]
    if len(found) != 1:
        names = ", ".join(kind.__name__ for kind in found) or "none"
        raise SystemExit(f"plugin.py must have exactly one class that derives from Plugin; it has {names}")
    return found[0]


def _answered(plugin: Plugin | None, event: types.Event) -> Result[types.Verdict, types.Fault]:
    if plugin is None:
        return _result(Fault("not-configured", "not configured"))
    order = Order(
        event.body,
        id=event.id,
        route=event.route,
        kind=event.kind,
        received=event.received,
        attempt=event.attempt,
        attrs=event.attrs,
    )
    try:
        return _result(judged(plugin, order))
    except Exception as error:
        return _result(Fault("invalid-verdict", f"{type(error).__name__}: {error}"))


def _result(verdict: Verdict) -> Result[types.Verdict, types.Fault]:
    match verdict:
        case Accept() | Enrich(patch=[]):
            return Ok(types.Verdict_Accept())
        case Enrich(patch):
            return Ok(types.Verdict_Enrich([_patch_op(op) for op in patch]))
        case Reject(problems):
            return Ok(types.Verdict_Reject([_problem(one) for one in problems]))
        case RetryLater(after_ms, reason):
            return Ok(types.Verdict_RetryLater(types.Retry(after_ms, _word(reason, "a reason"))))
        case Fault(code, detail, retryable):
            return Err(types.Fault(carried(str(code)), carried(str(detail)), bool(retryable)))


def _patch_op(op: Set | Remove | Header) -> types.PatchOp:
    match op:
        case Set(pointer, value):
            return types.PatchOp_Set((_word(pointer, "a pointer"), _word(value, "a value").encode()))
        case Remove(pointer):
            return types.PatchOp_Remove(_word(pointer, "a pointer"))
        case Header(name, value):
            return types.PatchOp_Header((_word(name, "a header's name"), _word(value, "a header's value")))
        case _:
            raise TypeError(f"a change has to be Set, Remove or Header, not {type(op).__name__}")


def _problem(one: Problem) -> types.Problem:
    return types.Problem(
        _word(one.code, "a problem's code"),
        _word(one.title, "a problem's title"),
        None if one.detail is None else _word(one.detail, "a problem's detail"),
        None if one.pointer is None else _word(one.pointer, "a problem's pointer"),
    )


def _word(text: object, what: str) -> str:
    """Text that the contract can carry: anything else would be a bare trap."""
    if not isinstance(text, str):
        raise TypeError(f"{what} has to be a string, not {type(text).__name__}")
    return carried(text)
