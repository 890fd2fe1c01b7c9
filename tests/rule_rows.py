"""The test rows of the reference engine's rules: one for every differentiable primitive.

A row names the primitive and where to look at its derivative. `points` is for elementwise primitives: each point
is a number, or a tuple of them for several arguments. `call` is for the others: a call of the primitive, and the
arrays to call it with. Points are generic, tiny, huge, next to special values, and of both signs.

How far the engine's tangent may be from the exact one: `ulps` units in its last place, point by point, for
elementwise rows; `relative`, to the largest entry of the tangent, for the others, where rounding errors of one
entry reach the others and grow with the condition of the matrix.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adbridge.backends.reference.primitives import PRIMITIVES
from adbridge.backends.reference.rules.shaping import Slot


@dataclass(frozen=True)
class Row:
    """One test of one primitive's rule.

    `label` tells rows of one primitive apart. At the points `inaccurate` the rule is known to lose digits to
    cancellation, at `inexact` it is a series that is right to float64 only: its `digits` in Arb are fewer.
    `hermitian` directions are for functions of the lower triangle.
    """

    name: str
    label: str
    fun: Callable[..., Any]
    args: tuple[np.ndarray, ...]
    elementwise: bool = False
    ulps: float = 4.0
    relative: float = 1e-14
    inaccurate: tuple[Any, ...] = ()
    inexact: tuple[Any, ...] = ()
    digits: float = 50
    hermitian: bool = False

    def points(self) -> list[Any]:
        """What the row was made of."""
        columns = [x.tolist() for x in self.args]
        return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))

    def is_inaccurate(self) -> np.ndarray:
        return np.array([p in self.inaccurate for p in self.points()])

    def is_inexact(self) -> np.ndarray:
        return np.array([p in self.inexact for p in self.points()] if self.inexact else [False])

    def __str__(self) -> str:
        return f"{self.name}-{self.label}" if self.label else self.name


def points(name: str, *at: Any, label: str = "", params: Any = None, **options: Any) -> Row:
    """A row of an elementwise primitive."""
    columns = zip(*(p if isinstance(p, tuple) else (p,) for p in at), strict=True)
    args = tuple(np.array(column, float) for column in columns)
    return Row(name, label, functools.partial(_apply, name, **(params or {})), args, elementwise=True, **options)


def call(name: str, fun: Callable[..., Any], *args: np.ndarray, label: str = "", **options: Any) -> Row:
    """A row of any other primitive: ``fun(primitive, *args)``."""
    return Row(name, label, functools.partial(_called, name, fun), args, **options)


def _apply(name: str, *args: Any, **params: Any) -> Any:
    return PRIMITIVES[name](*args, **params)


def _called(name: str, fun: Callable[..., Any], *args: Any) -> Any:
    return fun(PRIMITIVES[name], *args)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).uniform(-1.0, 1.0, shape)


def complexes(*shape: int, seed: int = 0) -> np.ndarray:
    return random(*shape, seed=seed) + 1j * random(*shape, seed=seed + 1)


def steady(n: int, seed: int = 0) -> np.ndarray:
    """A well-conditioned matrix."""
    return random(n, n, seed=seed) + 2 * np.eye(n)


def definite(n: int) -> np.ndarray:
    a = random(n, n, seed=3)
    return a @ a.T + np.diag(np.arange(1.0, n + 1))


def hermitian(n: int) -> np.ndarray:
    a = complexes(n, n, seed=3)
    return a @ a.conj().T + np.diag(np.arange(1.0, n + 1))


def pick(results: Any, index: int) -> Any:
    return PRIMITIVES["pick"](results, index=index)


def projector(results: Any) -> Any:
    """V diag(w) V^H: the same whatever the phases of eigenvectors."""
    w, v = pick(results, 0), pick(results, 1)
    return PRIMITIVES["matmul"](v * w, PRIMITIVES["conj"](v).mT)


BELOW_ONE, ABOVE_ONE = 1 - 2.0**-53, 1 + 2.0**-52
ANY = (0.3, -0.7, 1.9, -3.1, 1e-300, -1e-8, 1e-8)
POSITIVE = (0.3, 1.9, 7.5, 1e-300, 1e-8, BELOW_ONE, ABOVE_ONE, 1e200)
UNIT = (0.3, -0.7, 1e-300, -1e-8, 0.999, -0.999999, BELOW_ONE, -BELOW_ONE)
PAIRS = ((0.3, -0.7), (-1.9, 2.4), (3.0, 1e-8), (-1e-8, 2.0), (1e-300, -3.0), (1e150, 1e150), (-2.0, -2.5))

ELEMENTWISE = [
    points("negative", *ANY, 1e300),
    points("add", *PAIRS),
    points("subtract", *PAIRS),
    points("multiply", *PAIRS),
    points("divide", *PAIRS),
    points("square", *ANY, 1e150),
    points("sqrt", *POSITIVE),
    points("cbrt", *POSITIVE, -0.3, -1e-300, -1e200),
    points("reciprocal", 0.3, -0.7, 1e-100, -1e-8, 1e150),
    points("exp", *ANY, 20.0, -20.0, 700.0, -700.0),
    points("exp2", *ANY, 20.0, -20.0, 1000.0, -1000.0),
    points("expm1", *ANY, 20.0, 700.0, -20.0, -700.0),
    points("log", *POSITIVE),
    points("log1p", *ANY[:3], *ANY[4:], 1e200, -0.999, -BELOW_ONE),
    points("log2", *POSITIVE),
    points("log10", *POSITIVE),
    points("pow", (0.3, -0.7), (1.9, 2.4), (3.0, 1e-8), (1e-8, 2.0), (1e-300, 0.5), (1e100, 2.5), (ABOVE_ONE, 3.0)),
    points("sin", *ANY, 1e5, -1e22, np.pi, np.pi / 2),
    points("cos", *ANY, 1e5, -1e22, np.pi, np.pi / 2),
    points("tan", *ANY, 1e5, -1e22, np.pi, np.pi / 2),
    points("asin", *UNIT),
    points("acos", *UNIT),
    points("atan", *ANY, 1e5, -1e150),
    points("sinh", *ANY, 20.0, -700.0),
    points("cosh", *ANY, 20.0, -700.0),
    points("tanh", *ANY, 5.0, 20.0, -20.0, 300.0, inaccurate=(-3.1, 5.0, 20.0, -20.0, 300.0)),
    points("asinh", *ANY, 1e5, -1e200),
    points("acosh", 1.2, 2.5, 9.0, ABOVE_ONE, 1 + 1e-8, 1e200),
    points("atanh", *UNIT),
    points("atan2", *PAIRS, (1e-200, 1e-200), (1e200, -1e100), (1e-150, -1e-160), (-3.0, -1e-300)),
    points("hypot", *PAIRS, (1e-200, 1e-200), (1e200, -1e100), (-3e-200, 4e-200), (1e300, 1e300)),
    points(
        "logaddexp",
        *PAIRS[:5],
        (700.0, 700.5),
        (-1e5, -1e5 + 1),
        (20.0, -20.0),
        (1e5, 1e5 + 3),
        inaccurate=((700.0, 700.5), (-1e5, -1e5 + 1), (1e5, 1e5 + 3)),
    ),
    points("abs", *ANY, 1e300),
    points("sign", *ANY, 1e300),
    points("maximum", *PAIRS[:5], (1e200, -1e200)),
    points("minimum", *PAIRS[:5], (1e200, -1e200)),
    points("remainder", (5.5, 2.0), (-5.5, 2.0), (5.5, -2.25), (-0.3, -0.7), (1e5, 0.3)),
    points("fmod", (5.5, 2.0), (-5.5, 2.0), (5.5, -2.25), (-0.3, -0.7), (1e5, 0.3)),
    points("copysign", (0.3, -0.7), (-1.9, 2.4), (-1e-300, -3.0), (1e200, 1.0)),
    points("nextafter", (0.3, 1.0), (-1.9, 2.4), (1e-300, -3.0)),
    points("real", *ANY),
    points("conj", *ANY),
    points("expit", *ANY, 20.0, -20.0, 700.0, -700.0),
    points("logit", 0.3, 0.7, 1e-8, 1e-300, 0.999999, BELOW_ONE),
    points("log_expit", *ANY, 20.0, -20.0, 700.0, -700.0),
    points("xlogy", (0.3, 0.7), (-1.9, 2.4), (0.0, 3.0), (1e-300, 1e-8), (2.0, ABOVE_ONE), (5.0, 1e200)),
    points("xlog1py", (0.3, 0.7), (-1.9, 2.4), (0.0, 3.0), (1e-300, 1e-8), (2.0, -0.999), (5.0, 1e-300)),
    points("entr", 0.3, 1.9, 1e-8, 1e-300, 1e200),
    points("erf", *ANY, 5.0, -20.0),
    points("erfc", *ANY, 5.0, -20.0, 20.0),
    points("erfinv", 0.3, -0.7, 1e-8, -1e-300, 0.999, -0.999999, BELOW_ONE, inaccurate=(0.999, BELOW_ONE)),
    points("erfcinv", 0.3, 0.7, 1e-8, 1e-300, 1.999, inaccurate=(1e-8, 1e-300)),
    points("erfcx", *ANY, 9.0, 11.0, -5.0, 100.0, 1e8, inaccurate=(1.9, 9.0), ulps=6, inexact=(11.0, 100.0, 1e8)),
    points("ndtr", *ANY, 5.0, -20.0, 20.0),
    points("ndtri", 0.3, 0.7, 1e-8, 1e-300, 0.999, inaccurate=(1e-8, 1e-300)),
    points("log_ndtr", *ANY, 5.0, -5.0, -20.0, 20.0, -1e5, inaccurate=(5.0, 20.0), ulps=6, inexact=(-20.0, -1e5)),
    points("polygamma", 0.3, 1.9, 7.5, 1e-8, 1e5, -0.7, -3.1, label="digamma", params={"n": 0}),
    points("polygamma", 0.3, 1.9, 7.5, 1e-8, 1e5, label="tetragamma", params={"n": 2}),
    points("gammaln", 0.3, 1.9, 7.5, 1e-8, 1e5, 1e200, -0.7, -3.1, 1.461632144968362),
    points("gamma", 0.3, 1.9, 7.5, 1e-8, 150.0, -0.7, -3.1, 1.461632144968362),
    points(
        "betaln",
        (0.3, 0.7),
        (1.9, 2.4),
        (1e-8, 3.0),
        (150.0, 20.0),
        (1e5, 1e-3),
        inaccurate=((150.0, 20.0), (1e5, 1e-3), (1e-8, 3.0)),
    ),
    points("bessel_j", *ANY, 20.0, -20.0, label="0", params={"order": 0}, inaccurate=(1e-300,)),
    points("bessel_j", *ANY, 20.0, -20.0, label="1", params={"order": 1}),
    points("bessel_j", *ANY, 20.0, -20.0, label="3", params={"order": 3}, inaccurate=(-1e-8, 1e-8), ulps=6),
    points("bessel_i", *ANY, 20.0, -20.0, label="0", params={"order": 0}, inaccurate=(1e-300,)),
    points("bessel_i", *ANY, 20.0, -20.0, label="1", params={"order": 1}),
    points("bessel_i", *ANY, 20.0, -20.0, label="3", params={"order": 3}, ulps=6),
    points("bessel_ie", *ANY, 20.0, -20.0, label="0", params={"order": 0}, ulps=6, inaccurate=(20.0, -20.0)),
    points("bessel_ie", *ANY, 20.0, -20.0, label="1", params={"order": 1}, inaccurate=(1.9, -3.1, 20.0, -20.0)),
    points(
        "bessel_ie",
        *ANY,
        20.0,
        -20.0,
        label="3",
        params={"order": 3},
        ulps=6,
        inaccurate=(-3.1, -1e-8, 1e-8, 20.0, -20.0),
    ),
    points("sinc", *ANY, 1e5 + 0.3, 0.49, 1.0, label="0", inaccurate=(1e5 + 0.3,)),
    points("sinc", *ANY, 100.0, 0.49, 1.0, label="2", params={"order": 2}),
]

FIRST = (slice(0, 2), 1)
SINGULAR = np.array([[1.0, 2.0, 3.0], [4.0, -5.0, 6.0], [5.0, -3.0, 9.0]])
KEEP = {"axis": (1,), "keepdims": True}
OTHERS = [
    call("astype", lambda f, x: f(x, dtype=np.dtype(np.float64)), random(3)),
    call("where", lambda f, x, y: f(np.array([True, False, True]), x, y), random(3), random(3, seed=1)),
    call("sum", lambda f, x: f(x, axis=(0,), keepdims=False), random(3, 4)),
    call("max", lambda f, x: f(x, **KEEP), random(3, 4)),
    call("min", lambda f, x: f(x, **KEEP), random(3, 4)),
    call("cumulative_sum", lambda f, x: f(x, axis=1), random(3, 4)),
    call("broadcast_to", lambda f, x: f(x, shape=(3, 4)), random(4)),
    call("reshape", lambda f, x: f(x, shape=(2, 6)), random(3, 4)),
    call("permute_dims", lambda f, x: f(x, axes=(1, 0)), random(3, 4)),
    call("getitem", lambda f, x: f(x, key=FIRST), random(3, 4), label="basic"),
    call("getitem", lambda f, x: f(x, np.array([0, 2, 0]), key=Slot(0)), random(3, 4), label="repeated"),
    call("add_at", lambda f, x, v: f(x, v, key=FIRST), random(3, 4), random(2), label="basic"),
    call("add_at", lambda f, x, v: f(x, v, np.array([0, 2, 0]), key=Slot(0)), random(3), random(3), label="repeated"),
    call("set_at", lambda f, x, v: f(x, v, key=FIRST), random(3, 4), random(2), label="basic"),
    call("set_at", lambda f, x, v: f(x, v, np.array([0, 2, 0]), key=Slot(0)), random(3), random(3), label="repeated"),
    call("clear_at", lambda f, x: f(x, np.array([0, 2]), key=Slot(0)), random(3, 4)),
    call("concat", lambda f, x, y: f(x, y, axis=1), random(2, 3), random(2, 1)),
    call("matmul", lambda f, a, b: f(a, b), random(2, 3), random(3, 2), label="matrices"),
    call("matmul", lambda f, a, b: f(a, b), random(2, 2, 3), random(3), label="stack and vector"),
    call("take", lambda f, x: f(x, np.array([0, 2, 0]), axis=1), random(2, 3)),
    call("add_taken", lambda f, x: f(x, np.array([0, 2, 0]), axis=1, size=4), random(2, 3)),
    call("take_along_axis", lambda f, x: f(x, np.array([[0, 2, 0]]), axis=1), random(1, 3)),
    call("add_along_axis", lambda f, x: f(x, np.array([[0, 2, 0]]), axis=1, size=4), random(1, 3)),
    call("convolve", lambda f, a, v: f(a, v), random(4), random(3)),
    call("diagonal", lambda f, x: f(x, offset=1), random(3, 4)),
    call("from_diagonal", lambda f, x: f(x, offset=-1, shape=(3, 3)), random(2)),
    call("inv", lambda f, x: f(x), steady(3), relative=1e-13),
    call("solve", lambda f, a, b: f(a, b), steady(3), random(3, 2), relative=1e-13),
    call("det", lambda f, x: f(x), steady(3), relative=1e-13),
    call("det", lambda f, x: f(x), SINGULAR, label="singular", relative=1e-13),
    call("cofactor", lambda f, x: f(x), steady(3), relative=1e-13),
    call("slogdet", lambda f, x: pick(f(x), 1), steady(3), relative=1e-13),
    call("cholesky", lambda f, x: f(x), definite(3), hermitian=True, relative=1e-13),
    *(call("qr", lambda f, x, i=i: pick(f(x), i), random(4, 3), label="QR"[i], relative=1e-13) for i in range(2)),
    call("qr", lambda f, x: pick(f(x), 1), random(2, 4), label="wide", relative=1e-13),
    *(
        call("eigh", lambda f, x, i=i: pick(f(x), i), definite(3), label="wv"[i], hermitian=True, relative=1e-13)
        for i in range(2)
    ),
    *(call("svd", lambda f, x, i=i: pick(f(x), i), random(4, 3), label="usv"[i], relative=1e-13) for i in range(3)),
    call("svd", lambda f, x: pick(f(x), 2), random(2, 4), label="wide", relative=1e-13),
    call("pinv", lambda f, x: f(x, rtol=1e-15), random(4, 2), relative=1e-13),
    call("pinv", lambda f, x: f(x, rtol=1e-15), random(2, 4), label="wide", relative=1e-13),
    call("pick", lambda f, x: f(PRIMITIVES["slogdet"](x), index=1), steady(3), relative=1e-13),
    call("logsumexp", lambda f, x: f(x, axis=(1,), keepdims=False), random(2, 3)),
    call("logsumexp", lambda f, x: f(x, axis=(0,), keepdims=False), np.array([1e5, 1e5 + 1, -1e5]), label="huge"),
    call("softmax", lambda f, x: f(x, axis=(1,)), random(2, 3)),
    call("log_softmax", lambda f, x: f(x, axis=(1,)), random(2, 3)),
]

COMPLEX = [
    call("real", lambda f, z: f(z), complexes(3), label="complex"),
    call("imag", lambda f, z: f(z), complexes(3), label="complex"),
    call("conj", lambda f, z: f(z), complexes(3), label="complex"),
    call("abs", lambda f, z: f(z), complexes(3), label="complex"),
    call("sign", lambda f, z: f(z), complexes(3), label="complex"),
    call("pow", lambda f, a, b: f(a, b), complexes(3), complexes(3, seed=2), label="complex"),
    *(
        call(name, lambda f, z: f(z), complexes(3), label="complex", relative=1e-13)
        for name in ("square", "sqrt", "reciprocal", "exp", "exp2", "expm1", "log", "log1p", "log2", "log10")
    ),
    *(
        call(name, lambda f, z: f(z), complexes(3), label="complex", relative=1e-13)
        for name in ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh")
    ),
    *(
        call(name, lambda f, a, b: f(a, b), complexes(3), complexes(3, seed=2), label="complex")
        for name in ("add", "subtract", "multiply", "divide")
    ),
    call("matmul", lambda f, a, b: f(a, b), complexes(2, 3), complexes(3, 2), label="complex"),
    call("fft", lambda f, z: f(z, axes=(1,), norm="backward"), complexes(2, 5)),
    call("fft", lambda f, z: f(z, axes=(0, 1), norm="ortho"), complexes(2, 4), label="two axes"),
    call("ifft", lambda f, z: f(z, axes=(1,), norm="backward"), complexes(2, 5)),
    *(call("rfft", lambda f, x: f(x, axis=1, norm="backward"), random(2, n), label=str(n)) for n in (5, 6)),
    *(
        call("irfft", lambda f, z, n=n: f(z, n=n, axis=1, norm="forward"), complexes(2, n // 2 + 1), label=str(n))
        for n in (5, 6)
    ),
    call("inv", lambda f, x: f(x), complexes(3, 3), label="complex", relative=1e-13),
    call("solve", lambda f, a, b: f(a, b), complexes(3, 3), complexes(3, 1), label="complex", relative=1e-13),
    call("det", lambda f, x: f(x), complexes(3, 3), label="complex", relative=1e-13),
    call("slogdet", lambda f, x: pick(f(x), 0), complexes(3, 3), label="complex", relative=1e-13),
    call("cholesky", lambda f, x: f(x), hermitian(3), label="complex", hermitian=True, relative=1e-13),
    *(
        call("qr", lambda f, x, i=i: pick(f(x), i), complexes(3, 3), label=f"complex {'QR'[i]}", relative=1e-13)
        for i in range(2)
    ),
    call("eigh", lambda f, x: pick(f(x), 0), hermitian(3), label="complex w", hermitian=True, relative=1e-13),
    call("eigh", lambda f, x: projector(f(x)), hermitian(3), label="complex V W V^H", hermitian=True, relative=1e-13),
    call("svd", lambda f, x: pick(f(x), 1), complexes(3, 2), label="complex s", relative=1e-13),
    call("pinv", lambda f, x: f(x, rtol=1e-15), complexes(3, 2), label="complex", relative=1e-13),
]

ROWS: Sequence[Row] = (*ELEMENTWISE, *OTHERS, *COMPLEX)

# What has a zero derivative: rows to run it by.

NUMBERS = (0.5, -0.5, 1.5, 2.5, -3.7, 1e15)
ORDERS = ((1.0, 2.0), (2.0, 1.0), (2.0, 2.0), (-1e-300, 0.0), (5.5, -2.0))
WHOLE, SHIFT = np.array([6, -5, 12]), np.array([3, 1, 2])
TIES = np.array([[3.0, 1.0, 3.0], [0.0, -1.0, 0.0]])

CONSTANT = (
    *(points(name, *NUMBERS) for name in ("floor", "ceil", "round", "trunc", "isnan", "isinf", "isfinite")),
    *(points(name, *NUMBERS) for name in ("signbit", "logical_not")),
    *(points(name, *ORDERS) for name in ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")),
    *(points(name, *ORDERS[:3], *ORDERS[4:]) for name in ("floor_divide", "logical_and", "logical_or", "logical_xor")),
    *(call(name, lambda f, i, j: f(i, j), WHOLE, SHIFT) for name in ("bitwise_and", "bitwise_or", "bitwise_xor")),
    *(call(name, lambda f, i, j: f(i, j), WHOLE, SHIFT) for name in ("bitwise_left_shift", "bitwise_right_shift")),
    call("bitwise_invert", lambda f, i: f(i), WHOLE),
    *(call(name, lambda f, x: f(x, axis=(1,), keepdims=True), TIES) for name in ("all", "any")),
    *(call(name, lambda f, x: f(x, axis=1, keepdims=False), TIES) for name in ("argmax", "argmin")),
    *(call("argsort", lambda f, x, d=d: f(x, axis=1, descending=d), TIES, label=str(d)) for d in (False, True)),
    *(
        call("searchsorted", lambda f, x, v, side=side: f(x, v, side=side), np.array([1.0, 2.0, 2.0]), TIES, label=side)
        for side in ("left", "right")
    ),
    call("share_of_ties", lambda f, x, y: f(x, y), TIES, np.array([[3.0], [0.0]])),
    call("last_writes", lambda f, i: f(i, key=Slot(0), shape=(4,)), np.array([0, 2, 0])),
    call("matrix_rank", lambda f, x: f(x, rtol=1e-10), steady(3)),
)
