"""Taylor mode: tracers hold truncated power series in t, and one run of f gives every coefficient.

No primitive needs a rule for this. What is linear acts on each coefficient; products are Cauchy's; and the
JVP rule of any other primitive is read as a differential equation, y'(t) = rule(x'(t), y(t), x(t)):
coefficient k of y is coefficient k - 1 of the right-hand side, over k. The rule is run once, on series whose
coefficients are computed when they are asked for, and the same operation on the same series gives the same
series: sin asks for cos, cos for sin, and the two equations close into a coupled recurrence.

A. Griewank & A. Walther, Evaluating Derivatives, 2nd ed., SIAM 2008, ch. 13; the series that are extended on
demand: M. D. McIlroy, "Power series, power serious", JFP 9(3), 1999.

What is only piecewise smooth (abs, maximum, where, sort, ...) keeps the branch that it takes at t = 0, and at
a kink the convention of its JVP rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy._core.multiarray import c_einsum

from adbridge.backends.reference.primitives import NUMBERS, Primitive, Traced, fit
from adbridge.backends.reference.rules.elementwise import (
    add,
    divide,
    log,
    multiply,
    negative,
    pow,
    reciprocal,
    square,
    subtract,
)
from adbridge.backends.reference.tracer import Trace, Tracer, concrete
from adbridge.backends.reference.transforms import push_through, zero_like
from adbridge.protocol import Arrays, FlatFunction

Extend = Callable[[int], Any]
Params = dict[str, Any]

_LARGE = 1024  # elements, from which half the multiplications of a square are worth two more NumPy calls


class Series:
    """The coefficients of a power series, None for zero; `extend(k)` gives the k-th when it is first asked for.

    Of a bundle's series, each coefficient is a tuple.
    """

    __slots__ = ("coefficients", "degree", "extend", "filled", "plain", "rows")

    def __init__(self, first: Any, extend: Extend | None = None) -> None:
        self.coefficients = [first]
        self.extend = extend
        self.degree = 0
        """The highest place so far whose coefficient is not None."""
        self.plain = not isinstance(first, Traced)
        """Whether all coefficients so far are NumPy's."""
        self.rows: Any = None
        self.filled = 0

    @classmethod
    def of(cls, coefficients: list[Any]) -> Series:
        """One that is known."""
        series = cls(coefficients[0])
        series.coefficients = coefficients
        series.degree = max(k for k, c in enumerate(coefficients) if k == 0 or c is not None)
        series.plain = not any(isinstance(c, Traced) for c in coefficients)
        return series

    def __getitem__(self, k: int) -> Any:
        known = self.coefficients
        if k < len(known):
            return known[k]
        if self.extend is None:
            return None
        for i in range(len(known), k + 1):
            coefficient = self.extend(i)
            known.append(coefficient)
            if coefficient is not None:
                self.degree = i
                self.plain = self.plain and not isinstance(coefficient, Traced)
        return known[k]

    def stacked(self, count: int, order: int) -> Any:
        """The first `count` coefficients as rows of one array."""
        if self.rows is None:
            first = self.coefficients[0]
            self.rows = np.empty((order + 1, *first.shape), first.dtype)
        if self.filled < count:
            for i, coefficient in enumerate(self.coefficients[self.filled : count], self.filled):
                self.rows[i] = 0 if coefficient is None else coefficient
            self.filled = count
        return self.rows[:count]


