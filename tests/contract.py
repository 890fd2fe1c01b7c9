"""The contract that every backend meets: one function per clause, each taking the backend.

A clause marked `value` is about a derivative's value: a backend whose derivatives are zero must fail it.
A clause marked `structure` is about trees, types, memory and errors alone. Expected values are closed
forms, computed with NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import adbridge as ad

Clause = Callable[[ad.Backend], None]
VALUE: dict[str, Clause] = {}
STRUCTURE: dict[str, Clause] = {}

X = np.array([0.3, -1.2, 2.5])
Y = np.array([1.5, 0.4, -0.7])


def value(clause: Clause) -> Clause:
    VALUE[clause.__name__] = clause
    return clause


def structure(clause: Clause) -> Clause:
    STRUCTURE[clause.__name__] = clause
    return clause


def close(got: Any, expected: Any, tolerance: float | None = None) -> None:
    """`got` has the expected shape and values (to 1e-5 in single precision, 1e-12 in double)."""
    expected = np.asarray(expected)
    host = to_host(got)
    assert host.shape == expected.shape, f"shape {host.shape}, expected {expected.shape}"
    single = host.dtype in (np.float32, np.complex64)
    bound = tolerance or (1e-5 if single else 1e-12)
    np.testing.assert_allclose(host, expected, rtol=bound, atol=bound)


def to_host(array: Any) -> np.ndarray:
    if isinstance(array, np.ndarray):
        return array
    return np.asarray(array.detach().cpu() if hasattr(array, "detach") else array)


def own(backend: ad.Backend, array: Any) -> Any:
    """`array` as the backend's engine's own (NumPy's for the engines that have none)."""
    array = np.asarray(array)
    with backend.scope([str(array.dtype)]):
        return backend.from_numpy(array)


def xp_of(x: Any) -> Any:
    return ad.array_namespace(x)


# The functions and their derivatives.


def wave(x: Any) -> Any:
    """sum x sin x"""
    xp = xp_of(x)
    return xp.sum(x * xp.sin(x))


def wave_slope(x: np.ndarray) -> np.ndarray:
    return np.sin(x) + x * np.cos(x)


def wave_curvature(x: np.ndarray) -> np.ndarray:
    """The diagonal of the Hessian, which has nothing else."""
    return 2 * np.cos(x) - x * np.sin(x)


def pair(x: Any) -> Any:
    """R^3 -> R^2: (x0 x1, sin x2 + x0^2)"""
    xp = xp_of(x)
    return xp.stack([x[0] * x[1], xp.sin(x[2]) + x[0] * x[0]])


def pair_jacobian(x: np.ndarray) -> np.ndarray:
    return np.array([[x[1], x[0], 0.0], [2 * x[0], 0.0, np.cos(x[2])]])


def cubes(x: Any) -> Any:
    """R^n -> R^(2n): (x^3, 2x)"""
    return xp_of(x).concat([x * x * x, 2 * x])


def cubes_jacobian(x: np.ndarray) -> np.ndarray:
    return np.concatenate([np.diag(3 * x**2), 2 * np.eye(len(x))])


def modulus2(z: Any) -> Any:
    """|z|^2, whose gradient df/dx - i df/dy is 2 conj(z)"""
    xp = xp_of(z)
    return xp.sum(xp.real(z * xp.conj(z)))


# Values.


@value
def grad_closed_form(b: ad.Backend) -> None:
    close(ad.grad(wave, backend=b)(X), wave_slope(X))


@value
def value_and_grad_closed_form(b: ad.Backend) -> None:
    out, slope = ad.value_and_grad(wave, backend=b)(X)
    close(out, np.sum(X * np.sin(X)))
    close(slope, wave_slope(X))


@value
def jvp_closed_form(b: ad.Backend) -> None:
    out, tangent = ad.jvp(pair, (X,), (Y,), backend=b)
    close(out, [X[0] * X[1], np.sin(X[2]) + X[0] ** 2])
    close(tangent, pair_jacobian(X) @ Y)


@value
def vjp_closed_form(b: ad.Backend) -> None:
    out, vjp_fn = ad.vjp(pair, X, backend=b)
    close(out, [X[0] * X[1], np.sin(X[2]) + X[0] ** 2])
    (cotangent,) = vjp_fn(np.array([2.0, -3.0]))
    close(cotangent, np.array([2.0, -3.0]) @ pair_jacobian(X))


@value
def jacobian_wide_in_all_modes(b: ad.Backend) -> None:
    for mode in ("auto", "forward", "reverse"):
        close(ad.jacobian(pair, mode=mode, backend=b)(X), pair_jacobian(X))


@value
def jacobian_tall_in_all_modes(b: ad.Backend) -> None:
    for mode in ("auto", "forward", "reverse"):
        close(ad.jacobian(cubes, mode=mode, backend=b)(X), cubes_jacobian(X))


@value
def jacobian_of_matrices(b: ad.Backend) -> None:
    a, x = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4)
    # d(A X)_ij / dX_kl = A_ik delta_jl
    expected = np.einsum("ik,jl->ijkl", a, np.eye(4))
    for mode in ("auto", "forward", "reverse"):
        close(ad.jacobian(lambda x, a: a @ x, mode=mode, backend=b)(x, a), expected)


