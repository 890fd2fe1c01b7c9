"""The referee: what a derivative is, from values of the function alone. No derivative rule is used.

The primal runs in Arb arithmetic at the point and beside it (`oracle/balls.py`), or where it cannot, in floats
(`oracle/differences.py`). From one-sided directional derivatives follow the kind of the point, derivatives with
error bounds, and at a kink the interval of the legal choices.

F. H. Clarke, Optimization and Nonsmooth Analysis, SIAM (1990), for the subdifferential.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from adbridge.errors import NotDifferentiable, UsageError
from adbridge.readings import function_name
from adbridge.trees import PyTree, unflatten
from adbridge.validate.oracle.arguments import Arguments, Direction, Outputs, read_arguments
from adbridge.validate.oracle.bounded import Bounded
from adbridge.validate.oracle.limits import Limit

KINDS = ("smooth", "kink", "infinite", "jump", "undefined", "unresolved")
FULL, FEW = 400_000, 16
"""Every entry is looked at one by one if the runs for it compute so many numbers at most, or entries are few."""
EPS = float(np.finfo(float).eps)


@dataclass(frozen=True)
class Point:
    """What kind of point the arguments are, with the entry and the direction that show it.

    `kind` is one of "smooth", "kink", "infinite", "jump", "undefined" and "unresolved". `left` and `right` are the
    derivatives along `direction` from its two sides (nan where there is none).
    """

    kind: str
    entry: str = ""
    direction: PyTree = None
    left: float = math.nan
    right: float = math.nan
    note: str = ""

    def __str__(self) -> str:
        if self.kind == "smooth":
            return "smooth"
        sides = f": {self.left:.6g} from the left, {self.right:.6g} from the right" if self.entry else ""
        return f"{self.kind}{f' at {self.entry}' if self.entry else ''}{sides}{f' ({self.note})' if self.note else ''}"


@dataclass
class Referee:
    """Derivatives of ``fun`` at ``args``, found without derivative rules: see `referee`."""

    arguments: Arguments
    oracle: Any
    method: str
    why: str = ""
    floor: float = 0.0
    """Units in the last place of an array's largest entry by which its other entries may be off, when judged."""
    _columns: dict[int, Any] = field(default_factory=dict)
    _sides: dict[Any, Any] = field(default_factory=dict)
    nearby: dict[Any, Any] = field(default_factory=dict)
    """Difference quotients at points around, by direction (`subgradients.py`)."""
    _seconds: dict[Any, Limit] = field(default_factory=dict)
    _point: Point | None = None

    @property
    def args(self) -> tuple[Any, ...]:
        """The arguments, as NumPy arrays."""
        tree: tuple[Any, ...] = unflatten(self.arguments.treedef, self.arguments.leaves)
        return tree

    @property
    def outputs(self) -> Outputs:
        outputs: Outputs = self.oracle.outputs
        return outputs

    @property
    def value(self) -> PyTree:
        """What the function gives, with bounds."""
        bounds = [Limit("finite", v, _radius(v)) for v in self.oracle.value()]
        return self._output_tree(bounds)

    def __repr__(self) -> str:
        return f"<referee of {function_name(self.arguments.fun)} by {self.method}: {self.classify()}>"

    # Derivatives.

    def jvp(self, tangents: PyTree) -> PyTree:
        """The directional derivative, like the output, of `Bounded` arrays; at a kink the one from the right.

        Args:
            tangents: a tuple like the arguments (of one argument, its tangent will do); None for what stays.

        Raises SignatureMismatch: tangents of another structure or shape.
        """
        return self._output_tree([right for _, right in self.sides(self.arguments.seeds("tangents", tangents))])

    def vjp(self, cotangents: PyTree) -> tuple[PyTree, ...]:
        """The cotangents of the arguments: a tuple like them, None for what is not floating.

        Raises:
            NotDifferentiable: the function has no derivative here; the text says what kind of point it is.
            SignatureMismatch: cotangents of another structure or shape.
        """
        weights = self.weights(cotangents)
        return self._argument_tree([self._entry(i, weights) for i in range(len(self.arguments.coordinates))])

    def grad(self, argnums: int | tuple[int, ...] = 0) -> PyTree:
        """The gradient of a real scalar function, like the argument; of several, a tuple. Raises as `vjp`."""
        self._check_scalar("grad")
        every = self.vjp(1.0)
        return every[argnums] if isinstance(argnums, int) else tuple(every[i] for i in argnums)

    def hvp(self, tangents: PyTree) -> tuple[PyTree, ...]:
        """The Hessian of a real scalar function times `tangents`, like the arguments. Raises as `grad`.

        Entries whose second derivative does not exist are nan.
        """
        self._check_scalar("hvp")
        direction = self.arguments.seeds("tangents", tangents)
        return self._argument_tree([self.second(i, direction) for i in range(len(self.arguments.coordinates))])

    def subdifferential(self, direction: PyTree) -> tuple[float, float]:
        """The interval of the legal directional derivatives of a real scalar function along `direction`.

        At a smooth point both ends are the derivative. At a kink, the interval of Clarke's subdifferential: between
        the least and the greatest derivative along the direction found at points around.
        """
        self._check_scalar("subdifferential")
        from adbridge.validate.oracle.subgradients import interval

        return interval(self, self.arguments.seeds("direction", direction), {0: 1.0})

    def classify(self) -> Point:
        """The kind of the point: smooth only if every entry looked at is, and derivatives add up along directions."""
        if self._point is None:
            from adbridge.validate.oracle.classify import classify

            self._point = classify(self)
        return self._point

    # For the judges.

    @property
    def looks_at_each(self) -> bool:
        """Whether every entry is looked at, or random directions instead; by size alone, so that runs repeat."""
        count = len(self.arguments.coordinates)
        return count <= FEW or count * int(self.oracle.elements) <= FULL

    def sides(self, direction: Direction, weights: dict[int, float] | None = None) -> list[tuple[Limit, Limit]]:
        """Of each real output coordinate (or the weighted sum): the derivatives from the left and from the right."""
        key = (_key(direction), None if weights is None else tuple(sorted(weights.items())))
        if key not in self._sides:
            if len(self._sides) > 4096:
                self._sides.clear()
            self._sides[key] = self.oracle.sides(direction, weights)
        found: list[tuple[Limit, Limit]] = self._sides[key]
        return found

    def column(self, coordinate: int, weights: dict[int, float] | None = None) -> list[tuple[Limit, Limit]]:
        """`sides` along one real input coordinate."""
        if coordinate not in self._columns:
            self._columns[coordinate] = self.arguments.one_hot(coordinate)
        return self.sides(self._columns[coordinate], weights)

    def weights(self, cotangents: PyTree) -> dict[int, float]:
        """Cotangents of the output as weights of its real coordinates: the pairing is Re(sum(ct * out))."""
        seeds = self.outputs.seeds("cotangents", cotangents)
        out = {}
        for j, (which, place, unit) in enumerate(self.outputs.coordinates):
            weight = complex(seeds[which].reshape(-1)[place]) * unit
            if weight.real:
                out[j] = weight.real
        return out

    def second(self, coordinate: int, direction: Direction, weights: dict[int, float] | None = None) -> Limit:
        """The derivative along `direction` of the derivative along one input coordinate, of the weighted sum."""
        from adbridge.validate.oracle.second import second

        key = (coordinate, _key(direction), None if weights is None else tuple(sorted(weights.items())))
        if key not in self._seconds:
            self._seconds[key] = second(self, coordinate, direction, {0: 1.0} if weights is None else weights)
        return self._seconds[key]

    def _entry(self, coordinate: int, weights: dict[int, float]) -> Limit:
        left, right = self.column(coordinate, weights)[0] if weights else (_ZERO, _ZERO)
        if same(left, right):
            return right
        if left.kind == right.kind == "infinite" or "undefined" in (left.kind, right.kind):
            return right if right.kind != "undefined" else left
        raise NotDifferentiable(
            f"{function_name(self.arguments.fun)} has no gradient here: {self.classify()}; ask for "
            ".subdifferential(direction), or for the one-sided .jvp(tangents)"
        )

    def _check_scalar(self, what: str) -> None:
        outputs = self.outputs
        if not outputs.is_scalar or outputs.likes[0].dtype.kind == "c":
            shapes = ", ".join(f"{like.dtype}{list(like.shape)}" for like in outputs.likes)
            raise NotDifferentiable(
                f"{what} needs a function with one real scalar output; {function_name(self.arguments.fun)} returned "
                f"{shapes}; use vjp or jvp"
            )

    # Trees of arrays with bounds.

    def _output_tree(self, limits: list[Limit]) -> PyTree:
        shapes = [(like.shape, like.dtype.kind == "c") for like in self.outputs.likes]
        return unflatten(self.outputs.treedef, self._bounded(limits, shapes, conjugate=False))

    def _argument_tree(self, limits: list[Limit]) -> tuple[PyTree, ...]:
        shapes = [(leaf.shape, leaf.dtype.kind == "c") for leaf in self.arguments.active]
        return self.arguments.like(self._bounded(limits, shapes, conjugate=True))

    def _bounded(self, limits: list[Limit], shapes: list[Any], conjugate: bool) -> list[Bounded]:
        out, rest = [], iter(limits)
        for shape, is_complex in shapes:
            count = math.prod(shape) * (2 if is_complex else 1)
            out.append(_bounded([next(rest) for _ in range(count)], shape, is_complex, conjugate, self.method == "arb"))
        return out


