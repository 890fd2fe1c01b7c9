"""Verdicts: is a result right, and if several differ, which one is off, by how much, where."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from adbridge.trees import PyTree, flatten, leaf_names

# From best to worst; a report's verdict is the worst of its comparisons.
VERDICTS = ("agree", "convention", "infinite", "undefined", "unsupported", "unresolved", "error", "wrong")

# Largest norm-wise relative error that counts as agreement. Rounding in the problems' sums of up to a
# million terms stays a hundred times below these; a derivative rule that is off in its tenth (third) digit
# does not. They depend on the dtype and not on the size: the norm is the maximum norm.
TOLERANCE = {"float64": 1e-10, "complex128": 1e-10, "float32": 1e-4, "complex64": 1e-4}

Parts = dict[str, PyTree]
"""A result in named parts, such as ``{"value": ..., "tangent": ...}``; each is judged on its own scale."""


@dataclass(frozen=True)
class Difference:
    """How far a result is from the expected one.

    `error` is max|got - expected| / max|expected|, taken leaf by leaf of each part, the worst leaf counting;
    `entry` names its worst entry, where the values are `got` and `expected`. NaN where a number is expected,
    and another structure, shape or dtype, are an infinite error, said in `note`.
    """

    error: float
    entry: str = ""
    got: float | complex | None = None
    expected: float | complex | None = None
    note: str = ""


@dataclass(frozen=True)
class Judgement:
    """The verdict on one backend's result, and the difference that it rests on."""

    verdict: str
    difference: Difference


def difference(got: Parts, expected: Parts, dtype: str) -> Difference:
    """Compare two results of NumPy arrays; `got` must be of this dtype."""
    assert got.keys() == expected.keys()
    return _worst([_part_difference(name, got[name], expected[name], dtype) for name in expected])


def _part_difference(name: str, got: PyTree, expected: PyTree, dtype: str) -> Difference:
    got_leaves, got_tree = flatten(got)
    leaves, tree = flatten(expected)
    if got_tree != tree:
        return Difference(np.inf, name, note=f"tree structure {got_tree}, expected {tree}")
    # What rounding in the largest leaves may leave in a leaf far below them: ten units in their last place.
    overall = max((_norm(leaf) for leaf in leaves), default=0.0)
    floor = 10 * float(np.finfo(dtype).eps) / TOLERANCE[dtype] * overall
    return _worst(
        [
            _leaf_difference(entry, np.asarray(a), np.asarray(b), floor, dtype)
            for entry, a, b in zip(leaf_names(name, tree), got_leaves, leaves, strict=True)
        ]
    )


def _worst(found: list[Difference]) -> Difference:
    return max(found, key=lambda d: d.error, default=Difference(0.0))


def _leaf_difference(name: str, got: Any, expected: Any, floor: float, dtype: str) -> Difference:
    if got.shape != expected.shape:
        return Difference(np.inf, name, note=f"shape {got.shape}, expected {expected.shape}")
    if str(got.dtype) != dtype:
        return Difference(np.inf, name, note=f"dtype {got.dtype}, expected {dtype}")
    if not got.size:
        return Difference(0.0)
    with np.errstate(invalid="ignore"):
        distance = np.abs(got - expected)
    distance = np.where(got == expected, 0.0, np.where(np.isnan(distance), np.inf, distance))
    place = np.unravel_index(int(np.argmax(distance)), distance.shape)
    scale = max(_norm(expected), floor) or 1.0
    entry = name + (f"[{', '.join(map(str, place))}]" if place else "")
    note = "not finite" if not np.isfinite(got[place]) else ""
    return Difference(float(distance[place] / scale), entry, got[place].item(), expected[place].item(), note)


def _norm(leaf: Any) -> float:
    finite = np.abs(np.asarray(leaf))
    return float(np.max(finite, initial=0.0, where=np.isfinite(finite)))


def judge(
    results: dict[str, Parts], answer: Parts | None, dtype: str, accuracy: Mapping[str, float] | None = None
) -> dict[str, Judgement]:
    """A verdict on each backend's result.

    Against the known answer where there is one. Else by majority: results that agree with more than half
    of all results are right, the others wrong; without a majority nobody can say, and all are
    `unresolved`. A single result without an answer has been compared with nothing: `unresolved`.
    `accuracy` is what a backend promises of its derivatives (`Capabilities.accuracy`), if less than all digits.
    """
    if answer is not None:
        promised = accuracy or {}
        return {name: _against(result, answer, dtype, promised.get(name, 1.0)) for name, result in results.items()}
    for result in results.values():
        verdicts = {name: _against(other, result, dtype) for name, other in results.items()}
        votes = sum(j.verdict == "agree" for j in verdicts.values())
        if votes > 1 and 2 * votes > len(results):
            return verdicts
    note = "no known answer and no majority among the backends"
    return {name: Judgement("unresolved", Difference(np.nan, note=note)) for name in results}


def _against(result: Parts, expected: Parts, dtype: str, accuracy: float = 1.0) -> Judgement:
    assert result.keys() == expected.keys()
    found = {part: difference({part: result[part]}, {part: expected[part]}, dtype) for part in expected}
    right = all(d.error <= tolerance(dtype, 1.0 if part == "value" else accuracy) for part, d in found.items())
    return Judgement("agree" if right else "wrong", _worst(list(found.values())))


def tolerance(dtype: str, accuracy: float = 1.0) -> float:
    """The largest relative error that counts as agreement, of a backend with this `Capabilities.accuracy`."""
    return max(TOLERANCE[dtype], float(np.finfo(dtype).eps ** accuracy))


def disagreement(results: dict[str, Parts], name: str, right: Collection[str], dtype: str) -> float:
    """Largest relative difference between one backend's result and those that are right; NaN if none other is."""
    others = [difference(results[name], results[other], dtype).error for other in right if other != name]
    return max(others, default=float("nan"))


def worst(verdicts: list[str]) -> str:
    """The worst verdict; ``unresolved`` if there is none: zero comparisons is not a pass."""
    return max(verdicts, key=VERDICTS.index, default="unresolved")