@value
def jacobian_of_scalar_input(b: ad.Backend) -> None:
    for mode in ("auto", "forward", "reverse"):
        got = ad.jacobian(lambda t: xp_of(t).stack([t, t * t, t * t * t]), mode=mode, backend=b)(2.0)
        close(got, [1.0, 4.0, 12.0])


@value
def jacobian_of_trees(b: ad.Backend) -> None:
    def fun(x: Any) -> Any:
        return {"product": x["a"] * x["b"], "rest": (x["a"],)}

    for mode in ("auto", "forward", "reverse"):
        got = ad.jacobian(fun, mode=mode, backend=b)({"a": X, "b": Y})
        close(got["product"]["a"], np.diag(Y))
        close(got["product"]["b"], np.diag(X))
        close(got["rest"][0]["a"], np.eye(3))
        close(got["rest"][0]["b"], np.zeros((3, 3)))


@value
def argnums_int(b: ad.Backend) -> None:
    close(ad.grad(lambda x, y: xp_of(x).sum(x * x * y), argnums=1, backend=b)(X, Y), X * X)


@value
def argnums_tuple(b: ad.Backend) -> None:
    by_y, by_x = ad.grad(lambda x, y: xp_of(x).sum(x * x * y), argnums=(1, 0), backend=b)(X, Y)
    close(by_y, X * X)
    close(by_x, 2 * X * Y)


@value
def argnums_tuple_of_one(b: ad.Backend) -> None:
    got = ad.grad(wave, argnums=(0,), backend=b)(X)
    assert isinstance(got, tuple)
    close(got[0], wave_slope(X))


@value
def argnums_negative(b: ad.Backend) -> None:
    close(ad.grad(lambda x, y: xp_of(x).sum(x * x * y), argnums=-2, backend=b)(X, Y), 2 * X * Y)


@value
def argnums_iterator_lasts(b: ad.Backend) -> None:
    slopes = ad.grad(lambda x, y: x * y, argnums=iter((0, 1)), backend=b)  # type: ignore[arg-type]
    for _ in range(2):
        by_x, by_y = slopes(2.0, 5.0)
        close(by_x, 5.0)
        close(by_y, 2.0)


@value
def aux_of_arrays(b: ad.Backend) -> None:
    def fun(x: Any) -> Any:
        return wave(x), {"twice": 2 * x, "label": "text", "count": 3, "none": None, "constant": np.ones(2)}

    slope, aux = ad.grad(fun, has_aux=True, backend=b)(X)
    close(slope, wave_slope(X))
    close(aux["twice"], 2 * X)
    close(aux["constant"], np.ones(2))
    assert (aux["label"], aux["count"], aux["none"]) == ("text", 3, None)
    (out, again), slope = ad.value_and_grad(fun, has_aux=True, backend=b)(X)
    close(out, np.sum(X * np.sin(X)))
    close(again["twice"], 2 * X)
    close(slope, wave_slope(X))


@value
def aux_of_jvp_and_vjp(b: ad.Backend) -> None:
    _, tangent, aux = ad.jvp(lambda x: (x * x, (x, "label")), (X,), (Y,), has_aux=True, backend=b)
    close(tangent, 2 * X * Y)
    close(aux[0], X)
    _, vjp_fn, aux = ad.vjp(lambda x: (x * x, (x, "label")), X, has_aux=True, backend=b)
    close(vjp_fn(Y)[0], 2 * X * Y)
    assert aux[1] == "label"


class Point(NamedTuple):
    first: Any
    second: Any


@value
def trees_in(b: ad.Backend) -> None:
    def fun(p: Any) -> Any:
        xp = xp_of(p["w"][0])
        return xp.sum(p["w"][0] * p["w"][1]) + xp.sum(p["point"].first * p["point"].first)

    tree = {"w": (X, Y), "point": Point(X, None), "nothing": None, "empty": ()}
    got = ad.grad(fun, backend=b)(tree)
    assert set(got) == set(tree) and got["nothing"] is None and got["empty"] == ()
    assert isinstance(got["point"], Point) and got["point"].second is None
    close(got["w"][0], Y)
    close(got["w"][1], X)
    close(got["point"].first, 2 * X)


@value
def list_of_floats(b: ad.Backend) -> None:
    got = ad.grad(lambda p: p[0] * p[1], backend=b)([2.0, 3.0])
    assert isinstance(got, list)
    close(got[0], 3.0)
    close(got[1], 2.0)


