"""How cost grows: the exponent p of cost ~ size^p, fitted where the growth has set in."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from adbridge.bench.store import Record

# The fit takes the largest sizes: below them the fixed cost of a call hides the growth.
TAIL = 3
_RESAMPLES = 200
_INTERVAL = (5, 95)  # percent

KEYS = ("suite", "problem", "operator", "mode", "backend", "device", "dtype")
GROWTH_COLUMNS = (*KEYS, "variable", "quantity", "exponent", "low", "high", "from_size", "to_size")


@dataclass(frozen=True)
class Growth:
    """Least-squares slope of log(cost) over log(size), between two sizes; `low` and `high` bound it.

    For seconds the bounds are the 5 and 95 percent points over resampled timing samples (bootstrap); for
    bytes, which do not vary between calls, they are the exponent itself.
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
    ends = (int(sizes[0]), int(sizes[-1]))
    fits = []
    if all(case.get("seconds_min") for case in line):
        exponent = slope(sizes, np.array([case["seconds_min"] for case in line]))
        low, high = _bootstrap(sizes, [np.array(case["samples"]) for case in line], exponent)
        fits.append(Growth(variable, "seconds", exponent, low, high, *ends))
    if all(case.get("peak_alloc_bytes") for case in line):
        exponent = slope(sizes, np.array([case["peak_alloc_bytes"] for case in line], dtype=float))
        fits.append(Growth(variable, "bytes", exponent, exponent, exponent, *ends))
    return fits


def slope(sizes: Any, costs: Any) -> float:
    """Least-squares slope in log-log coordinates."""
    x, y = np.log(sizes), np.log(costs)
    x = x - x.mean()
    return float(x @ (y - y.mean()) / (x @ x))


def _bootstrap(sizes: Any, samples: list[Any], exponent: float) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    draws = [slope(sizes, [rng.choice(s, len(s)).min() for s in samples]) for _ in range(_RESAMPLES)]
    low, high = np.percentile(draws, _INTERVAL)
    return min(float(low), exponent), max(float(high), exponent)
