"""Where else to look: points near the example and far from it, of all signs, at ties, zeros and branch borders."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adbridge.errors import RuleError
from adbridge.validate.rule_checks.candidate import Candidate, Leaves

Value = Callable[[Leaves], Leaves]
"""The plain function's value; may raise."""
Interval = tuple[float, float]

MANY = 160
"""Values of each argument at which a function of the elements alone is tried at once."""


@dataclass(frozen=True)
class Point:
    """Arguments to check at. `extreme` ones are where an engine's own arithmetic may fail."""

    label: str
    leaves: Leaves
    extreme: bool = False


# The domain.


@dataclass(frozen=True)
class Domain:
    """Where the function and its rule are meant to be used: an open interval for each leaf, or a predicate."""

    intervals: tuple[Interval, ...]
    predicate: Callable[..., Any] | None = None

    def holds(self, candidate: Candidate, leaves: Leaves) -> bool:
        if self.predicate is not None:
            return bool(np.all(self.predicate(*candidate.arguments(leaves))))
        return all(bool(np.all(inside(leaf, ends))) for leaf, ends in zip(leaves, self.intervals, strict=True))


_EVERYTHING: Interval = (-math.inf, math.inf)


def inside(values: Any, ends: Interval) -> Any:
    """Which values an open interval holds; of complex ones, all."""
    if np.asarray(values).dtype.kind == "c" or ends == _EVERYTHING:
        return np.ones(np.shape(values), bool)
    return (values > ends[0]) & (values < ends[1])


def domain_of(domain: Any, candidate: Candidate) -> Domain:
    """From ``(low, high)`` for all arguments, one such for each, or a predicate of the arguments.

    Raises RuleError: it is none of these, it is empty, or the example lies outside of it.
    """
    count = len(candidate.leaves)
    if domain is None:
        return Domain((_EVERYTHING,) * count)
    everything = (_EVERYTHING,) * count
    found = Domain(everything, domain) if callable(domain) else Domain(_intervals(domain, candidate))
    if not found.holds(candidate, candidate.leaves):
        raise RuleError(
            f"check_rule of {candidate.name}: the example arguments lie outside of the domain given, {_shown(domain)}; "
            "give an example inside of it"
        )
    return found


def _intervals(domain: Any, candidate: Candidate) -> tuple[Interval, ...]:
    arguments = candidate.ruled
    parts = arguments.parts
    ends = [domain] * len(parts) if _is_interval(domain) else list(domain) if isinstance(domain, (tuple, list)) else []
    if len(ends) != len(parts) or not all(e is None or _is_interval(e) for e in ends):
        raise RuleError(
            f"check_rule of {candidate.name}: domain must be (low, high), a sequence of {len(parts)} such (one "
            f"for each argument, None for no limit) or a predicate of the arguments; got {_shown(domain)}"
        )
    for low, high in (e for e in ends if e is not None):
        if not low < high:
            raise RuleError(
                f"check_rule of {candidate.name}: the domain ({low}, {high}) is empty; give (low, high) with low < high"
            )
    by_leaf = [
        _EVERYTHING if e is None else e for e, part in zip(ends, parts, strict=True) for _ in range(part.num_leaves)
    ]
    return tuple((float(by_leaf[slot][0]), float(by_leaf[slot][1])) for slot in arguments.slots)


def _is_interval(x: Any) -> bool:
    return isinstance(x, (tuple, list)) and len(x) == 2 and all(isinstance(e, (int, float, np.generic)) for e in x)


def _shown(domain: Any) -> str:
    return getattr(domain, "__name__", repr(domain))


# Functions of the elements alone.


def is_elementwise(value: Value, leaves: Leaves) -> bool:
    """Whether each element of the one output depends on the same element of each argument alone, in any shape."""
    first = leaves[0]
    if any(leaf.shape != first.shape or leaf.dtype.kind != "f" for leaf in leaves) or first.size == 0:
        return False
    try:
        outs = value(leaves)
        if len(outs) != 1 or outs[0].shape != first.shape or outs[0].dtype.kind != "f":
            return False
        return all(_same_in_a_row(value, leaves, outs[0].reshape(-1), places) for places in _orders(first.size))
    except Exception:  # whatever a function raises in a shape that it is not made for
        return False