@value
def keyword_arguments(b: ad.Backend) -> None:
    def fun(x: Any, *, scale: Any, flag: bool, weights: Any) -> Any:
        return xp_of(x).sum(x * x * weights) * scale if flag else 0.0

    close(ad.grad(fun, backend=b)(X, scale=3.0, flag=True, weights=Y), 6 * X * Y)


@value
def trees_out(b: ad.Backend) -> None:
    def fun(x: Any, y: Any) -> Any:
        return {"product": x * y, "pair": (x, [xp_of(x).sum(y)])}

    out, tangent = ad.jvp(fun, (X, Y), (Y, X), backend=b)
    assert list(out) == ["pair", "product"] or set(out) == {"pair", "product"}
    close(tangent["product"], Y * Y + X * X)
    close(tangent["pair"][0], Y)
    close(tangent["pair"][1][0], np.sum(X))
    out, vjp_fn = ad.vjp(fun, X, Y, backend=b)
    by_x, by_y = vjp_fn({"product": np.ones(3), "pair": (np.full(3, 2.0), [5.0])})
    close(by_x, Y + 2)
    close(by_y, X + 5)


@value
def unused_input_is_zero(b: ad.Backend) -> None:
    used, unused = ad.grad(lambda x, y: xp_of(x).sum(x * x), argnums=(0, 1), backend=b)(X, Y)
    close(used, 2 * X)
    close(unused, np.zeros(3))


@value
def float_is_numpy(b: ad.Backend) -> None:
    got = ad.grad(lambda x: x * x * x, backend=b)(2.0)
    assert type(got) is np.ndarray and got.dtype == np.float64
    close(got, 12.0)


@value
def numpy_scalar(b: ad.Backend) -> None:
    got = ad.grad(lambda x: x * x * x, backend=b)(np.float32(2.0))
    assert type(got) is np.ndarray and got.dtype == np.float32
    close(got, 12.0)


@value
def engine_arrays_stay(b: ad.Backend) -> None:
    x = own(b, X)
    slope = ad.grad(wave, backend=b)(x)
    assert type(slope) is type(x)
    close(slope, wave_slope(X))


@value
def dtype_float32(b: ad.Backend) -> None:
    _dtype_kept(b, np.float32)


@value
def dtype_float64(b: ad.Backend) -> None:
    _dtype_kept(b, np.float64)


def _dtype_kept(b: ad.Backend, dtype: type[np.floating[Any]]) -> None:
    x, y = X.astype(dtype), Y.astype(dtype)
    out, slope = ad.value_and_grad(wave, backend=b)(x)
    tangent = ad.jvp(pair, (x,), (y,), backend=b)[1]
    dense = [ad.jacobian(pair, mode=mode, backend=b)(x) for mode in ("forward", "reverse")]
    assert {a.dtype for a in (out, slope, tangent, *dense)} == {np.dtype(dtype)}
    wide = x.astype(np.float64)
    close(slope, wave_slope(wide))
    close(tangent, pair_jacobian(wide) @ y)
    close(dense[0], pair_jacobian(wide))
    close(dense[1], pair_jacobian(wide))


@value
def dtype_mixed(b: ad.Backend) -> None:
    x, y = X.astype(np.float32), Y
    by_x, by_y = ad.grad(lambda x, y: xp_of(x).sum(x * y), argnums=(0, 1), backend=b)(x, y)
    assert (by_x.dtype, by_y.dtype) == (np.float32, np.float64)
    close(by_x, Y, 1e-6)
    close(by_y, x.astype(np.float64))


@value
def complex_gradient(b: ad.Backend) -> None:
    got = ad.grad(modulus2, backend=b)(1 + 2j)
    assert got.dtype == np.complex128
    close(got, 2 - 4j)


@value
def complex_gradient_of_vector(b: ad.Backend) -> None:
    z = np.array([1 + 2j, -0.5 + 0.25j])
    close(ad.grad(modulus2, backend=b)(z), 2 * np.conj(z))


@value
def complex_jvp_and_vjp(b: ad.Backend) -> None:
    # z^2 is holomorphic: J t = 2 z t, and a cotangent c pulls back to 2 z c.
    z, t = np.array([1 + 2j]), np.array([0.5 - 1j])
    close(ad.jvp(lambda z: z * z, (z,), (t,), backend=b)[1], 2 * z * t)
    close(ad.vjp(lambda z: z * z, z, backend=b)[1](t)[0], 2 * z * t)
    # conj(z) is not: J t = conj(t), and c pulls back to conj(c).
    conj = lambda z: xp_of(z).conj(z) * 1.0  # noqa: E731
    close(ad.jvp(conj, (z,), (t,), backend=b)[1], np.conj(t))
    close(ad.vjp(conj, z, backend=b)[1](t)[0], np.conj(t))
    # From real to complex: a cotangent c pulls back to Re(c (1 + 2i)).
    close(ad.jvp(lambda x: x * (1 + 2j), (X,), (Y,), backend=b)[1], Y * (1 + 2j))
    c = Y * (0.5 - 1j)
    close(ad.vjp(lambda x: x * (1 + 2j), X, backend=b)[1](c)[0], np.real(c * (1 + 2j)))


