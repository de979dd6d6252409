"""What the sandbox does not have says so, instead of a bare trap: clock, chance, files, and modules that were not built in.

Only for the built plugin, and only once it judges: what a module does while it is imported, it does when the plugin is built.
"""

from __future__ import annotations

import builtins
import datetime
import io
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any

# Python loads these when they are first needed, which is too late here.
import _strptime  # noqa: F401
import encodings.ascii  # noqa: F401
import encodings.latin_1  # noqa: F401

_CLOCKS = [
    *("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time", "process_time_ns"),
    *("thread_time", "thread_time_ns", "clock_gettime", "clock_gettime_ns", "sleep", "localtime", "ctime"),
]
_FILES = ["open", "stat", "lstat", "listdir", "scandir", "mkdir", "remove", "unlink", "rename"]

NO_CLOCK = "a plugin has no clock; the order has `received`"
NO_CHANCE = "a plugin has no randomness; what it answers depends on its configuration and on the order alone"
NO_FILES = "a plugin has no files; read them when a module is imported, which is when the plugin is built"

_is_entered = False


def enter() -> None:
    """From now on, what is not there raises."""
    global _is_entered
    _is_entered = True
    sys.stdin = None  # type: ignore[assignment]


def install() -> None:
    """Puts guards in place of what will not be there. They do nothing before ``enter``."""
    for name in _CLOCKS:
        if hasattr(time, name):
            setattr(time, name, _guarded(getattr(time, name), RuntimeError, NO_CLOCK))
    datetime.datetime, datetime.date = _datetime, _date  # type: ignore[misc]

    # `random` keeps a copy.
    os.urandom = random._urandom = _guarded(os.urandom, RuntimeError, NO_CHANCE)  # type: ignore[attr-defined]
    for name in random.__all__:
        if isinstance(getattr(random._inst, name, None), Callable):  # type: ignore[attr-defined, arg-type]
            setattr(random, name, _guarded(getattr(random, name), RuntimeError, NO_CHANCE))

    builtins.open = io.open = _guarded(io.open, PermissionError, NO_FILES)
    for name in _FILES:
        if hasattr(os, name):
            setattr(os, name, _guarded(getattr(os, name), PermissionError, NO_FILES))
    sys.meta_path.insert(0, _Finder())  # type: ignore[arg-type]


def _guarded(function: Callable[..., Any], kind: type[Exception], why: str) -> Callable[..., Any]:
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if _is_entered:
            raise kind(why)
        return function(*args, **kwargs)

    return guarded


class _Finder:
    """Is asked first for each module that is not loaded yet."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if _is_entered and name not in sys.builtin_module_names:
            raise ImportError(f"{name} was not loaded when the plugin was built: import it at the top of plugin.py", name=name)


class _date(datetime.date):
    @classmethod
    def today(cls) -> datetime.date:
        if _is_entered:
            raise RuntimeError(NO_CLOCK)
        return super().today()


class _datetime(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
        if _is_entered:
            raise RuntimeError(NO_CLOCK)
        return super().now(tz)

    @classmethod
    def today(cls) -> datetime.datetime:
        return cls.now()

    @classmethod
    def utcnow(cls) -> datetime.datetime:
        return cls.now(datetime.timezone.utc).replace(tzinfo=None)


_date.__name__ = _date.__qualname__ = "date"
_datetime.__name__ = _datetime.__qualname__ = "datetime"
