"""How cost grows: the exponent p of cost ~ size^p, fitted where the growth has set in."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from adbridge.bench.store import Record

# The fit takes the largest sizes: below them the fixed cost of a call hides the growth.
TAIL = 3
# 95% points of Student's t with 1, 2, ... degrees of freedom: [low, high] then holds 90%.
_STUDENT = (6.314, 2.920, 2.353)

KEYS = ("suite", "problem", "operator", "mode", "backend", "device", "dtype")
GROWTH_COLUMNS = (*KEYS, "variable", "quantity", "exponent", "low", "high", "from_size", "to_size")


@dataclass(frozen=True)
class Growth:
    """Least-squares slope of log(cost) over log(size), between two sizes.

    `low` and `high` are the regression's own 90% interval (Student's t on the residuals about the line): it
    is wide where the sizes do not lie on one power law, and NaN where two sizes leave no residual.
    """

    variable: str
    quantity: str
    exponent: float
    low: float
    high: float
    from_size: int
    to_size: int


def growths(records: list[Record]) -> list[dict[str, Any]]:
    """Every fit that the records allow (two sizes or more), as rows for `Run.scaling`."""
    measured = sorted((r for r in records if r["outcome"] in ("ok", "wrong")), key=_key)
    rows = []
    for key, group in groupby(measured, key=_key):
        cases = list(group)
        for variable, other in (("n", "m"), ("m", "n")):
            line = _longest_line(cases, variable, other)[-TAIL:]
            if len(line) >= 2:
                rows += [{**dict(zip(KEYS, key, strict=True)), **vars(g)} for g in _fits(line, variable)]
    return rows


def _key(record: Record) -> tuple[str, ...]:
    return tuple(str(record.get(name, "")) for name in KEYS)


def _longest_line(cases: list[Record], variable: str, other: str) -> list[Record]:
    """The cases along which only `variable` changes: the longest such line, by size."""
    lines: dict[int, dict[int, Record]] = {}
    for case in cases:
        lines.setdefault(case[other], {})[case[variable]] = case
    longest = max(lines.values(), key=len, default={})
    return [longest[size] for size in sorted(longest) if size > 0]


def _fits(line: list[Record], variable: str) -> list[Growth]:
    sizes = np.array([case[variable] for case in line], dtype=float)
    fits = []
    for quantity, column in (("seconds", "seconds_min"), ("bytes", "peak_alloc_bytes")):
        costs = [case.get(column) for case in line]
        if all(costs):
            exponent, half = slope(sizes, np.array(costs, dtype=float))
            ends = (int(sizes[0]), int(sizes[-1]))
            fits.append(Growth(variable, quantity, exponent, exponent - half, exponent + half, *ends))
    return fits


def slope(sizes: Any, costs: Any) -> tuple[float, float]:
    """Least-squares slope in log-log coordinates, and half its 90% interval (NaN for two points)."""
    x, y = np.log(sizes), np.log(costs)
    x, y = x - x.mean(), y - y.mean()
    found = float(x @ y / (x @ x))
    freedom = len(x) - 2
    if freedom < 1:
        return found, float("nan")
    error = float(np.sqrt(np.sum((y - found * x) ** 2) / freedom / (x @ x)))
    return found, _STUDENT[freedom - 1] * error