@value
def complex_jacobian(b: ad.Backend) -> None:
    z = np.array([1 + 2j, -0.5 + 0.25j])

    def squares(z: Any) -> Any:
        xp = xp_of(z)
        return xp.real(z * xp.conj(z))

    close(ad.jacobian(squares, backend=b)(z), np.diag(2 * np.conj(z)))
    # Real inputs, complex outputs.
    close(ad.jacobian(lambda x: x * (1 + 2j), backend=b)(Y), (1 + 2j) * np.eye(3))


@value
def casts_to_whole_numbers_are_constant(b: ad.Backend) -> None:
    for dtype, constant in (("int64", 6.0), ("bool", 1.0)):
        fun = lambda x, d=dtype: (x + x * x) * xp_of(x).astype(x, getattr(xp_of(x), d))  # noqa: E731
        close(ad.grad(fun, backend=b)(6.5), constant * (1 + 2 * 6.5))
        close(ad.jvp(fun, (6.5,), (2.0,), backend=b)[1], 2 * constant * (1 + 2 * 6.5))
        close(ad.grad(ad.grad(fun, backend=b), backend=b)(6.5), 2 * constant)
        close(ad.jvp(ad.grad(fun, backend=b), (6.5,), (1.0,), backend=b)[1], 2 * constant)


@value
def casts_to_other_precision_keep_derivatives(b: ad.Backend) -> None:
    def fun(x: Any) -> Any:
        xp = xp_of(x)
        wide = xp.astype(x, xp.float64)
        return xp.sum(wide * wide * wide)

    x = X.astype(np.float32)
    with b.scope(["float64"]):  # JAX has no float64 in a call whose arguments are all float32
        close(ad.grad(fun, backend=b)(x), 3 * X**2)
        tangent = ad.jvp(fun, (x,), (x,), backend=b)[1]
        close(tangent, 3 * np.sum(X**3), 1e-6)
        curvature = ad.jvp(ad.grad(fun, backend=b), (x,), (x,), backend=b)[1]
        close(curvature, 6 * X**2)
    assert (tangent.dtype, curvature.dtype) == (np.float64, np.float32)


@value
def casts_to_complex_keep_derivatives(b: ad.Backend) -> None:
    def fun(x: Any) -> Any:  # |(1 + 2i) x + i|^2 = x^2 + (2 x + 1)^2
        xp = xp_of(x)
        z = xp.astype(x, xp.complex128) * (1 + 2j) + 1j
        return xp.sum(xp.real(z * xp.conj(z)))

    close(ad.grad(fun, backend=b)(X), 10 * X + 4)
    close(ad.jvp(fun, (X,), (Y,), backend=b)[1], np.sum((10 * X + 4) * Y))
    close(ad.jvp(ad.grad(fun, backend=b), (X,), (Y,), backend=b)[1], 10 * Y)
    close(ad.grad(lambda x: xp_of(x).sum(ad.grad(fun, backend=b)(x) * x), backend=b)(X), 20 * X + 4)


@value
def zero_dimensional_array(b: ad.Backend) -> None:
    got = ad.grad(wave, backend=b)(np.array(0.5))
    assert type(got) is np.ndarray
    close(got, wave_slope(np.array(0.5)))


@value
def strange_layouts(b: ad.Backend) -> None:
    base = np.linspace(-1.0, 1.0, 12).reshape(3, 4)
    frozen = base.copy()
    frozen.flags.writeable = False
    layouts = {
        "reversed": base[::-1, ::-1],
        "strided": np.linspace(-1.0, 1.0, 24).reshape(3, 8)[:, ::2],
        "transposed": np.linspace(-1.0, 1.0, 12).reshape(4, 3).T,
        "stride-0": np.broadcast_to(base[0], (3, 4)),
        "read-only": frozen,
        "Fortran": np.asfortranarray(base),
        "byte-swapped": base.astype(base.dtype.newbyteorder()),
    }
    for name, x in layouts.items():
        got = ad.grad(wave, backend=b)(x)
        assert got.shape == x.shape and got.dtype == np.float64, name
        close(got, wave_slope(x.astype(np.float64)))
        tangent = ad.jvp(wave, (x,), (x,), backend=b)[1]
        close(tangent, np.sum(wave_slope(x.astype(np.float64)) * x))


@value
def inputs_are_not_changed(b: ad.Backend) -> None:
    x, y, weights = X.copy(), Y.copy(), X.copy()
    close(ad.jvp(lambda x, w: x * w, (x, weights), (y, y), backend=b)[1], 2 * X * Y)
    _, vjp_fn = ad.vjp(lambda x, w: x * w, x, weights, backend=b)
    close(vjp_fn(y)[0], X * Y)
    for array, before in ((x, X), (y, Y), (weights, X)):
        np.testing.assert_array_equal(array, before)


