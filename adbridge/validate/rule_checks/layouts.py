"""How arrays lie in memory, and odd shapes, must not matter: transposed, strided, broadcast, empty, 0-d."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from adbridge import operators
from adbridge.protocol import Backend
from adbridge.trees import flatten
from adbridge.validate.rule_checks.bench import Bench
from adbridge.validate.rule_checks.candidate import (
    Leaves,
    Vector,
    as_cotangent,
    as_tangent,
    cotangents_of,
    sizes,
    tangents_of,
)
from adbridge.validate.rule_checks.points import Point, is_square
from adbridge.validate.rule_checks.rule_report import Row
from adbridge.validate.rule_checks.running import Runner
from adbridge.validate.rule_checks.settling import Outcome, Scale, precision_of, random_signs

Layout = Callable[[Any], Any]


def layouts(bench: Bench) -> Iterator[Row]:
    """Arguments and cotangents in other layouts give what they give in C order; so do empty and 0-d ones."""
    point = bench.example
    if _has_strides(bench.backend) and any(leaf.ndim for leaf in point.leaves):
        yield from _laid_out(bench, point)
    if bench.library.elementwise:
        yield from _odd_shapes(bench, point)


def _has_strides(backend: Backend) -> bool:
    """Whether the engine's arrays are NumPy's, or have strides as these do."""
    return not backend.capabilities.compile or backend.name == "reference"


# Layouts.


def _strided(x: Any) -> Any:
    """Every other element of a larger array."""
    return np.repeat(x, 2, axis=-1)[..., ::2]


def _transposed(x: Any) -> Any:
    return np.asfortranarray(x)


def _constant(x: Any) -> Any:
    """One number in every place, with strides of 0."""
    return np.broadcast_to(np.asarray(x.reshape(-1)[0], x.dtype), x.shape)


_LAYOUTS: dict[str, Layout] = {
    "every other element of an array": _strided,
    "in Fortran order": _transposed,
    "broadcast, with strides of 0": _constant,
}


def _laid_out(bench: Bench, point: Point) -> Iterator[Row]:
    for name, layout in _LAYOUTS.items():
        leaves = tuple(map(_where_it_can(layout), point.leaves))
        if name.startswith("broadcast") and (any(map(is_square, leaves)) or not _is_fine(bench, leaves)):
            leaves = point.leaves
        where = Point(f"{point.label}, {name}", leaves)
        for mode in bench.modes:
            likes = leaves if mode == "forward" else bench.plain.value(point.leaves)
            seed = random_signs(bench.rng(61), sum(sizes(likes)))
            made = tangents_of(seed, likes) if mode == "forward" else cotangents_of(seed, likes)
            seeds = tuple(map(_where_it_can(layout), made))
            run = _pushed if mode == "forward" else _pulled
            pair = bench.attempt("layout", mode, where, partial(run, leaves=leaves, seeds=seeds))
            yield pair if isinstance(pair, Row) else bench.row("layout", mode, where, _equal(pair, leaves))


def _where_it_can(layout: Layout) -> Layout:
    return lambda x: layout(x) if x.ndim and x.size else x


def _is_fine(bench: Bench, leaves: Leaves) -> bool:
    return bench.library.is_usable(Point("", leaves))


def _pushed(runner: Runner, leaves: Leaves, seeds: Leaves) -> tuple[Vector, Vector]:
    """In this layout, and in C order."""
    backend = runner.backend
    with backend.scope([leaf.dtype.name for leaf in leaves]):
        arrays, tangents = (tuple(_native(backend, x) for x in xs) for xs in (leaves, seeds))
        found = flatten(operators.jvp(runner.fun, arrays, tangents, backend=backend)[1])[0]
        got = as_tangent([np.asarray(backend.to_numpy(x)) for x in found])
    return got, runner.jvp(_in_order(leaves), as_tangent(_in_order(seeds)))[1]


def _pulled(runner: Runner, leaves: Leaves, seeds: Leaves) -> tuple[Vector, Vector]:
    backend = runner.backend
    with backend.scope([leaf.dtype.name for leaf in leaves]):
        arrays, cotangents = ([_native(backend, x) for x in xs] for xs in (leaves, seeds))
        out, pullback = operators.vjp(runner.fun, *arrays, backend=backend)
        found = flatten(pullback(flatten(out)[1].unflatten(cotangents)))[0]
        got = as_cotangent([np.asarray(backend.to_numpy(x)) for x in found])
    return got, runner.vjp(_in_order(leaves))[1](as_cotangent(_in_order(seeds)))


def _in_order(leaves: Leaves) -> Leaves:
    """Copies in C order."""
    return tuple(np.array(x, order="C") for x in leaves)


def _native(backend: Backend, x: Any) -> Any:
    """An engine array with this one's strides, as far as the engine has any."""
    if not x.ndim:
        return backend.from_numpy(x)
    made = backend.from_numpy(np.ascontiguousarray(x))
    if not backend.owns(made):
        return x
    xp = backend.namespace
    if 0 in x.strides:
        return xp.broadcast_to(backend.from_numpy(np.array(x.reshape(-1)[0])), x.shape)
    if not x.flags.c_contiguous and x.flags.f_contiguous:
        axes = tuple(range(x.ndim))[::-1]
        return xp.permute_dims(backend.from_numpy(np.ascontiguousarray(x.transpose())), axes)
    return xp.stack([made, made], axis=-1)[..., 0]


def _equal(pair: tuple[Vector, Vector], leaves: Leaves) -> Outcome:
    got, expected = pair
    size = float(np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected)))
    same = Scale(precision_of(leaves), size).close(got, expected) | (np.isnan(got) & np.isnan(expected))
    if np.all(same):
        return Outcome("agree", len(expected))
    j = int(np.argmin(same))
    note = "not what it is in C order"
    return Outcome("wrong", 1, got=float(got[j]), expected=float(expected[j]), note=note, coordinate=j)


# Odd shapes, of functions of the elements alone.


def _odd_shapes(bench: Bench, point: Point) -> Iterator[Row]:
    flat = [leaf.reshape(-1) for leaf in point.leaves]
    shapes = {
        "of no elements": tuple(leaf[:0] for leaf in flat),
        "0-d": tuple(np.array(leaf[-1]) for leaf in flat),
        "(1, 1)": tuple(leaf[-1:].reshape(1, 1) for leaf in flat),
    }
    for name, leaves in shapes.items():
        where = Point(f"arguments {name}", leaves)
        if not _runs(bench, leaves):
            continue
        for mode in bench.modes:
            rows = [bench.forward("layout", where, np.ones(leaves[0].size * len(leaves)))] if mode == "forward" else (
                bench.reverse("layout", where, 1)
            )  # fmt: skip
            for row in rows:
                if row.verdict != "error" and (row.comparisons or row.failed):
                    yield row


def _runs(bench: Bench, leaves: Leaves) -> bool:
    try:
        return bool(bench.plain.value(leaves)[0].shape == leaves[0].shape)
    except Exception:  # a function need not take such shapes
        return False