def _orders(size: int) -> Iterator[Any]:
    yield np.zeros(5, int)
    yield np.resize(np.arange(size)[::-1], 2 * size + 3)
    yield np.random.default_rng(0).integers(size, size=7)


def _same_in_a_row(value: Value, leaves: Leaves, out: Any, places: Any) -> bool:
    """As a vector of these elements; where they are all alike, of others mixed in."""
    row = tuple(leaf.reshape(-1)[places] for leaf in leaves)
    mixed = tuple(np.where(np.arange(len(places)) % 3 == 1, 0.75 * r, r) for r in row)
    kept = np.arange(len(places)) % 3 != 1
    alone, beside = value(row)[0], value(mixed)[0]
    expected, eps = out[places], 16 * np.finfo(out.dtype).eps
    return bool(
        alone.shape == expected.shape == beside.shape
        and np.allclose(alone, expected, rtol=eps, atol=0, equal_nan=True)
        and np.allclose(beside[kept], expected[kept], rtol=eps, atol=0, equal_nan=True)
    )


def rows_of_values(domain: Domain, dtype: Any, many: int) -> Iterator[Point]:
    """Vectors of values of every size and sign, about `many` in the first, for a function of the elements alone."""
    rng = np.random.default_rng(3)
    for label, values, extreme in _families(dtype, many):
        columns = [_within(values, ends, dtype) for ends in domain.intervals]
        size = max(map(len, columns))
        mixed = tuple(np.resize(c if i == 0 else rng.permutation(c), size) for i, c in enumerate(columns))
        yield Point(label, mixed, extreme)
    if len(domain.intervals) > 1:
        ties = _within(_families(dtype, many)[0][1][:40], domain.intervals[0], dtype)
        yield Point("equal arguments", (ties,) * len(domain.intervals))