@value
def vjp_fn_is_linear_and_repeatable(b: ad.Backend) -> None:
    _, vjp_fn = ad.vjp(pair, X, backend=b)
    for cotangent in ([1.0, 0.0], [0.0, 1.0], [-2.0, 1e6], [0.0, 0.0], [1.0, 0.0]):
        close(vjp_fn(np.array(cotangent))[0], np.array(cotangent) @ pair_jacobian(X), 1e-9)


@value
def vjp_fn_outlives_its_inputs(b: ad.Backend) -> None:
    x = aligned(3)  # engines may take over aligned memory
    x[:] = X
    _, vjp_fn = ad.vjp(lambda x: x * x * x, x, backend=b)
    x[:] = 100.0
    close(vjp_fn(np.ones(3))[0], 3 * X**2)


def aligned(n: int) -> np.ndarray:
    """A float64 array of n elements that starts at a multiple of 64 bytes."""
    memory = np.zeros(8 * n + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + 8 * n].view(np.float64)


@value
def python_number_seeds(b: ad.Backend) -> None:
    close(ad.jvp(lambda x: x * x, (3.0,), (2,), backend=b)[1], 12.0)
    close(ad.vjp(lambda x: x * x, np.float32(3.0), backend=b)[1](2.0)[0], 12.0)


# Values: derivatives of derivatives.


@value
def grad_of_grad(b: ad.Backend) -> None:
    inner = ad.grad(lambda x: x**4, backend=b)
    close(ad.grad(inner, backend=b)(3.0), 12 * 9.0)


@value
def third_order(b: ad.Backend) -> None:
    third = ad.grad(ad.grad(ad.grad(lambda x: xp_of(x).sin(2 * x), backend=b), backend=b), backend=b)
    close(third(0.3), -8 * np.cos(0.6))


@value
def jvp_of_grad(b: ad.Backend) -> None:
    close(ad.jvp(ad.grad(wave, backend=b), (X,), (Y,), backend=b)[1], wave_curvature(X) * Y)


@value
def grad_of_jvp(b: ad.Backend) -> None:
    def along(x: Any) -> Any:
        return ad.jvp(wave, (x,), (Y if isinstance(x, np.ndarray) else _like(b, Y),), backend=b)[1]

    close(ad.grad(along, backend=b)(X), wave_curvature(X) * Y)


def _like(b: ad.Backend, array: np.ndarray) -> Any:
    return b.from_numpy(array)


@value
def jvp_of_jvp(b: ad.Backend) -> None:
    def along(x: Any) -> Any:
        return ad.jvp(lambda x: x**3, (x,), (1.0,), backend=b)[1]

    close(ad.jvp(along, (2.0,), (1.0,), backend=b)[1], 12.0)


@value
def vjp_of_vjp(b: ad.Backend) -> None:
    def pulled(x: Any) -> Any:
        return ad.vjp(lambda x: x * x * x, x, backend=b)[1](x)[0]  # 3 x^3

    close(ad.vjp(pulled, X, backend=b)[1](Y)[0], 9 * X**2 * Y)


@value
def grad_through_vjp_fn(b: ad.Backend) -> None:
    _, vjp_fn = ad.vjp(lambda x: x * x * x, X, backend=b)

    def energy(c: Any) -> Any:
        return xp_of(c).sum(vjp_fn(c)[0] * c)

    close(ad.grad(energy, backend=b)(Y), 6 * X**2 * Y)


@value
def hessian_is_symmetric(b: ad.Backend) -> None:
    def fun(x: Any) -> Any:  # x0^2 x1 + x1 sin x2
        return x[0] * x[0] * x[1] + x[1] * xp_of(x).sin(x[2])

    x0, x1, x2 = X
    expected = [
        [2 * x1, 2 * x0, 0.0],
        [2 * x0, 0.0, np.cos(x2)],
        [0.0, np.cos(x2), -x1 * np.sin(x2)],
    ]
    for mode in ("auto", "forward", "reverse"):
        hessian = ad.jacobian(ad.grad(fun, backend=b), mode=mode, backend=b)(X)
        close(hessian, expected)
        close(hessian, hessian.T)


@value
def jacobian_of_jacobian(b: ad.Backend) -> None:
    expected = np.zeros((2, 2, 2))
    expected[0, 0, 0], expected[1, 1, 1] = 6 * X[0], 6 * X[1]
    for outer in ("forward", "reverse"):
        for inner in ("forward", "reverse"):
            first = ad.jacobian(lambda x: x * x * x, mode=inner, backend=b)
            close(ad.jacobian(first, mode=outer, backend=b)(X[:2]), expected)


