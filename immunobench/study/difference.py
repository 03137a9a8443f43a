"""Where two JSON values differ, by path."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Change:
    """One place where two values differ."""

    path: str
    """Keys and indices from the top, joined by dots."""
    first: Any
    """None where it is in the second alone."""
    second: Any

    def __str__(self) -> str:
        return f"{self.path or 'it'} is {_short(self.second)}, not {_short(self.first)}"


def changes(first: Any, second: Any, tolerance: float = 0.0, path: str = "") -> Iterator[Change]:
    """Every leaf that differs between two JSON values, in their order.

    Numbers count as equal within ``tolerance``, relative to the larger one or absolute below 1. Lists of different
    length differ as a whole.
    """
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for key in dict.fromkeys([*first, *second]):
            yield from changes(first.get(key), second.get(key), tolerance, f"{path}.{key}" if path else str(key))
    elif isinstance(first, list | tuple) and isinstance(second, list | tuple) and len(first) == len(second):
        for index, (one, other) in enumerate(zip(first, second, strict=True)):
            yield from changes(one, other, tolerance, f"{path}.{index}" if path else str(index))
    elif not _equal(first, second, tolerance):
        yield Change(path, first, second)


def _equal(first: Any, second: Any, tolerance: float) -> bool:
    if _is_number(first) and _is_number(second):
        both_nan = math.isnan(first) and math.isnan(second)
        return both_nan or first == second or abs(first - second) <= tolerance * max(1.0, abs(first), abs(second))
    return type(first) is type(second) and bool(first == second)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