def _families(dtype: Any, many: int) -> list[tuple[str, Any, bool]]:
    rng = np.random.default_rng(5)
    logs = 10.0 ** rng.uniform(-3, 2, many // 4)
    moderate = np.concatenate([rng.uniform(-4, 4, many // 2), logs, -logs])
    wide = np.dtype(dtype).itemsize > 4
    powers = [-200, -100, -30, -8, -5, 3, 4, 6, 8, 12, 16, 30, 100, 150] if wide else [-30, -12, -5, 3, 4, 6, 9, 18]
    far = np.array([sign * (1 + i / 64) * 10.0**p for i, p in enumerate(powers) for sign in (1, -1)])
    whole = np.array([0.0, *(s * n for n in (0.5, 1, 2, 3, 4, 10) for s in (1, -1))])
    return [("moderate values", moderate, False), ("huge and tiny values", far, True), ("whole numbers", whole, False)]


def _within(values: Any, ends: Interval, dtype: Any) -> Any:
    """Those of the values that the interval holds, and some spread over it."""
    kept = values[inside(values, ends)]
    low, high = ends
    if math.isfinite(low) and math.isfinite(high):
        kept = np.concatenate([kept, low + (high - low) * np.linspace(0, 1, 27)[1:-1]])
    elif math.isfinite(low):
        kept = np.concatenate([kept, low + np.abs(values[:40])])
    elif math.isfinite(high):
        kept = np.concatenate([kept, high - np.abs(values[:40])])
    kept = kept.astype(dtype)
    return kept[inside(kept, ends)]


# Other functions: the example, changed as a whole.


def changed(candidate: Candidate, domain: Domain, seed: int) -> Iterator[Point]:
    """Points of the example's shapes, the most telling first."""
    leaves, rng = candidate.leaves, np.random.default_rng([seed, 17])
    scales = [max(float(np.sqrt(np.mean(np.abs(leaf) ** 2))) if leaf.size else 0.0, 1e-3) for leaf in leaves]

    def moved(by: float) -> Leaves:
        return tuple(leaf + by * s * _noise(rng, leaf) for leaf, s in zip(leaves, scales, strict=True))

    def drawn() -> Leaves:
        return tuple(_noise(rng, leaf) for leaf in leaves)

    yield Point("a point nearby", _cast(moved(0.3), leaves))
    yield Point("a random point", _cast(drawn(), leaves))
    yield Point("of the other sign", _cast([-leaf for leaf in leaves], leaves))
    yield Point("a point further off", _cast(moved(2.0), leaves))
    if any(ends != _EVERYTHING for ends in domain.intervals):
        yield Point("within the domain", _cast(_spread(rng, leaves, domain), leaves))
        yield Point("within the domain", _cast(_spread(rng, leaves, domain), leaves))
    yield Point("positive values", _cast([np.abs(x) + 0.1 for x in drawn()], leaves))
    yield Point("negative values", _cast([-np.abs(x) - 0.1 for x in drawn()], leaves))
    yield Point("a point very near", _cast(moved(1e-3), leaves))
    for factor in (0.1, 3.0, 10.0, 100.0, 1e-4):
        yield Point(f"{factor:g} times the example", _cast([factor * leaf for leaf in moved(0.05)], leaves))
    if len(leaves) > 1:
        for i in range(len(leaves)):
            one = [_noise(rng, leaf) if i == j else leaf for j, leaf in enumerate(leaves)]
            yield Point(f"another {candidate.ruled.names[i]}", _cast(one, leaves))
    yield from _special(leaves, rng)
    for factor in (1e8, 1e-8, 1e100, 1e-100):
        yield Point(f"{factor:g} times the example", _cast([factor * leaf for leaf in leaves], leaves), extreme=True)


def _special(leaves: Leaves, rng: np.random.Generator) -> Iterator[Point]:
    """Zeros and ties."""
    if any(leaf.size > 1 for leaf in leaves):
        yield Point("one entry zero", _cast([_with_first(leaf, lambda x: 0 * x[0]) for leaf in leaves], leaves))
        yield Point("two entries equal", _cast([_with_first(leaf, lambda x: x[-1]) for leaf in leaves], leaves))
        order = [np.sort(leaf.reshape(-1))[::-1].reshape(leaf.shape) for leaf in leaves]
        yield Point("entries in descending order", _cast(order, leaves))
        yield Point("all entries equal", _cast([_constant(leaf, np.mean(leaf)) for leaf in leaves], leaves))
    yield Point("all zero", _cast([_constant(leaf, 0.0) for leaf in leaves], leaves))
    yield Point("whole numbers", _cast([np.round(3 * _noise(rng, leaf)) for leaf in leaves], leaves))


def _constant(leaf: Any, value: Any) -> Any:
    """One value in every place. Of square matrices, that would be singular: a multiple of the identity."""
    if is_square(leaf):
        return np.broadcast_to(np.eye(leaf.shape[-1]) * (value or 1.0), leaf.shape)
    return np.full_like(leaf, value)


def is_square(leaf: Any) -> bool:
    """Whether it is a matrix, or a stack of them, with as many rows as columns."""
    return bool(leaf.ndim >= 2 and leaf.shape[-1] == leaf.shape[-2] and leaf.shape[-1] > 1)


def _with_first(leaf: Any, entry: Callable[[Any], Any]) -> Any:
    out = np.array(leaf)
    if leaf.size > 1:
        out.reshape(-1)[0] = entry(leaf.reshape(-1))
    return out


def _spread(rng: np.random.Generator, leaves: Leaves, domain: Domain) -> list[Any]:
    """Uniform over a bounded interval, and over magnitudes where it is not bounded."""
    out = []
    for leaf, (low, high) in zip(leaves, domain.intervals, strict=True):
        if math.isfinite(low) and math.isfinite(high):
            out.append(low + (high - low) * rng.uniform(0.01, 0.99, leaf.shape))
        elif math.isfinite(low):
            out.append(low + 10.0 ** rng.uniform(-2, 1, leaf.shape))
        elif math.isfinite(high):
            out.append(high - 10.0 ** rng.uniform(-2, 1, leaf.shape))
        else:
            out.append(_noise(rng, leaf))
    return out


def _noise(rng: np.random.Generator, leaf: Any) -> Any:
    """Normal; symmetric where the leaf is, for functions of symmetric matrices are checked among these."""
    noise = rng.standard_normal(leaf.shape)
    if leaf.dtype.kind == "c":
        return noise + 1j * rng.standard_normal(leaf.shape)
    if is_square(leaf) and np.array_equal(leaf, np.swapaxes(leaf, -1, -2)):
        return (noise + np.swapaxes(noise, -1, -2)) / 2
    return noise


def _cast(values: Sequence[Any], like: Leaves) -> Leaves:
    return tuple(np.array(v, leaf.dtype, order="C").reshape(leaf.shape) for v, leaf in zip(values, like, strict=True))