@value
def perturbations_are_not_confused(b: ad.Backend) -> None:
    # d/dx [x d/dy (x + y)] = 1 (Siskind and Pearlmutter, "Perturbation confusion and referential
    # transparency", 2005), in all four mode combinations.
    def forward(f: Any, x: Any) -> Any:
        return ad.jvp(f, (x,), (1.0,), backend=b)[1]

    def reverse(f: Any, x: Any) -> Any:
        return ad.grad(f, backend=b)(x)

    for outer in (forward, reverse):
        for inner in (forward, reverse):
            close(outer(lambda x, d=inner: x * d(lambda y: x + y, 1.0), 1.0), 1.0)
            close(outer(lambda x, d=inner: x * d(lambda y: x * y, 2.0), 3.0), 6.0)


@value
def closure_over_outer_tracer(b: ad.Backend) -> None:
    def outer(w: Any) -> Any:  # d/dx sum(w x^2) at Y is 2 w Y, summed
        return xp_of(w).sum(ad.grad(lambda x: xp_of(x).sum(w * x * x), backend=b)(Y))

    close(ad.grad(outer, backend=b)(np.array(1.5)), np.sum(2 * Y))


@value
def use_backend_inside_an_operator(b: ad.Backend) -> None:
    def outer(w: Any) -> Any:
        with ad.use_backend(b):
            return xp_of(w).sum(ad.grad(lambda x: xp_of(x).sum(w * x * x))(Y))

    close(ad.grad(outer, backend=b)(np.array(1.5)), np.sum(2 * Y))


@value
def value_and_grad_within_grad(b: ad.Backend) -> None:
    def step(x: Any) -> Any:  # one step of gradient descent on x^4: (x - 4 h x^3)^4 + x^4
        before, slope = ad.value_and_grad(lambda x: x**4, backend=b)(x)
        return (x - 0.1 * slope) ** 4 + before

    x = 0.8
    close(ad.grad(step, backend=b)(x), 4 * (x - 0.4 * x**3) ** 3 * (1 - 1.2 * x**2) + 4 * x**3)


@value
def control_flow(b: ad.Backend) -> None:
    def fun(x: Any) -> Any:
        for _ in range(3):
            x = x * x if x[0] > 0 else -x
        return xp_of(x).sum(x)

    close(ad.grad(fun, backend=b)(np.array([1.1, 2.0])), 8 * np.array([1.1, 2.0]) ** 7)


@value
def a_failure_leaves_no_trace(b: ad.Backend) -> None:
    def broken(x: Any) -> Any:
        ad.grad(lambda y: _stop(x * y), backend=b)(1.0)

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            ad.grad(broken, backend=b)(2.0)
        with pytest.raises(ZeroDivisionError):
            ad.jvp(broken, (2.0,), (1.0,), backend=b)
    close(ad.grad(ad.grad(lambda x: x**3, backend=b), backend=b)(2.0), 12.0)
    close(ad.jvp(lambda x: x**3, (2.0,), (1.0,), backend=b)[1], 12.0)


def _stop(_: Any) -> Any:
    raise ZeroDivisionError("in the user's function")


@value
def prepared_is_the_same(b: ad.Backend) -> None:
    for operator, expected in (
        (ad.grad(wave, backend=b), wave_slope),
        (ad.jacobian(pair, mode="forward", backend=b), pair_jacobian),
        (ad.jacobian(pair, mode="reverse", backend=b), pair_jacobian),
    ):
        prepared = ad.prepare(operator, X)
        for x in (X, Y, X[::-1]):
            close(prepared(x), expected(x))
            assert type(prepared(x)) is np.ndarray
    out, slope = ad.prepare(ad.value_and_grad(wave, backend=b), X)(Y)
    close(out, np.sum(Y * np.sin(Y)))
    close(slope, wave_slope(Y))


@value
def prepared_trees(b: ad.Backend) -> None:
    def fun(p: Any, power: int, *, scale: Any) -> Any:
        return xp_of(p["x"]).sum(p["x"] ** power * p["y"]) * scale

    prepared = ad.prepare(ad.grad(fun, backend=b), {"x": X, "y": Y}, 2, scale=3.0)
    got = prepared({"x": Y, "y": X}, 2, scale=3.0)
    close(got["x"], 6 * X * Y)
    close(got["y"], 3 * Y * Y)


# Structure alone.


@structure
def constant_output_is_zero(b: ad.Backend) -> None:
    for fun in (lambda x: 3.0, lambda x: np.float64(3.0), lambda x: np.array(3.0)):
        out, slope = ad.value_and_grad(fun, backend=b)(X)
        close(out, 3.0)
        close(slope, np.zeros(3))
        close(ad.jvp(fun, (X,), (Y,), backend=b)[1], 0.0)
        close(ad.vjp(fun, X, backend=b)[1](1.0)[0], np.zeros(3))
        for mode in ("forward", "reverse"):
            close(ad.jacobian(fun, mode=mode, backend=b)(X), np.zeros(3))


