"""What the checks of a rule share: the truth at each point, where to look, and the rule on one backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from adbridge.errors import AdbridgeError, CapabilityError, MixedBackends, NotDifferentiable, RuleError
from adbridge.protocol import Backend
from adbridge.tracing import trace
from adbridge.validate.rule_checks.borders import borders_between, element_borders
from adbridge.validate.rule_checks.candidate import Candidate, Leaves, Vector, as_tangent, coordinate_name, sizes
from adbridge.validate.rule_checks.exact import FEW, Exact
from adbridge.validate.rule_checks.points import MANY, Domain, Point, changed, inside, is_elementwise, rows_of_values
from adbridge.validate.rule_checks.rule_report import Row
from adbridge.validate.rule_checks.running import Runner, bent
from adbridge.validate.rule_checks.settling import (
    Control,
    Outcome,
    Scale,
    forward,
    precision_of,
    random_signs,
    reverse,
    reverse_of_elements,
    typical_size,
)
from adbridge.validate.rule_checks.snippets import snippet

DTYPES = {"float64": {"f": np.float64, "c": np.complex128}, "float32": {"f": np.float32, "c": np.complex64}}
MOST_POINTS = 24
LARGE, LARGE_POINTS = 1000, 6
"""With more inputs than this, a function that is not elementwise is looked at in so many other points."""
SHORT = 32
"""Values in a row of special ones."""


class Library:
    """The referee's answers and the points to look at, for all backends alike.

    `home` runs the plain function: its values say where the function is defined.
    """

    def __init__(self, candidate: Candidate, domain: Domain, home: Backend, native: str | None, seed: int) -> None:
        self.candidate, self.domain, self.native, self.seed = candidate, domain, native, seed
        self.home = Runner(candidate.without_rule, home)
        self._exact: dict[Any, Exact] = {}
        self._plans: dict[str, list[Point]] = {}

    def exact(self, leaves: Leaves) -> Exact:
        key = tuple((leaf.dtype.name, leaf.shape, leaf.tobytes()) for leaf in leaves)
        if key not in self._exact:
            self._exact[key] = Exact(self.candidate.without_rule, leaves, self.native)
        return self._exact[key]

    def curved(self, leaves: Leaves) -> Exact:
        """Of the plain function between curved ones (`running.bent`), for second derivatives."""
        key = ("curved", *((leaf.dtype.name, leaf.shape, leaf.tobytes()) for leaf in leaves))
        if key not in self._exact:
            outs = self.home.value(leaves)
            self._exact[key] = Exact(bent(self.candidate.without_rule, leaves, outs), leaves, self.native)
        return self._exact[key]

    @cached_property
    def elementwise(self) -> bool:
        return is_elementwise(self.home.value, self.candidate.leaves)

    def example(self, dtype: str) -> Point:
        """The example in single or double precision."""
        leaves: Leaves = tuple(np.asarray(leaf, DTYPES[dtype][leaf.dtype.kind]) for leaf in self.candidate.leaves)
        shown = ", ".join(f"{n} = {_short(x)}" for n, x in zip(self.candidate.ruled.names, leaves, strict=True))
        return Point(shown if len(shown) < 100 else "the example", leaves)

    def scale(self, leaves: Leaves) -> Scale:
        """Of a function of the elements, derivatives at values around 1 are typical; of others, those at the point."""
        rng = np.random.default_rng(23)
        if self.elementwise:
            return Scale(precision_of(leaves), self._around_one)
        sides = self.exact(leaves).sides(random_signs(rng, sum(sizes(leaves))))
        return Scale(precision_of(leaves), typical_size(sides))

    @cached_property
    def _around_one(self) -> float:
        rows = [point for point in self.points("float64") if point.label == "moderate values"]
        for row in rows:
            near = np.all([(np.abs(x) > 0.1) & (np.abs(x) < 3) for x in row.leaves], axis=0)
            if np.any(near):
                leaves = tuple(x[near] for x in row.leaves)
                return typical_size(self.exact(leaves).sides(np.ones(sum(sizes(leaves)))))
        leaves = self.example("float64").leaves
        return typical_size(self.exact(leaves).sides(np.ones(sum(sizes(leaves)))))

    # Where else to look.

    def points(self, dtype: str) -> list[Point]:
        """Points in the domain at which the function is defined, and has the value that the referee finds."""
        if dtype not in self._plans:
            usable = self._rows(dtype) if self.elementwise else self._changed(dtype)
            self._plans[dtype] = usable[:MOST_POINTS]
        return self._plans[dtype]

    @cached_property
    def _many(self) -> int:
        """Values in a row: fewer of a function of many steps."""
        try:
            steps = len(trace(self.candidate.without_rule, *self.candidate.leaves).equations)
        except Exception:  # code that the reference engine does not run
            steps = 50
        return max(SHORT, min(MANY, 8000 // max(1, steps)))

    def _rows(self, dtype: str) -> list[Point]:
        kind = DTYPES[dtype]["f"]
        rows = list(rows_of_values(self.domain, kind, self._many))
        plain = self.candidate.without_rule
        beside = [edge for row in rows if not row.extreme for edge in element_borders(plain, row.leaves)]
        rows += [Point("beside a branch border", tuple(np.asarray(x, kind) for x in edge)) for edge in beside]
        usable = [row for row in map(self._defined, rows) if row is not None]
        return [self._padded(row, usable[0].leaves) for row in usable]

    def _defined(self, row: Point) -> Point | None:
        """Without the elements at which the function is not defined, or has not the referee's value."""
        kept = self._finite(row)
        kept = None if kept is None else self._inside(kept)
        if kept is None:
            return None
        got, expected = as_tangent(self.home.value(kept.leaves)), self.exact(kept.leaves).value
        same = self._value_scale(kept.leaves, expected).close(got, expected, 1e-6 * np.abs(expected))
        return _only(kept, same)

    def _padded(self, row: Point, ordinary: Leaves) -> Point:
        """Cut, or filled up with ordinary values, to one of two lengths: engines compile for every new shape."""
        length = self._many if len(row.leaves[0]) > 2 * SHORT else SHORT
        pairs = zip(row.leaves, ordinary, strict=True)
        return replace(row, leaves=tuple(np.concatenate([x, np.resize(fill, length)])[:length] for x, fill in pairs))

    def _inside(self, row: Point) -> Point | None:
        if self.domain.predicate is None:
            pairs = zip(row.leaves, self.domain.intervals, strict=True)
            return _only(row, np.all([inside(leaf, ends) for leaf, ends in pairs], axis=0))
        shapes = [leaf.shape for leaf in self.candidate.leaves]
        places = range(len(row.leaves[0]))
        alone = [tuple(np.full(s, leaf[i]) for s, leaf in zip(shapes, row.leaves, strict=True)) for i in places]
        return _only(row, np.array([self.domain.holds(self.candidate, leaves) for leaves in alone]))

    def _finite(self, row: Point) -> Point | None:
        if row.leaves[0].size == 0:
            return None
        try:
            out = self.home.value(row.leaves)[0]
        except Exception:  # whatever the function raises outside of its domain
            return None
        return _only(row, np.isfinite(out))

    def _changed(self, dtype: str) -> list[Point]:
        found = list(changed(self.candidate.at(self.example(dtype).leaves), self.domain, self.seed))
        large = sum(sizes(self.candidate.leaves)) > LARGE
        if large:  # where every run takes long, and every array holds many values
            found = found[:: max(1, len(found) // LARGE_POINTS)][:LARGE_POINTS]
        regular = [p for p in found if self.is_usable(p)]
        if large:
            return regular
        ends = [p.leaves for p in regular if not p.extreme]
        crossed = borders_between(self.candidate.without_rule, self.example(dtype).leaves, ends)
        beside = [Point("beside a branch border", leaves) for leaves in crossed]
        return [*[p for p in beside if self.is_usable(p)], *regular]

    def is_usable(self, point: Point) -> bool:
        """Whether the function is defined there, and its value is the referee's."""
        try:
            if not self.domain.holds(self.candidate, point.leaves):
                return False
            got = as_tangent(self.home.value(point.leaves))
            if not np.all(np.isfinite(got)):
                return False
            expected = self.exact(point.leaves).value
        except Exception:  # whatever the function raises outside of its domain
            return False
        return bool(np.all(self._value_scale(point.leaves, expected).close(got, expected, 1e-6 * np.abs(expected))))

    def _value_scale(self, leaves: Leaves, expected: Vector) -> Scale:
        finite = np.abs(expected[np.isfinite(expected)])
        return Scale(precision_of(leaves), 0.0 if self.elementwise else float(np.max(finite, initial=0.0)))


def _only(row: Point, kept: Any) -> Point | None:
    if not np.any(kept):
        return None
    return row if np.all(kept) else replace(row, leaves=tuple(leaf[kept] for leaf in row.leaves))


def _short(leaf: Any) -> str:
    return np.array2string(leaf, precision=6, separator=", ", threshold=8).replace("\n", "")


@dataclass
class Bench:
    """A rule on one backend, with what is known so far: the modes it has, and its results at the example."""

    candidate: Candidate
    backend: Backend
    library: Library
    ruled: Runner
    plain: Runner
    seed: int
    modes: list[str] = field(default_factory=list)
    kept: dict[str, Vector] = field(default_factory=dict)
    values: list[Leaves] = field(default_factory=list)

    @property
    def example(self) -> Point:
        """In the precision that it was given in."""
        return self.library.example(precision_of(self.candidate.leaves))

    @cached_property
    def regular(self) -> Point | None:
        """The example if the function is differentiable there, else a point of its shape where it is."""
        for point in (self.example, *self._shaped_like_the_example()):
            exact = self.library.exact(point.leaves)
            sides = exact.sides(random_signs(np.random.default_rng(29), exact.count))
            if np.all(sides.smooth) and np.all(np.isfinite(sides.right)):
                return point
        return None

    def _shaped_like_the_example(self) -> list[Point]:
        points = [p for p in self.library.points(precision_of(self.example.leaves)) if not p.extreme]
        if not self.library.elementwise:
            return points
        shapes = [leaf.shape for leaf in self.example.leaves]
        return [
            Point("values of other sizes", tuple(np.resize(x, s) for x, s in zip(p.leaves, shapes, strict=True)))
            for p in points
        ]

    def rng(self, salt: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, salt])

    def row(self, check: str, mode: str, point: Point, outcome: Outcome, seed: Vector | None = None) -> Row:
        """A row of the report; `seed` is the tangent or cotangent that was used."""
        entry = self._entry(outcome, mode, point)
        failed = outcome.verdict in ("wrong", "error")
        return Row(
            *(self.backend.name, mode, check, point.label, precision_of(point.leaves), outcome.verdict, entry),
            *(outcome.got, outcome.expected, self._named(outcome.note), outcome.comparisons),
            beside=self._is_beside(point),
            snippet=snippet(self.candidate, self.backend.name, mode, point.leaves, seed) if failed else "",
        )

    def _entry(self, outcome: Outcome, mode: str, point: Point) -> str:
        if outcome.coordinate is not None and mode != "forward":
            return self.candidate.entry(outcome.coordinate, point.leaves)
        if outcome.coordinate is not None:
            return self.output_name(outcome.coordinate, self.plain.value(point.leaves))
        return self._named(outcome.entry)

    def _named(self, text: str) -> str:
        """With the arguments' own names."""
        for i, name in enumerate(self.candidate.ruled.names):
            text = text.replace(f"args[{i}]", name)
        return text

    def output_name(self, coordinate: int, outs: Leaves) -> str:
        """``out[3]``; of several outputs ``out[1][3]``."""
        names = ["out"] if len(outs) == 1 else [f"out[{i}]" for i in range(len(outs))]
        return coordinate_name(coordinate, outs, names)

    # Asking the engine.

    def attempt(self, check: str, mode: str, point: Point, run: Callable[[Runner], Any]) -> Any:
        """``run(self.ruled)``, or a row that says why there is no result."""
        try:
            return run(self.ruled)
        except RuleError as exc:
            return self.row(check, mode, point, Outcome("wrong", 1, note=str(exc)))
        except (CapabilityError, NotDifferentiable, NotImplementedError, MixedBackends) as exc:
            return self.row(check, mode, point, Outcome("unsupported", 0, note=first_line(exc)))
        except Exception as exc:  # whatever a rule raises
            return self.row(check, mode, point, self._failure(exc, run))

    def _failure(self, exc: Exception, run: Callable[[Runner], Any]) -> Outcome:
        """An error, unless the engine or the plain function cannot do this either."""
        text = f"{type(exc).__name__}: {first_line(exc)}"
        if any(known in str(exc) for known in _LACKING):
            return Outcome("unsupported", 0, note=text)
        try:
            run(self.plain)
        except Exception as other:
            note = f"nor does the plain function run here: {type(other).__name__}: {first_line(other)}"
            return Outcome("unsupported", 0, note=note)
        return Outcome("error", 1, note=f"raises {text}, where the plain function does not")

    # Judging what it says.

    def forward(self, check: str, point: Point, tangent: Vector) -> Row:
        result = self.attempt(check, "forward", point, lambda runner: runner.jvp(point.leaves, tangent))
        if isinstance(result, Row):
            return result
        outs, got = result
        self.values.append(outs)
        control = self._control(point, lambda: self.plain.jvp(point.leaves, tangent)[1])
        exact, scale = self.library.exact(point.leaves), self.library.scale(point.leaves)
        return self.row(check, "forward", point, forward(exact, scale, tangent, outs, got, control), tangent)

    def reverse(self, check: str, point: Point, cotangents: list[Vector] | int, few: int = FEW) -> list[Row]:
        """One row for each cotangent, or for so many random ones; up to `few` arguments are compared one by one."""
        result = self.attempt(check, "reverse", point, lambda runner: runner.vjp(point.leaves))
        if isinstance(result, Row):
            return [result]
        outs, pull = result
        self.values.append(outs)
        if isinstance(cotangents, int):
            rng = self.rng(31)
            cotangents = [random_signs(rng, sum(sizes(outs))) for _ in range(cotangents)]
        rows: list[Row] = []
        for cotangent in cotangents:
            got = self.attempt(check, "reverse", point, _pulled_back(pull, point.leaves, cotangent, self.ruled))
            if isinstance(got, Row):
                return [*rows, got]
            rows += [
                self.row(check, "reverse", point, outcome, cotangent)
                for outcome in self._settle_reverse(point, cotangent, outs, got, few)
            ]
            if any(row.failed for row in rows):
                break
        return rows

    def _settle_reverse(self, point: Point, cotangent: Vector, outs: Leaves, got: Vector, few: int) -> list[Outcome]:
        exact, scale = self.library.exact(point.leaves), self.library.scale(point.leaves)
        control = self._control(point, lambda: self.plain.vjp(point.leaves)[1](cotangent))
        if not self.library.elementwise:
            return [reverse(exact, scale, cotangent, outs, got, control, few)]
        outcomes = reverse_of_elements(exact, scale, cotangent, outs, got, control)
        # The entries of a diagonal Jacobian are named as the output's; here they are the arguments'.
        return [
            replace(outcome, entry=outcome.entry.replace("out", f"args[{i}]")) for i, outcome in enumerate(outcomes)
        ]

    def _control(self, point: Point, own: Callable[[], Vector]) -> Control:
        lenient = point.extreme or precision_of(point.leaves) == "float32"
        return Control(own, lenient, self._is_beside(point))

    def _is_beside(self, point: Point) -> bool:
        return point.leaves is not self.example.leaves and point.label != self.example.label


def _pulled_back(pull: Any, leaves: Leaves, cotangent: Vector, ruled: Runner) -> Callable[[Runner], Vector]:
    def run(runner: Runner) -> Vector:
        found: Vector = pull(cotangent) if runner is ruled else runner.vjp(leaves)[1](cotangent)
        return found

    return run


_LACKING = (
    "(jvp) to a custom_vjp function",
    "once_differentiable",
    "generate_vmap_rule",
    "does not support forward mode",
    "forward mode AD",
    "setup_context",
)
"""How engines say that a rule has no such mode, where they have no exception of their own for it."""


def first_line(exc: Exception) -> str:
    """What an exception says, in a line of at most 200 characters."""
    text = " ".join(str(exc).split())
    return text if len(text) <= 200 else f"{text[:197]}..."


__all__ = ["AdbridgeError", "Bench", "Library"]
