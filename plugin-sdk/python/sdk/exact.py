"""JSON without loss: numbers become ``int`` and ``Decimal``, and a member's exact text can be had."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from json.decoder import scanstring
from typing import Any

_INDEX = re.compile(r"0|[1-9][0-9]*")
_SPACE = re.compile(r"[ \t\n\r]*")


def _fraction(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        # Its exponent is beyond what even Decimal holds. No order has a number beyond a double, so it is next to nothing.
        return Decimal(0)


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


_decoder = json.JSONDecoder(parse_float=_fraction, parse_constant=_constant)


def parse(text: str) -> Any:
    """Reads a document: integers become ``int``, all other numbers ``Decimal``, both exact."""
    return _decoder.decode(text)


def to_json(value: Any) -> str:
    """The JSON of a value, without white space; ``int`` and ``Decimal`` keep their digits.

    Raises ``TypeError`` or ``ValueError`` where a value has no JSON form, such as NaN or a set.
    """
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if value is None or isinstance(value, (bool, int)):
        return json.dumps(value)
    if isinstance(value, float):
        return json.dumps(value, allow_nan=False)
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError(f"{value} has no JSON form")
        return str(value)
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                raise TypeError(f"the name {name!r} of a member is not a string")
        return "{" + ",".join(f"{to_json(name)}:{to_json(member)}" for name, member in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(to_json, value)) + "]"
    raise TypeError(f"{type(value).__name__} has no JSON form")


def pointer_names(pointer: str) -> list[str] | None:
    """The names of a JSON Pointer (RFC 6901); none if it is none."""
    if pointer == "":
        return []
    if not pointer.startswith("/"):
        return None
    return [name.replace("~1", "/").replace("~0", "~") for name in pointer[1:].split("/")]


_MISSING = object()


def value_at(value: Any, pointer: str, default: Any = None) -> Any:
    """The value under a JSON Pointer in what ``parse`` gave."""
    names = pointer_names(pointer)
    if names is None:
        return default
    for name in names:
        if isinstance(value, dict):
            value = value.get(name, _MISSING)
        elif isinstance(value, list) and _INDEX.fullmatch(name) and int(name) < len(value):
            value = value[int(name)]
        else:
            return default
        if value is _MISSING:
            return default
    return value


def raw_at(text: str, pointer: str) -> str | None:
    """The exact text of the value under a JSON Pointer in a valid document; none if there is none."""
    names = pointer_names(pointer)
    if names is None:
        return None
    start = skip_space(text, 0)
    for name in names:
        if text[start] == "{":
            found = next((begin for own, begin, _ in members(text, start) if own == name), None)
        elif text[start] == "[" and _INDEX.fullmatch(name):
            index = int(name)
            found = next((begin for at, (begin, _) in enumerate(elements(text, start)) if at == index), None)
        else:
            found = None
        if found is None:
            return None
        start = found
    return text[start : _skip(text, start)]


def members(text: str, start: int) -> Iterator[tuple[str, int, int]]:
    """The members of the object that begins at ``start``: name, and where the value begins and ends."""
    here = skip_space(text, start + 1)
    while text[here] == '"':
        name, here = scanstring(text, here + 1)
        value = skip_space(text, skip_space(text, here) + 1)
        end = _skip(text, value)
        yield name, value, end
        here = skip_space(text, end)
        if text[here] != ",":
            return
        here = skip_space(text, here + 1)


def elements(text: str, start: int) -> Iterator[tuple[int, int]]:
    """The elements of the array that begins at ``start``: where each begins and ends."""
    here = skip_space(text, start + 1)
    while text[here] != "]":
        end = _skip(text, here)
        yield here, end
        here = skip_space(text, end)
        if text[here] != ",":
            return
        here = skip_space(text, here + 1)


def skip_space(text: str, here: int) -> int:
    """Where the next token begins."""
    match = _SPACE.match(text, here)
    return match.end() if match else here


def _skip(text: str, start: int) -> int:
    """Behind the value that begins at ``start``."""
    return _decoder.raw_decode(text, start)[1]
