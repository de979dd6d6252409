"""From what an author writes to a plugin that answers each order, whatever goes wrong in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .host import log
from .exact import parse
from .order import Order
from .verdict import Accept, Enrich, Fault, Problem, Reject, RetryLater, Verdict

#: Calls that the log names, from the innermost. A line of it has room for about so many.
PLACES_MAX = 10

_VERDICTS = (Accept, Enrich, Reject, RetryLater, Fault)


class Plugin:
    """Base of a plugin. The module ``plugin`` has exactly one class that derives from it."""

    def configure(self, config: dict[str, Any]) -> None:
        """Takes the operator's configuration. Called once for each batch of orders, so keep it cheap.

        An exception refuses the plugin. The configuration can be anything: look before you trust.
        """

    def judge(self, order: Order) -> Verdict:
        """Judges one order. An exception holds the order and counts as the plugin's fault."""
        raise NotImplementedError(f"{type(self).__name__} has no judge(self, order)")


class ConfigurationError(Exception):
    """Raised by ``configure``: the gateway refuses the plugin and shows the problems."""

    def __init__(self, problems: Problem | Iterable[Problem], *more: Problem) -> None:
        self.problems = [*([problems] if isinstance(problems, Problem) else problems), *more]
        super().__init__("; ".join(one.detail or one.title for one in self.problems))


def configured(kind: type[Plugin], config: bytes) -> Plugin:
    """Makes the plugin from the JSON of its configuration. Raises a ``ConfigurationError``, whatever went wrong."""
    try:
        value = parse(config.decode())
        if not isinstance(value, dict):
            raise ValueError("expected a JSON object")
        plugin = kind()
        plugin.configure(value)
        return plugin
    except ConfigurationError as error:
        if error.problems:
            raise
        raise _invalid(error) from error
    except (Exception, SystemExit) as error:
        raise _invalid(error) from error


def _invalid(error: BaseException) -> ConfigurationError:
    return ConfigurationError(Problem("invalid-configuration", "Invalid configuration", detail=_message(error)))


def judged(plugin: Plugin, order: Order) -> Verdict:
    """Judges one order; an exception becomes a fault with its message, and its place goes to the log."""
    try:
        verdict = plugin.judge(order)
    except (Exception, SystemExit) as error:
        log.error(_placed(error))
        code = getattr(error, "code", None)
        return Fault(code if isinstance(code, str) else "exception", _message(error))
    if not isinstance(verdict, _VERDICTS):
        return Fault("no-verdict", f"judge returned {type(verdict).__name__} instead of a verdict")
    return verdict


def _message(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _placed(error: BaseException) -> str:
    """The message and where it came from. The module ``traceback`` would look for source files, which are not there."""
    lines: list[str] = []
    place = error.__traceback__
    while place is not None:
        code = place.tb_frame.f_code
        lines.append(f"    at {code.co_qualname} ({code.co_filename.rpartition('/')[2]}:{place.tb_lineno})")
        place = place.tb_next
    return "\n".join([_message(error), *reversed(lines[-PLACES_MAX:])])