class Taylor(Trace):
    """Evaluates, and carries each value's series up to `order` (None for a constant)."""

    def __init__(self, order: int) -> None:
        super().__init__()
        self.order = order
        self.memo: dict[Any, Any] | None = None
        """What has been applied to which series, while a rule is read; None at the function's own operations."""

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: Params) -> Tracer:
        self.refuse_if_closed(primitive)
        if self.memo is not None:
            return self._remembered(primitive, args, params)
        if primitive in _LINES and (found := _by_rows(primitive, args, [self.series_of(a) for a in args])):
            return Tracer(self, found[0], found if found.degree else None)
        self.memo = {}
        try:
            result = self._remembered(primitive, args, params)
            series = None if result.extra is None else _finished(result.extra, self.order)
        finally:
            self.memo = None
        return self.make(primitive, args, params, result.value, series)

    def series_of(self, x: Any) -> Any:
        """The series of this trace's tracer; None of a constant."""
        return x.extra if isinstance(x, Tracer) and x.trace is self else None

    def _remembered(self, primitive: Primitive, args: tuple[Any, ...], params: Params) -> Tracer:
        assert self.memo is not None
        series = [self.series_of(a) for a in args]
        key = _key(primitive, args, series, params)
        if key in self.memo:
            return self.memo[key][0]  # type: ignore[no-any-return]
        y = Tracer(self, primitive(*map(self.value_of, args), **params), None)
        if key is not None:
            self.memo[key] = y, args  # which keeps the arguments, and so their identities
        kind = taylor_kind(primitive)
        if kind != "constant" and any(s is not None for s in series) and _is_inexact(y.value):
            y.extra = Series(y.value)
            y.extra.extend = self._extension(kind, primitive, y, args, series, params)
        return y

    def _extension(
        self, kind: str, primitive: Primitive, y: Tracer, args: Sequence[Any], series: list[Any], params: Params
    ) -> Extend:
        """How the result's coefficients follow from the arguments'."""
        values = [self.value_of(a) for a in args]
        if (found := self._division(primitive, args, series)) is not None:
            above, below = found
            return self._quotient(above, below, y.extra)
        if primitive in _FACTORS and (factors := _FACTORS[primitive](*args)):
            left, right = map(self.series_of, factors)
            if left is not None and right is not None:
                return lambda k: _cauchy(left, right, k, self.order)
        if primitive in _QUOTIENTS:
            if primitive is divide and type(args[0]) in NUMBERS and args[0] == 1:
                assert self.memo is not None
                self.memo["inverse", id(y.extra)] = args[1]
            above, below = _QUOTIENTS[primitive](*args)
            return self._quotient(above, below, y.extra)
        if kind == "product" and sum(s is not None for s in series) > 1:
            return lambda k: _product(primitive, series, values, params, k)
        if kind in ("linear", "product"):
            return lambda k: _pushed(primitive, [None if s is None else s[k] for s in series], y.value, values, params)
        return self._from_rule(primitive, y, args, series, params)

    def _division(self, primitive: Primitive, args: Sequence[Any], series: list[Any]) -> Any:
        """What is divided by what, in a product with a factor 1 / q, which many rules are: one series fewer."""
        assert self.memo is not None
        if primitive is multiply:
            for i in (0, 1):
                if (of := self.memo.get(("inverse", id(series[i])))) is not None:
                    return args[1 - i], of
        return None

    def _quotient(self, a: Any, b: Any, y: Series) -> Extend:
        """a = y b gives y_k = (a_k - sum over j > 0 of b_j y_(k-j)) / b_0."""
        above, below, first = self.series_of(a), self.series_of(b), self.value_of(b)

        def extend(k: int) -> Any:
            total = None if above is None else above[k]
            rest = None if below is None else _cauchy(below, y, k, self.order, start=1)
            if rest is not None:
                total = -rest if total is None else total - rest
            return None if total is None else total / first

        return extend

    def _from_rule(
        self, primitive: Primitive, y: Tracer, args: Sequence[Any], series: list[Any], params: Params
    ) -> Extend:
        """y' = rule(x', y, x): the rule is run when the first coefficient is asked for."""
        slopes: list[Any] = []

        def extend(k: int) -> Any:
            if not slopes:
                tangents = [None if s is None else self._derivative(s) for s in series]
                slopes.append(_rule_of(primitive, args)(tangents, y, args, params))
            return _over(self._coefficient(slopes[0], k - 1), k)

        return extend

    def _derivative(self, x: Series) -> Tracer:
        """The series of x'."""
        assert self.memo is not None
        key = "derivative", id(x)
        if key not in self.memo:
            first = zero_like(x[0]) if x[1] is None else x[1]
            self.memo[key] = Tracer(self, first, Series(first, lambda k: _times(x[k + 1], k + 1))), x
        return self.memo[key][0]  # type: ignore[no-any-return]

    def _coefficient(self, x: Any, k: int) -> Any:
        """Of what a rule returned: a tracer, a constant, None, or a tuple of these."""
        if isinstance(x, tuple):
            return tuple(self._coefficient(part, k) for part in x)
        if (series := self.series_of(x)) is not None:
            return series[k]
        return self.value_of(x) if k == 0 else None


