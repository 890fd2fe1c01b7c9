"""The checks of a derivative rule on one backend, in their order. Each is a function from a `Bench` to rows.

The first that fails ends the check of a backend: what comes after it would fail for the same reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from adbridge import operators
from adbridge.trees import flatten, leaf_names, spec_of
from adbridge.validate.rule_checks.bench import Bench
from adbridge.validate.rule_checks.candidate import Leaves, Vector, as_tangent, sizes
from adbridge.validate.rule_checks.curvature import second_order, second_order_elsewhere
from adbridge.validate.rule_checks.inplace import unchanged
from adbridge.validate.rule_checks.layouts import layouts
from adbridge.validate.rule_checks.points import Point
from adbridge.validate.rule_checks.rule_report import Row
from adbridge.validate.rule_checks.running import Runner
from adbridge.validate.rule_checks.settling import Outcome, Scale, bisected, precision_of, random_signs
from adbridge.validate.rule_checks.special import single_precision, special_points

ONE_BY_ONE = 8
"""Up to so many outputs each gets a cotangent of its own, up to so many inputs a tangent."""
POWERS = (20, -20, 30, -30)
"""Tangents and cotangents times two to these: exact, but for overflow and underflow."""


@dataclass(frozen=True)
class Check:
    name: str
    run: Callable[[Bench], Iterator[Row]]


# The value.


def primal(bench: Bench) -> Iterator[Row]:
    """The plain function runs; twice the same with the rule; the same value with and without it, within derivatives
    too; no argument changed in place."""
    point = bench.example
    plain = _plain_value(bench, point)
    if isinstance(plain, Row):
        yield plain
        return
    values = [bench.attempt("primal", "", point, lambda runner: runner.value(point.leaves)) for _ in range(2)]
    for value in values:
        if isinstance(value, Row):
            yield value
            return
    yield bench.row("primal", "", point, _twice(bench, point, values))
    yield bench.row("primal", "", point, _same_value(bench, plain, values[0], precision_of(point.leaves)))
    for mode, run in _SWEEPS.items():
        found = bench.attempt("primal", mode, point, partial(run, leaves=point.leaves))
        if isinstance(found, Row):
            if "must return, first" in found.note or found.verdict == "wrong":
                yield found
            continue  # the next check says why a mode is not there
        outcome = _same_value(bench, plain, found, precision_of(point.leaves), f"the value that {mode} mode returns")
        yield bench.row("primal", mode, point, outcome)
    yield unchanged(bench, point)


_SWEEPS: dict[str, Callable[..., Leaves]] = {
    "forward": lambda runner, leaves: runner.jvp(leaves, np.ones(sum(sizes(leaves))))[0],
    "reverse": lambda runner, leaves: runner.vjp(leaves)[0],
}


def _plain_value(bench: Bench, point: Point) -> Any:
    try:
        return bench.plain.value(point.leaves)
    except Exception as exc:  # whatever a function raises on an engine that it was not written for
        text = f"the plain function does not run on {bench.backend.name}: {type(exc).__name__}: {exc}"
        return bench.row("primal", "", point, Outcome("unsupported", 0, note=text.splitlines()[0][:200]))


def _twice(bench: Bench, point: Point, values: list[Leaves]) -> Outcome:
    first, again = values
    same = len(first) == len(again) and all(
        np.array_equal(a, b, equal_nan=True) for a, b in zip(first, again, strict=True)
    )
    if same:
        return Outcome("agree", sum(sizes(first)))
    return Outcome("wrong", 1, note="the function with its rule gave two results for the same arguments")


def _same_value(bench: Bench, plain: Leaves, got: Leaves, dtype: str, what: str = "its value") -> Outcome:
    wanted, found = [spec_of(x) for x in plain], [spec_of(x) for x in got]
    if wanted != found:
        shown = f"{what} is {', '.join(map(str, found))}, the plain function's {', '.join(map(str, wanted))}"
        return Outcome("wrong", 1, note=shown)
    expected, value = as_tangent(plain), as_tangent(got)
    size = float(np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected)))
    same = Scale(dtype, size).close(value, expected) | (np.isnan(value) & np.isnan(expected))
    if np.all(same):
        return Outcome("agree", len(expected))
    j = int(np.argmin(same))
    note = f"{what} is not the plain function's"
    return Outcome("wrong", 1, bench.output_name(j, plain), float(value[j]), float(expected[j]), note)


# Structure.


def structure(bench: Bench) -> Iterator[Row]:
    """Tangents have the output's tree, shapes and dtypes, cotangents the arguments'."""
    point = bench.example
    for mode, run in (("forward", _tangent_specs), ("reverse", _cotangent_specs)):
        found = bench.attempt("structure", mode, point, partial(run, leaves=point.leaves))
        if isinstance(found, Row):
            yield found
            continue
        names, specs, wanted = found
        bench.modes.append(mode)
        off = next((i for i, (a, b) in enumerate(zip(specs, wanted, strict=False)) if a != b), None)
        if len(specs) != len(wanted):
            note = f"{len(specs)} arrays, expected {len(wanted)}"
            yield bench.row("structure", mode, point, Outcome("wrong", 1, note=note))
        elif off is not None:
            note = f"{names[off]} is {specs[off]}, expected {wanted[off]}"
            yield bench.row("structure", mode, point, Outcome("wrong", 1, note=note))
        else:
            yield bench.row("structure", mode, point, Outcome("agree", len(specs)))


def _tangent_specs(runner: Runner, leaves: Leaves) -> Any:
    out, pushed = operators.jvp(runner.fun, leaves, tuple(np.ones_like(x) for x in leaves), backend=runner.backend)
    outs, treedef = flatten(out)
    return leaf_names("tangent", treedef), [spec_of(x) for x in flatten(pushed)[0]], [spec_of(x) for x in outs]


def _cotangent_specs(runner: Runner, leaves: Leaves) -> Any:
    out, pullback = operators.vjp(runner.fun, *leaves, backend=runner.backend)
    outs, treedef = flatten(out)
    found = flatten(pullback(treedef.unflatten([np.ones_like(o) for o in outs])))[0]
    names = [f"the cotangent of argument {i}" for i in range(len(leaves))]
    return names, [spec_of(x) for x in found], [spec_of(x) for x in leaves]


# The two modes against the referee.


def derivatives(bench: Bench) -> Iterator[Row]:
    """Along one-hot and random tangents and cotangents; of a large Jacobian every row, by random probes."""
    yield from derivatives_at(bench, bench.example, "derivatives")


def derivatives_at(bench: Bench, point: Point, check: str) -> Iterator[Row]:
    for mode in sorted(bench.modes, key=bench.candidate.written, reverse=True):
        failed = False
        for row in (_pushed if mode == "forward" else _pulled)(bench, point, check):
            yield row
            failed = failed or row.failed
        if failed:
            return


def _pushed(bench: Bench, point: Point, check: str) -> Iterator[Row]:
    rng, n = bench.rng(41), sum(sizes(point.leaves))
    singles = list(np.eye(n)) if n <= ONE_BY_ONE else []
    for tangent in [*singles, *(random_signs(rng, n) for _ in range(3))]:
        row = bench.forward(check, point, tangent)
        yield _named(bench, point, tangent, row) if row.failed and not singles else row
        if row.failed:
            return


def _pulled(bench: Bench, point: Point, check: str) -> Iterator[Row]:
    rng, m = bench.rng(43), sum(sizes(bench.plain.value(point.leaves)))
    singles = list(np.eye(m)) if m <= ONE_BY_ONE else _blocks(rng, m)
    yield from bench.reverse(check, point, [*singles, *(random_signs(rng, m) for _ in range(3))])


def _blocks(rng: np.random.Generator, m: int) -> list[Vector]:
    """Random signs over parts of the outputs, so that an entry is compared with few others."""
    masks = [np.isin(np.arange(m), part) for part in np.array_split(np.arange(m), 8)]
    return [np.where(mask, random_signs(rng, m), 0.0) for mask in masks]


def _named(bench: Bench, point: Point, tangent: Vector, row: Row) -> Row:
    """The row of the one-hot tangent that alone shows the failure."""

    def shows(part: Any) -> bool:
        return bench.forward(row.check, point, np.where(part, tangent, 0.0)).failed

    place = bisected(shows, len(tangent))
    if place is None:
        return row
    found = bench.forward(row.check, point, np.eye(1, len(tangent), place)[0])
    note = f"along {bench.candidate.entry(place, point.leaves)}{'; ' + found.note if found.note else ''}"
    return replace(found, note=note) if found.failed else row


# Linear maps.


def linearity(bench: Bench) -> Iterator[Row]:
    """Tangents and cotangents negated, zero, scaled up and down, and added."""
    point = bench.example
    for mode in bench.modes:
        size = sum(sizes(point.leaves if mode == "forward" else bench.plain.value(point.leaves)))
        rng = bench.rng(43)
        first, other = random_signs(rng, size), random_signs(rng, size)
        result = bench.attempt(
            "linearity", mode, point, partial(_images, point=point, mode=mode, first=first, other=other)
        )
        if isinstance(result, Row):
            yield result
            continue
        smooth = bench.library.exact(point.leaves).sides(first).smooth if mode == "forward" else True
        yield bench.row("linearity", mode, point, _linear(result, smooth, precision_of(point.leaves)), first)


def linear_map(runner: Runner, point: Point, mode: str) -> Callable[[Vector], Vector]:
    """The Jacobian at a point, or its transpose."""
    if mode == "reverse":
        return runner.vjp(point.leaves)[1]
    return lambda tangent: runner.jvp(point.leaves, tangent)[1]


def _images(runner: Runner, point: Point, mode: str, first: Vector, other: Vector) -> list[tuple[str, Vector, Vector]]:
    """``(what, image, what it should be)``."""
    apply = linear_map(runner, point, mode)
    a, b = apply(first), apply(other)
    seed = "tangent" if mode == "forward" else "cotangent"
    found = [
        (f"of a negated {seed}", apply(-first), -a),
        (f"of a zero {seed}", apply(0 * first), 0 * a),
        (f"of the sum of two {seed}s", apply(first + other), a + b),
        (f"of a {seed} with zeros", apply(np.where(np.arange(len(first)) % 2, first, 0.0))
         + apply(np.where(np.arange(len(first)) % 2, 0.0, first)), a),
    ]  # fmt: skip
    return [*found, *((f"of 2**{p} times a {seed}", apply(2.0**p * first), 2.0**p * a) for p in POWERS)]


def _linear(images: list[tuple[str, Vector, Vector]], smooth: Any, dtype: str) -> Outcome:
    count = 0
    for what, got, expected in images:
        size = float(np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected)))
        judged = np.isfinite(expected) & smooth
        zero = "zero" in what and "zeros" not in what
        same = (got == 0) if zero else Scale(dtype, size).close(got, expected)
        if not np.all(same[judged]):
            j = int(np.flatnonzero(judged & ~same)[0])
            note = f"not linear: {what}"
            return Outcome("wrong", 1, "", float(got[j]), float(expected[j]), note, j)
        count += int(np.count_nonzero(judged))
    return Outcome("agree", count) if count else Outcome("unresolved", 0, note="no finite derivative at the example")


def adjoint(bench: Bench) -> Iterator[Row]:
    """<w, J v> = <J' w, v>, of the two modes."""
    point = bench.regular
    if len(bench.modes) < 2 or point is None:
        return
    outs = bench.plain.value(point.leaves)
    rng = bench.rng(47)
    v, w = random_signs(rng, sum(sizes(point.leaves))), random_signs(rng, sum(sizes(outs)))
    pushed = bench.attempt("adjoint", "forward", point, lambda runner: linear_map(runner, point, "forward")(v))
    pulled = bench.attempt("adjoint", "reverse", point, lambda runner: linear_map(runner, point, "reverse")(w))
    for found in (pushed, pulled):
        if isinstance(found, Row):
            yield found
            return
    left, right = float(w @ pushed), float(pulled @ v)
    size = float(np.sum(np.abs(w * pushed)) + np.sum(np.abs(pulled * v)))
    same = bool(Scale(precision_of(point.leaves), size).close(np.array([left]), np.array([right]))[0])
    note = "" if same else "<w, J v> by forward mode (got) is not <J' w, v> by reverse mode (expected)"
    yield bench.row("adjoint", "", point, Outcome("agree" if same else "wrong", 1, "", left, right, note))