_ZERO = Limit("finite", 0.0, 0.0)


def same(left: Limit, right: Limit) -> bool:
    """Whether two finite sides are one derivative, as far as their bounds tell."""
    if left is right:
        return left.is_finite
    if not (left.is_finite and right.is_finite):
        return False
    return abs(float(left.value) - float(right.value)) <= 4 * (left.error + right.error)


def _radius(value: Any) -> float:
    if isinstance(value, float):
        return EPS * abs(value)
    from adbridge.validate.oracle.limits import as_error

    return as_error(value.rad()) if value.is_finite() else math.inf


def _bounded(limits: list[Limit], shape: Any, is_complex: bool, conjugate: bool, exact: bool) -> Bounded:
    """Of a complex array's coordinates, real and imaginary parts alternate; a gradient is d/dx - i d/dy."""
    numbers = np.array([float(limit.value) for limit in limits])
    errors = np.array(
        [limit.error + (EPS * abs(v) if math.isfinite(v) else 0) for limit, v in zip(limits, numbers, strict=True)]
    )
    balls = None
    if is_complex:
        numbers = numbers[::2] + (-1j if conjugate else 1j) * numbers[1::2]
        errors = errors[::2] + errors[1::2]
    elif exact:
        balls = np.empty(len(limits), object)
        balls[:] = [limit.enclosure() for limit in limits]
        balls = balls.reshape(shape)
    return Bounded(numbers.reshape(shape), errors.reshape(shape), balls)