@structure
def empty_arrays(b: ad.Backend) -> None:
    for shape in ((0,), (3, 0), (0, 2)):
        x = np.zeros(shape)
        out, slope = ad.value_and_grad(wave, backend=b)(x)
        close(out, 0.0)
        close(slope, x)
        close(ad.jvp(wave, (x,), (x,), backend=b)[1], 0.0)
        close(ad.vjp(lambda x: x * x, x, backend=b)[1](x)[0], x)
        for mode in ("auto", "forward", "reverse"):
            close(ad.jacobian(lambda x: x * x, mode=mode, backend=b)(x), np.zeros((*shape, *shape)))


@structure
def no_arguments_to_differentiate(b: ad.Backend) -> None:
    assert ad.grad(lambda x: x * x, argnums=(), backend=b)(2.0) == ()
    assert ad.grad(lambda x: np.array(1.0), backend=b)(None) is None
    assert ad.grad(lambda x: np.array(1.0), backend=b)({"a": ()}) == {"a": ()}
    close(ad.jvp(lambda: 1.0, (), (), backend=b)[1], 0.0)
    assert ad.vjp(lambda: 1.0, backend=b)[1](1.0) == ()


@structure
def numpy_out_is_ours_alone(b: ad.Backend) -> None:
    """Writable, of the plain type, and sharing no memory with any input or with each other."""
    x, y, constant = X.copy(), Y.copy(), X.copy()
    results = [
        *ad.jvp(lambda x: (x, x), (x,), (y,), backend=b)[0],
        *ad.jvp(lambda x: (x, x), (x,), (y,), backend=b)[1],
        ad.vjp(lambda x: x, x, backend=b)[0],
        ad.vjp(lambda x: x, x, backend=b)[1](y)[0],
        *ad.value_and_grad(lambda x: xp_of(x).sum(x), backend=b)(x),
        ad.jacobian(lambda x: x, backend=b)(x),
        ad.grad(lambda x: (xp_of(x).sum(x), x), has_aux=True, backend=b)(x)[1],
        ad.grad(lambda x: (xp_of(x).sum(x), constant), has_aux=True, backend=b)(x)[1],
    ]
    for i, array in enumerate(results):
        assert type(array) is np.ndarray and array.flags.writeable
        for other in (x, y, constant, *results[:i]):
            assert not np.shares_memory(array, other)


@structure
def deterministic(b: ad.Backend) -> None:
    first = [ad.grad(wave, backend=b)(X), ad.jacobian(pair, backend=b)(X)]
    for _ in range(3):
        again = [ad.grad(wave, backend=b)(X), ad.jacobian(pair, backend=b)(X)]
        for a, c in zip(first, again, strict=True):
            np.testing.assert_array_equal(a, c)


SECOND_ORDER_MODES = ("forward-over-reverse", "reverse-over-forward", "reverse-over-reverse", "forward-over-forward")


def _coupled(p: Any, q: Any) -> Any:
    """sum_i sin(p_i) q_i^2 + (sum_i p_i) q_0"""
    xp = xp_of(p)
    return xp.sum(xp.sin(p) * q * q) + xp.sum(p) * q[0]


def _coupled_blocks() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    cross = np.diag(2 * Y * np.cos(X))
    cross[:, 0] += 1
    return (np.diag(-np.sin(X) * Y**2), cross), (cross.T, np.diag(2 * np.sin(X)))


@value
def hessian_in_every_mode(b: ad.Backend) -> None:
    for mode in SECOND_ORDER_MODES:
        close(ad.hessian(lambda x: xp_of(x).sum(x**3), mode=mode, backend=b)(X), np.diag(6 * X))
        blocks = ad.hessian(_coupled, argnums=(0, 1), mode=mode, backend=b)(X, Y)
        for row, expected_row in zip(blocks, _coupled_blocks(), strict=True):
            for block, expected in zip(row, expected_row, strict=True):
                close(block, expected)


@structure
def hessian_of_linear_functions_is_zero(b: ad.Backend) -> None:
    for mode in SECOND_ORDER_MODES:
        hessian = ad.hessian(lambda x: xp_of(x).sum(2 * x), mode=mode, backend=b)(X)
        close(hessian, np.zeros((3, 3)))
        hessian[0, 0] = 1.0
        close(ad.hvp(lambda x: xp_of(x).sum(2 * x), (X,), (Y,), mode=mode, backend=b)[0], np.zeros(3))


@structure
def second_derivatives_need_a_scalar_output(b: ad.Backend) -> None:
    for mode in SECOND_ORDER_MODES:
        for fun in (lambda x: x * x * x, lambda x: [xp_of(x).sum(x)], lambda x: x[:1]):
            with pytest.raises(ad.NotDifferentiable, match="hessian needs a function with one scalar output"):
                ad.hessian(fun, mode=mode, backend=b)(X)
            with pytest.raises(ad.NotDifferentiable, match="hvp needs a function with one scalar output"):
                ad.hvp(fun, (X,), (Y,), mode=mode, backend=b)