def batched(bench: Bench) -> Iterator[Row]:
    """A batch of sweeps gives what they give one at a time."""
    point = bench.example
    if any(leaf.dtype.kind == "c" for leaf in (*point.leaves, *bench.plain.value(point.leaves))):
        return
    n, m = (sum(sizes(x)) for x in (point.leaves, bench.plain.value(point.leaves)))
    if n * m > 1e6 or not n * m:
        return
    for mode in bench.modes:
        whole = bench.attempt("batching", mode, point, partial(Runner.jacobian, leaves=point.leaves, mode=mode))
        if isinstance(whole, Row):
            yield _unsupported(whole)
            continue
        apply, rows = linear_map(bench.ruled, point, mode), whole.T if mode == "forward" else whole
        places = sorted({0, len(rows) // 2, len(rows) - 1})
        images = [(k, apply(np.eye(1, len(rows), k)[0]), rows[k]) for k in places]
        yield bench.row("batching", mode, point, _alike(images, precision_of(point.leaves), "batched"))


def _unsupported(row: Row) -> Row:
    """Rules need not run in an engine's batching."""
    return replace(row, verdict="unsupported", comparisons=0) if row.verdict == "error" else row


def _alike(images: list[tuple[Any, Vector, Vector]], dtype: str, what: str) -> Outcome:
    count = 0
    for k, expected, got in images:
        size = float(np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected)))
        same = Scale(dtype, size).close(got, expected) | (np.isnan(got) & np.isnan(expected))
        if not np.all(same):
            j = int(np.argmin(same))
            note = f"{what}: not what it is {'alone' if what == 'batched' else 'at first'} (seed {k})"
            return Outcome("wrong", 1, "", float(got[j]), float(expected[j]), note, j)
        count += len(expected)
    return Outcome("agree", count)