def _key(direction: Direction) -> tuple[Any, ...]:
    return tuple(None if d is None else d.tobytes() for d in direction)


def referee(fun: Callable[..., Any], /, *args: Any, digits: int = 30, backend: Any = None) -> Referee:
    """An oracle for the derivatives of ``fun`` at ``args``, which uses its values alone.

    Args:
        fun: a function of pytrees of arrays; written for `array_namespace` or in plain NumPy, it runs in Arb
            arithmetic, and so does plain JAX code, by its jaxpr. Other code (an engine's own functions) runs in
            float64, and its derivatives come from extrapolated differences.
        args: NumPy arrays and numbers, or one engine's arrays; those of floating or complex dtype are differentiated.
        digits: decimal digits wanted; the precision is raised until they are certain, as far as it helps.
        backend: the one whose arrays `fun` takes, where its arguments do not tell: only that one is tried.

    Returns:
        A Referee. ``.classify()`` says what kind of point it is; ``.jvp(tangents)``, ``.vjp(cotangents)``,
        ``.grad()`` and ``.hvp(tangents)`` give float64 arrays with a bound, ``.error``, and the exact balls,
        ``.exact``; ``.subdifferential(direction)`` the interval of the legal choices. ``.method`` is "arb" or
        "differences", for the reason that ``.why`` gives.

    Raises:
        RuleError: nothing to differentiate, nothing returned, not arrays, or another result the second time.
        UsageError: digits below 1, or more than 10000.

    >>> import adbridge as ad
    >>> wise = referee(lambda x: ad.array_namespace(x).abs(x), 0.0)
    >>> print(wise.classify())
    kink at x: -1 from the left, 1 from the right
    >>> wise.subdifferential(1.0)
    (-1.0, 1.0)
    >>> print(referee(lambda x: ad.array_namespace(x).tanh(x), 20.0).grad().digits(25))
    1.699341702116635583692883e-17
    """
    from adbridge.validate.oracle.choosing import oracle_for

    if not 1 <= digits <= 10_000:
        raise UsageError(f"digits={digits} were asked for; choose from 1 to 10000")
    arguments = read_arguments(fun, args)
    oracle, method, why = oracle_for(arguments, args, digits, backend)
    return Referee(arguments, oracle, method, why)


__all__ = ["Point", "Referee", "referee"]