def taylor(fun: FlatFunction, primals: Arrays, tangents: Arrays, order: int) -> tuple[list[Arrays], Arrays]:
    """``(coefficients, aux)`` of t -> fun(primals + t tangents): for each power of t those of all outputs."""
    lines = [Series.of([x, t]) if order else None for x, t in zip(primals, tangents, strict=True)]
    outs, series, aux = push_through(Taylor(order), fun, primals, lines)
    rest = [
        tuple(_filled(None if s is None else s[k], out) for s, out in zip(series, outs, strict=True))
        for k in range(1, order + 1)
    ]
    return [outs, *rest], aux


def taylor_kind(primitive: Primitive) -> str:
    """How the primitive's series is made: ``"linear"``, ``"product"``, ``"from the JVP rule"``, ``"constant"``; or
    ``"none"``, where it has no rule."""
    if (primitive in _FACTORS and primitive is not pow) or primitive in _QUOTIENTS:
        return "product"
    if primitive.linear is not None:
        return "linear" if sum(primitive.linear) == 1 else "product"
    curved = primitive.name == "solve" or primitive.name.startswith("cofactor")  # in the matrix; not in the rest
    if primitive.name in _LINEAR or (primitive.transpose is not None and not curved):
        return "linear"
    made_by = primitive.jvp.__qualname__.partition(".")[0]
    return {"defzero": "constant", "_missing_rule": "none"}.get(made_by, "from the JVP rule")


_LINEAR = frozenset({"set_at", "pick"})  # their tangents are not pulled back: they have no transpose


def _square_of(a: Any, b: Any) -> Any:
    return (a, a) if type(b) in NUMBERS and b == 2 else None


_FACTORS: dict[Primitive, Callable[..., Any]] = {
    multiply: lambda a, b: (a, b),
    square: lambda x: (x, x),
    pow: _square_of,
}
_QUOTIENTS: dict[Primitive, Callable[..., Any]] = {divide: lambda a, b: (a, b), reciprocal: lambda x: (None, x)}


def _rule_of(primitive: Primitive, args: Sequence[Any]) -> Callable[..., Any]:
    """Its JVP rule; away from zero, for powers, one that asks for no other power."""
    return _rule_of_pow if primitive is pow and np.all(concrete(args[0] != 0)) else primitive.jvp


def _rule_of_pow(tangents: Sequence[Any], y: Any, args: Sequence[Any], params: Params) -> Any:
    """y = a^b: y' = y (b a' / a + b' log a)."""
    (ta, tb), (a, b) = tangents, args
    by_base = None if ta is None else b * ta / a
    by_exponent = None if tb is None else tb * log(a)
    both = by_base if by_exponent is None else by_exponent if by_base is None else by_base + by_exponent
    return fit(y * both, y)


def _product(primitive: Primitive, series: Sequence[Any], values: Sequence[Any], params: Params, k: int) -> Any:
    """Coefficient k of what is linear in each argument: the sum over all the ways to split k among them."""
    moving = [i for i, s in enumerate(series) if s is not None]
    total = None
    for places in _splits(k, len(moving)):
        parts = [series[i][place] for i, place in zip(moving, places, strict=True)]
        if all(part is not None for part in parts):
            operands = list(values)
            for i, part in zip(moving, parts, strict=True):
                operands[i] = part
            term = primitive(*operands, **params)
            total = term if total is None else add(total, term)
    return total


def _splits(k: int, count: int) -> Iterator[tuple[int, ...]]:
    """All tuples of `count` natural numbers with sum k."""
    if count == 1:
        yield (k,)
        return
    for first in range(k + 1):
        for rest in _splits(k - first, count - 1):
            yield (first, *rest)