@value
def hessian_vector_product_in_every_mode(b: ad.Backend) -> None:
    v, w = np.array([1.0, -2.0, 0.5]), np.array([0.3, 1.0, -1.0])
    (pp, pq), (qp, qq) = _coupled_blocks()
    for mode in SECOND_ORDER_MODES:
        for_p, for_q = ad.hvp(_coupled, (X, Y), (v, w), mode=mode, backend=b)
        close(for_p, pp @ v + pq @ w)
        close(for_q, qp @ v + qq @ w)


@value
def hvp_takes_trees_and_float32(b: ad.Backend) -> None:
    x = {"a": X.astype(np.float32)}
    (product,) = ad.hvp(lambda t: xp_of(t["a"]).sum(t["a"] ** 3), (x,), (x,), backend=b)
    close(product["a"], 6 * X**2)
    assert product["a"].dtype == np.float32


@value
def python_numbers_do_not_widen(b: ad.Backend) -> None:
    x = X.astype(np.float32)
    out, tangent = ad.jvp(lambda x: 0.5 + 2.0 * xp_of(x).sum(x * x), (x,), (x,), backend=b)
    close(tangent, 4 * np.sum(X**2))
    assert out.dtype == tangent.dtype == np.float32
    assert ad.jacobian(lambda x: 0.5 + 2.0 * xp_of(x).sum(x * x), mode="forward", backend=b)(x).dtype == np.float32


@value
def linearize_maps_tangents_any_number_of_times(b: ad.Backend) -> None:
    out, jvp_fn = ad.linearize(lambda x, y: {"xy": x * y, "s": xp_of(x).sum(xp_of(x).sin(x))}, X, Y, backend=b)
    close(out["xy"], X * Y)
    for t, u in ((X, Y), (np.zeros(3), np.ones(3)), (-Y, X)):
        tangent = jvp_fn(t, u)
        close(tangent["xy"], t * Y + X * u)
        close(tangent["s"], np.sum(np.cos(X) * t))


@structure
def linearize_keeps_its_point(b: ad.Backend) -> None:
    x = X.copy()
    out, jvp_fn = ad.linearize(lambda x: x * x, x, backend=b)
    before = jvp_fn(Y)
    x[:] = 100.0
    np.testing.assert_array_equal(jvp_fn(Y), before)
    assert isinstance(out, np.ndarray) and out.flags.writeable
    with pytest.raises(ad.SignatureMismatch, match="expected"):
        jvp_fn(Y[:2])


@structure
def function_sees_what_it_was_given(b: ad.Backend) -> None:
    marker = object()

    def fun(x: Any, flag: bool, name: str, items: Any, thing: object, n: int) -> Any:
        assert flag is True and name == "name" and items == ["a", None] and thing is marker and n == 3
        return xp_of(x).sum(x)

    close(ad.vjp(fun_of(fun, marker), X, backend=b)[0], np.sum(X))
    assert ad.grad(fun, backend=b)(X, True, "name", ["a", None], marker, 3).shape == (3,)


def fun_of(fun: Any, marker: object) -> Any:
    return lambda x: fun(x, True, "name", ["a", None], marker, 3)


@structure
def arrays_that_engines_lack_pass_through(b: ad.Backend) -> None:
    words = np.array(["a", "b"])

    def fun(x: Any, words: Any) -> Any:
        assert isinstance(words, np.ndarray) and words.tolist() == ["a", "b"]
        return xp_of(x).sum(x)

    assert ad.grad(fun, backend=b)(X, words).shape == (3,)
    assert ad.grad(fun, backend=b)(X, words.astype(object)).shape == (3,)


@structure
def writing_to_an_input_does_not_reach_the_caller(b: ad.Backend) -> None:
    def fun(x: Any, y: Any) -> Any:
        y[0] = 100.0
        return xp_of(x).sum(x * y)

    y = Y.copy()
    try:
        ad.grad(fun, backend=b)(X, y)
    except (ValueError, TypeError, RuntimeError) as exc:  # the engine's own refusal
        assert any(word in str(exc) for word in ("read-only", "immutable", "in-place"))
    np.testing.assert_array_equal(y, Y)


@structure
def prepared_refuses_another_signature(b: ad.Backend) -> None:
    prepared = ad.prepare(ad.grad(lambda x, n: xp_of(x).sum(x**n), backend=b), X, 2)
    other: list[tuple[Any, ...]] = [
        (X[:2], 2),
        (X.astype(np.float32), 2),
        ({"x": X}, 2),
        (X, 3),
        (X, 2.0),
        (X, np.array(2)),
        (X,),
    ]
    for args in other:
        with pytest.raises(ad.SignatureMismatch, match=r"prepare|expected"):
            prepared(*args)