def repeated(bench: Bench) -> Iterator[Row]:
    """The same again, twice from one pullback, and after the function was differentiated elsewhere."""
    point = bench.example
    others = [p for p in bench.library.points(precision_of(point.leaves)) if p.leaves[0].shape == point.leaves[0].shape]
    other = others[0].leaves if others else tuple(0.9 * leaf for leaf in point.leaves)
    for mode in bench.modes:
        size = sum(sizes(point.leaves if mode == "forward" else bench.plain.value(point.leaves)))
        seed = random_signs(bench.rng(53), size)
        result = bench.attempt(
            "repetition", mode, point, partial(_again, point=point, other=Point("", other), mode=mode, seed=seed)
        )
        if isinstance(result, Row):
            yield result
        else:
            yield bench.row("repetition", mode, point, _alike(result, precision_of(point.leaves), "repeated"), seed)


def _again(runner: Runner, point: Point, other: Point, mode: str, seed: Vector) -> list[tuple[str, Vector, Vector]]:
    first = linear_map(runner, point, mode)(seed)
    kept = linear_map(runner, point, mode)
    twice = kept(seed), kept(seed)
    linear_map(runner, other, mode)(seed)
    late = kept(seed)
    pairs = [("the same again", twice[0]), ("from the same run", twice[1]), ("after another point", late)]
    return [(what, first, got) for what, got in pairs]


CHECKS = (
    Check("primal", primal),
    Check("structure", structure),
    Check("derivatives", derivatives),
    Check("linearity", linearity),
    Check("adjoint", adjoint),
    Check("batching", batched),
    Check("repetition", repeated),
    Check("layout", layouts),
    Check("second order", second_order),
    Check("special points", special_points),
    Check("second order elsewhere", second_order_elsewhere),
    Check("single precision", single_precision),
)