def _cauchy(a: Series, b: Series, k: int, order: int, start: int = 0) -> Any:
    """The sum of a_j b_(k-j) over j from `start` to k."""
    a[k], b[k - start]
    low, high = max(start, k - b.degree), min(k, a.degree)
    if low < high and a.plain and b.plain:
        if a is b and not start and a[0].size > _LARGE:
            return _sum_of_squares(a, low, high, order)
        left, right = a.stacked(high + 1, order)[low:], b.stacked(k - low + 1, order)[k - high :]
        return c_einsum("j...,j...->...", left, right[::-1])
    total = None
    for j in range(low, high + 1):
        if a[j] is not None and b[k - j] is not None:
            term = multiply(a[j], b[k - j])
            total = term if total is None else add(total, term)
    return total


_LINES = frozenset({add, subtract, negative, multiply, divide})
"""Elementwise primitives that are linear, of a series and a constant at least."""


def _by_rows(primitive: Primitive, args: Sequence[Any], series: Sequence[Any]) -> Series | None:
    """All coefficients of a linear elementwise operation at once, where they are NumPy's and of one shape."""
    moving = [s for s in series if s is not None]
    values = [a if s is None else s[0] for a, s in zip(args, series, strict=True)]
    if not moving or any(isinstance(v, Traced) for v in values) or not all(s.plain for s in moving):
        return None
    y = primitive.impl(*values)
    if any(s[0].shape != y.shape or s[0].dtype != y.dtype for s in moving):
        return None
    if primitive in (add, subtract):
        return _sum_of_rows(primitive, y, *series)
    if len(moving) > 1 or (series[0] is None and primitive is divide):
        return None
    rows = [a if s is None else s.stacked(s.degree + 1, s.degree) for a, s in zip(args, series, strict=True)]
    return Series.of(list(primitive.impl(*rows)))


def _sum_of_rows(primitive: Primitive, y: Any, a: Series | None, b: Series | None) -> Series:
    """y = a + b or a - b; None for a constant."""
    if a is None or b is None:
        rest = (a or b).coefficients[1:]  # type: ignore[union-attr]  # one of them is a series
        return Series.of([y, *(rest if a or primitive is add else [None if c is None else -c for c in rest])])
    count = min(a.degree, b.degree) + 1
    left, right = (s.stacked(s.degree + 1, s.degree) for s in (a, b))
    tail = left[count:] if len(left) > count else right[count:] if primitive is add else -right[count:]
    return Series.of([*primitive.impl(left[:count], right[:count]), *tail])


def _sum_of_squares(a: Series, low: int, high: int, order: int) -> Any:
    """The sum of a_j a_(low + high - j) over j from `low` to `high`: each product but the middle one comes twice."""
    rows = a.stacked(high + 1, order)
    half = (high - low + 1) // 2
    total = 2 * c_einsum("j...,j...->...", rows[low : low + half], rows[high - half + 1 : high + 1][::-1])
    return total if (high - low) % 2 else total + rows[low + half] ** 2


def _pushed(primitive: Primitive, tangents: list[Any], y: Any, values: list[Any], params: Params) -> Any:
    return None if all(t is None for t in tangents) else primitive.jvp(tangents, y, values, params)


def _finished(series: Series, order: int) -> Series | None:
    """All its coefficients computed, and what computed them forgotten; None if it is a constant."""
    series[order]
    series.extend = None
    return series if series.degree else None


def _filled(coefficient: Any, out: Any) -> Any:
    return zero_like(out) if coefficient is None else coefficient


def _times(coefficient: Any, k: int) -> Any:
    return coefficient if coefficient is None or k == 1 else coefficient * k


def _over(coefficient: Any, k: int) -> Any:
    if isinstance(coefficient, tuple):
        return tuple(_over(part, k) for part in coefficient)
    return coefficient if coefficient is None or k == 1 else coefficient / k


def _is_inexact(value: Any) -> bool:
    """Whether it is of floating dtype, or a bundle."""
    return not hasattr(value, "dtype") or value.dtype.kind in "fc"


def _key(primitive: Primitive, args: Sequence[Any], series: Sequence[Any], params: Params) -> Any:
    """What tells that an operation has been asked for before; None if its parameters do not compare."""
    parts = [
        id(s) if s is not None else (type(a), a) if type(a) in NUMBERS else id(a)
        for a, s in zip(args, series, strict=True)
    ]
    key = primitive, *parts, *params.items()
    try:
        hash(key)
    except TypeError:
        return None
    return key
