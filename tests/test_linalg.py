"""Linear algebra, Fourier transforms and einsum on the reference engine.

Functions are written in plain NumPy: on arrays they are NumPy's (LAPACK's, pocketfft's), so that differences of
them know nothing of our rules; on tracers they are ours.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import adbridge as ad
from adbridge.backends.reference import namespace as xp
from adbridge.backends.reference import transforms
from adbridge.backends.reference.primitives import PRIMITIVES, Primitive
from adbridge.backends.reference.program import evaluate
from adbridge.backends.reference.rules import decompositions, elementwise, fourier, linalg, reductions, shaping
from adbridge.backends.reference.rules.linalg import cofactor

B = "reference"
Fun = Callable[[Any], Any]


def jvp(fun: Fun, x: Any, t: Any) -> Any:
    return ad.jvp(fun, (x,), (t,), backend=B)


def pull(fun: Fun, x: Any, cotangent: Any) -> Any:
    return ad.vjp(fun, x, backend=B)[1](cotangent)[0]


def random(shape: tuple[int, ...], seed: int = 0, dtype: Any = np.float64) -> np.ndarray:
    rng = np.random.default_rng([seed, *shape])
    real = rng.uniform(-1.0, 1.0, shape)
    return (real + 1j * rng.uniform(-1.0, 1.0, shape) if np.dtype(dtype).kind == "c" else real).astype(dtype)


def general(shape: tuple[int, ...], seed: int = 0, dtype: Any = np.float64) -> np.ndarray:
    """Well away from singular."""
    return random(shape, seed, dtype) + 2 * np.eye(*shape[-2:], dtype=dtype) * np.arange(1, shape[-1] + 1)


def adjoint(x: Any) -> Any:
    return np.conj(np.swapaxes(x, -1, -2)) if isinstance(x, np.ndarray) else xp.conj(xp.matrix_transpose(x))


def pairing(a: Any, b: Any) -> float:
    """Re sum(a b), the pairing in which cotangents live."""
    return float(np.real(np.sum(np.asarray(a) * np.asarray(b))))


def differences(fun: Fun, x: np.ndarray, t: np.ndarray) -> Any:
    """Central differences at h, h/2, h/4, extrapolated to h^6 (L. F. Richardson)."""
    h = 4e-3 / max(1.0, float(np.max(np.abs(t), initial=0.0)))
    central = [(np.asarray(fun(x + s * t)) - np.asarray(fun(x - s * t))) / (2 * s) for s in (h, h / 2, h / 4)]
    coarse, fine = ((4 * b - a) / 3 for a, b in itertools.pairwise(central))
    return (16 * fine - coarse) / 15


# Of differences: h^6 is 4e-15 times a derivative of the 7th order, which for an inverse grows like 7! / d^8 at
# distance d from singular; and the rounding of the value, 1e-16 times its size, is divided by 1e-3.
CLOSE = 1e-9


def agree(got: Any, expected: Any, tolerance: float) -> None:
    """To `tolerance` of the largest entry."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    scale = max(1.0, float(np.max(np.abs(expected), initial=0.0)))
    np.testing.assert_allclose(got / scale, expected / scale, rtol=0, atol=tolerance)


def check_adjoint(fun: Fun, x: np.ndarray, tolerance: float = 1e-13) -> None:
    """<w, J v> = <J^T w, v>; both sides are sums of products that rounding leaves at 1e-15 of their size."""
    t = random(x.shape, 1, x.dtype)
    out, pushed = jvp(fun, x, t)
    w = random(out.shape, 2, out.dtype)
    pulled = pull(fun, x, w)
    assert pulled.shape == x.shape and pulled.dtype == x.dtype and pushed.dtype == out.dtype
    scale = max(1.0, pairing(np.abs(pulled), np.abs(t)), pairing(np.abs(w), np.abs(pushed)))
    assert abs(pairing(w, pushed) - pairing(pulled, t)) <= tolerance * scale


def check(fun: Fun, x: np.ndarray, tolerance: float = CLOSE) -> None:
    """Value, forward, reverse; then the same of the gradient, and the symmetry of the second derivative."""
    t, u = random(x.shape, 1, x.dtype), random(x.shape, 2, x.dtype)
    out, pushed = jvp(fun, x, t)
    agree(out, fun(x), 1e-13)
    agree(pushed, differences(fun, x, t), tolerance)
    check_adjoint(fun, x)
    w = random(out.shape, 3, out.dtype)

    def gradient(x: Any) -> Any:
        return pull(fun, x, w)

    along_t, along_u = (jvp(gradient, x, direction)[1] for direction in (t, u))
    agree(along_t, differences(gradient, x, t), tolerance)
    left, right = pairing(along_t, u), pairing(along_u, t)
    assert abs(left - right) <= 1e-10 * max(1.0, pairing(np.abs(along_t), np.abs(u)))
    # Reverse over forward, and the adjoint identity of the gradient itself.
    again = pull(lambda x: jvp(fun, x, t)[1], x, w)
    agree(again, along_t, 1e-10)
    check_adjoint(gradient, x, 1e-10)


def hermitian(x: Any) -> Any:
    return (x + adjoint(x)) / 2


def positive(x: Any) -> Any:
    return x @ adjoint(x) + np.eye(x.shape[-1])


def magnitude(x: Any) -> Any:
    """|x|^2, which knows no phase."""
    return xp.real(x * xp.conj(x)) if not isinstance(x, np.ndarray) else np.real(x * np.conj(x))


LA = np.linalg

# Name -> function of square matrices [..., 3, 3], real and complex.
SQUARE: dict[str, Fun] = {
    "inv": LA.inv,
    "det": LA.det,
    "slogdet": lambda x: LA.slogdet(x).logabsdet,
    "slogdet sign": lambda x: LA.slogdet(x).sign * LA.det(x),
    "solve": lambda x: LA.solve(x, x @ x),
    "solve vector": lambda x: LA.solve(x, np.arange(1.0, 4.0)),
    "solve stack": lambda x: LA.solve(x[..., None, :, :], np.ones((2, 3, 1)) * x[..., None, :, :1]),
    "cholesky": lambda x: LA.cholesky(positive(x)),
    "cholesky upper": lambda x: LA.cholesky(positive(x), upper=True),
    "qr Q": lambda x: LA.qr(x).Q,
    "qr R": lambda x: LA.qr(x).R,
    "qr complete": lambda x: LA.qr(x, mode="complete").Q,
    "qr r": lambda x: LA.qr(x, mode="r"),
    "eigvalsh": lambda x: LA.eigvalsh(hermitian(x)),
    "eigvalsh upper": lambda x: LA.eigvalsh(hermitian(x), UPLO="U"),
    "eigh": lambda x: LA.eigh(hermitian(x)).eigenvalues,
    "eigh projectors": lambda x: magnitude(LA.eigh(hermitian(x)).eigenvectors),
    "svd": lambda x: LA.svd(x).S,
    "svd U": lambda x: magnitude(LA.svd(x).U),
    "svd Vh": lambda x: magnitude(LA.svd(x, full_matrices=False).Vh),
    "svd polar": lambda x: LA.svd(x).U @ LA.svd(x).Vh,
    "svdvals": LA.svdvals,
    "svd without vectors": lambda x: LA.svd(x, compute_uv=False),
    "pinv": LA.pinv,
    "matrix_power 3": lambda x: LA.matrix_power(x, 3),
    "matrix_power 6": lambda x: LA.matrix_power(x / 4, 6),
    "matrix_power -3": lambda x: LA.matrix_power(x, -3),
    "matrix_power 0": lambda x: LA.matrix_power(x, 0),
    "multi_dot": lambda x: LA.multi_dot([x.reshape((-1, 3)), np.ones((3, 2)), np.ones((2, 4))]),
    "multi_dot vectors": lambda x: LA.multi_dot([x.reshape((-1, 3))[0], x.reshape((-1, 3))[:3], np.arange(3.0)]),
    "multi_dot of two": lambda x: LA.multi_dot([x.reshape((-1, 3)), x.reshape((-1, 3)).T]),
    "matrix_transpose": lambda x: LA.matrix_transpose(x),
    "trace": np.trace,
    "trace of the last": lambda x: LA.trace(x, offset=1),
    "diagonal": lambda x: np.diagonal(x, offset=-1),
    "diagonal of the last": lambda x: LA.diagonal(x),
    "diagonal of others": lambda x: np.diagonal(x, 1, -1, 0),
    "cross": lambda x: np.cross(x, x[..., ::-1]),
    "cross axis": lambda x: LA.cross(x, np.arange(9.0).reshape(3, 3), axis=-2),
    "outer": lambda x: np.outer(x, x[0]),
    "vecdot": lambda x: LA.vecdot(x, x * x, axis=-1),
    "tensordot": lambda x: LA.tensordot(x, x, axes=((-1,), (-2,))),
    "matmul": lambda x: LA.matmul(x, x),
    "inner": lambda x: np.inner(x, x),
    "vdot": lambda x: np.vdot(x, x * x),
    "kron": lambda x: np.kron(x, x[0]),
    "norm": LA.norm,
    "norm axis": lambda x: LA.norm(x, axis=-1, keepdims=True),
    "norm fro": lambda x: LA.norm(x, "fro", axis=(-1, 0), keepdims=True),
    **{
        f"matrix_norm {ord}": lambda x, ord=ord: LA.matrix_norm(x, ord=ord, keepdims=ord == 2)
        for ord in ("fro", "nuc", 2, -2, 1, -1, math.inf, -math.inf)
    },
    **{
        f"vector_norm {ord}": lambda x, ord=ord: LA.vector_norm(x, ord=ord, axis=-1)
        for ord in (0, 1, 2, 3, 2.5, 0.5, -1, -2, math.inf, -math.inf)
    },
    "vector_norm over all": lambda x: LA.vector_norm(x, ord=3),
    "vector_norm axes": lambda x: LA.vector_norm(x, axis=(-1, -2), keepdims=True),
}


@pytest.mark.parametrize("batch", [(), (2,)], ids=["one", "stack"])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("name", SQUARE)
def test_function_of_square_matrices(name: str, dtype: Any, batch: tuple[int, ...]) -> None:
    check(SQUARE[name], general((*batch, 3, 3), 5, dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
@pytest.mark.parametrize("name", SQUARE)
def test_single_precision_stays(name: str, dtype: Any) -> None:
    """dtype, and values to 1e-4: some hundred units of 1e-7 in a few products of conditioned matrices."""
    fun, wide = SQUARE[name], general((3, 3), 5, np.result_type(dtype, np.float64))
    if name in ("solve vector", "multi_dot", "cross axis", "solve stack") or name.startswith("cholesky"):
        pytest.skip("the function itself holds doubles")
    x, t = wide.astype(dtype), random((3, 3), 1, dtype)
    out, pushed = jvp(fun, x, t)
    assert out.dtype == pushed.dtype == fun(x).dtype and pull(fun, x, out).dtype == dtype
    agree(pushed, jvp(fun, x.astype(wide.dtype), t.astype(wide.dtype))[1], 1e-4)


@pytest.mark.parametrize("name", SQUARE)
def test_one_by_one(name: str) -> None:
    if name.startswith(("cross", "multi_dot", "solve vector", "solve stack")):
        pytest.skip("its shapes are fixed")
    if name in ("slogdet sign",):
        return
    check(SQUARE[name], np.array([[1.5]]))


@pytest.mark.parametrize("shape", [(0, 3, 3), (2, 0, 0)], ids=str)
@pytest.mark.parametrize(
    "name",
    ["inv", "det", "slogdet", "solve", "cholesky", "qr R", "eigvalsh", "svdvals", "pinv", "matrix_power 3"],
)
def test_nothing(name: str, shape: tuple[int, ...]) -> None:
    """No matrices, and matrices without elements."""
    x = np.zeros(shape)
    out, pushed = jvp(SQUARE[name], x, x)
    assert out.shape == pushed.shape == SQUARE[name](x).shape
    assert pull(SQUARE[name], x, out).shape == shape


TALL: dict[str, Fun] = {
    "qr Q": lambda x: LA.qr(x).Q,
    "qr R": lambda x: LA.qr(x).R,
    "svd U": lambda x: magnitude(LA.svd(x, full_matrices=False).U),
    "svd S": lambda x: LA.svd(x, full_matrices=False).S,
    "svd Vh": lambda x: magnitude(LA.svd(x, full_matrices=False).Vh),
    "svd polar": lambda x: LA.svd(x, full_matrices=False).U @ LA.svd(x, full_matrices=False).Vh,
    "pinv": LA.pinv,
    "matrix_norm nuc": lambda x: LA.matrix_norm(x, ord="nuc"),
    "matrix_norm 2": lambda x: LA.matrix_norm(x, ord=2),
    "matrix_norm inf": lambda x: LA.matrix_norm(x, ord=math.inf),
    "trace": lambda x: LA.trace(x),
    "diagonal": lambda x: LA.diagonal(x, offset=-1),
}


@pytest.mark.parametrize("shape", [(4, 2), (2, 4), (2, 4, 3)], ids=str)
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("name", TALL)
def test_function_of_other_matrices(name: str, dtype: Any, shape: tuple[int, ...]) -> None:
    check(TALL[name], general(shape, 7, dtype))


# Closed forms.


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_closed_forms(dtype: Any) -> None:
    a, t = general((4, 4), 1, dtype), random((4, 4), 2, dtype)
    inverse = LA.inv(a)
    agree(jvp(LA.inv, a, t)[1], -inverse @ t @ inverse, 1e-14)
    agree(jvp(lambda a: LA.slogdet(a).logabsdet, a, t)[1], np.real(np.trace(inverse @ t)), 1e-14)
    agree(jvp(LA.det, a, t)[1], LA.det(a) * np.trace(inverse @ t), 1e-13)
    gradient = ad.grad(lambda a: xp.real(LA.det(a)), backend=B)(a)
    agree(gradient, LA.det(a) * inverse.T, 1e-13)
    agree(pull(lambda a: np.trace(LA.matrix_power(a, 5)), a, np.ones((), dtype)), 5 * LA.matrix_power(a, 4).T, 1e-13)
    agree(ad.grad(lambda a: LA.norm(a), backend=B)(a), np.conj(a) / LA.norm(a), 1e-14)
    u, _, vh = LA.svd(a)
    agree(ad.grad(lambda a: LA.norm(a, "nuc"), backend=B)(a), np.conj(u @ vh), 1e-13)
    agree(ad.grad(lambda a: LA.norm(a, 2), backend=B)(a), np.conj(np.outer(u[:, 0], vh[0])), 1e-13)
    v = LA.eigh(hermitian(a)).eigenvectors
    # Each eigenvalue's gradient is conj(v v^H).
    rows = [np.conj(np.outer(v[:, i], np.conj(v[:, i]))) for i in range(4)]
    got = [ad.grad(lambda a, i=i: LA.eigvalsh(hermitian(a))[i], backend=B)(a) for i in range(4)]
    agree(got, rows, 1e-13)


def test_cotangents_of_hermitian_functions_are_hermitian() -> None:
    a = positive(random((3, 3), 1))
    for fun in (LA.cholesky, LA.eigvalsh, lambda a: LA.eigh(a).eigenvectors):
        pulled = pull(fun, a, random(fun(a).shape, 2))
        np.testing.assert_allclose(pulled, pulled.T, atol=1e-14)


# Singular and repeated.


def rank(n: int, r: int, dtype: Any = np.float64) -> np.ndarray:
    return random((n, r), 3, dtype) @ random((r, n), 4, dtype)


def minors(a: np.ndarray) -> np.ndarray:
    """The cofactor matrix, from determinants of parts."""
    n = len(a)

    def part(i: int, j: int) -> np.ndarray:
        return np.delete(np.delete(a, i, 0), j, 1)

    return np.array([[(-1) ** (i + j) * LA.det(part(i, j)) for j in range(n)] for i in range(n)])


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("r", [0, 1, 2, 3, 4])
def test_determinants_of_any_rank(r: int, dtype: Any) -> None:
    """A polynomial of degree 4: differences of its minors are exact but for rounding, 1e-16 / 1e-3 of a size of 100."""
    a = rank(4, r, dtype) if r < 4 else general((4, 4), 3, dtype)
    agree(pull(LA.det, a, np.ones((), dtype)), minors(a), 1e-13)
    t, u = random((4, 4), 5, dtype), random((4, 4), 6, dtype)

    def first(a: Any) -> Any:
        return jvp(LA.det, a, t)[1]

    def second(a: Any) -> Any:
        return jvp(first, a, u)[1]

    agree(second(a), differences(lambda a: np.sum(t * minors(a)), a, u), 1e-10)
    agree(jvp(second, a, t)[1], differences(second, a, t), 1e-10)
    check_adjoint(second, a)


def test_fourth_derivative_of_a_determinant() -> None:
    """At 0, of t -> det(t E): 4! det E."""
    e = random((4, 4), 1)
    derivative: Any = lambda t: LA.det(t * e)  # noqa: E731
    for _ in range(4):
        derivative = ad.grad(derivative, backend=B)
    agree(derivative(0.0), 24 * LA.det(e), 1e-13)


def test_determinant_of_an_ill_conditioned_matrix() -> None:
    """The Hilbert matrix of order 8: condition 1.5e10. The cofactors lose no more than the matrix itself does."""
    n = 8
    i = np.arange(n)
    a = 1.0 / (i[:, None] + i + 1)
    # R. Choi, "Tricks or treats with the Hilbert matrix", 1983: the inverse has whole numbers.
    c = math.comb
    inverse = [
        [(-1) ** (i + j) * (i + j + 1) * c(n + i, n - j - 1) * c(n + j, n - i - 1) * c(i + j, i) ** 2 for j in range(n)]
        for i in range(n)
    ]
    exact = 1 / math.prod(c(2 * k, k) * math.prod([2 * k + 1]) * c(2 * k, k) for k in range(n))
    got = ad.grad(LA.det, backend=B)(a)
    scaled = np.array(inverse, float) * exact
    # Relative to the largest, by the condition of the second smallest singular value (1e-16 * 1e8).
    assert np.max(np.abs(got - scaled)) <= 1e-6 * np.max(np.abs(scaled))


def test_cofactors_of_a_row_of_their_own() -> None:
    a, e = random((3, 3), 1), random((3, 3), 2)
    agree(cofactor(0)(a), minors(a), 1e-14)
    agree(cofactor(1)(a, e), differences(minors, a, e), 1e-11)
    check_adjoint(lambda e: cofactor(1)(a, e), e)
    check_adjoint(lambda e: cofactor(2)(a, e, e), e)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_repeated_eigenvalues(dtype: Any) -> None:
    """2, 2, 2, 5 turned at random: first derivatives of traces of functions of the matrix are right."""
    v = LA.qr(random((4, 4), 8, dtype)).Q
    for a in (v @ np.diag([2.0, 2.0, 2.0, 5.0]) @ adjoint(v), 2 * np.eye(4, dtype=dtype)):
        a = hermitian(a)
        t = hermitian(random((4, 4), 9, dtype))
        gradient = ad.grad(lambda a: xp.sum(LA.eigvalsh(a) ** 3), backend=B)  # of trace a^3
        agree(gradient(a), 3 * (a @ a).T, 1e-12)
        # The convention: along t the gradient lacks what mixes equal eigenvalues, f'' t between them, and only that.
        w, v_ = LA.eigh(a)
        equal = (np.abs(w[:, None] - w) < 1e-12) & ~np.eye(4, dtype=bool)
        lacking = v_ @ (equal * (adjoint(v_) @ (6 * w[0] * t) @ v_)) @ adjoint(v_)
        agree(jvp(gradient, a, t)[1], (3 * (a @ t + t @ a) - lacking).T, 1e-11)
        # log a, by way of its eigenvectors: d tr(log a) = tr(a^{-1} da).
        logdet = lambda a: xp.sum(xp.log(LA.eigh(a).eigenvalues))  # noqa: E731
        agree(jvp(logdet, a, t)[1], np.real(np.trace(LA.inv(a) @ t)), 1e-13)


def test_sum_of_a_repeated_pair_only() -> None:
    """The two copies of 1 together: gradient is the projector on their plane, turning with it."""
    v = LA.qr(random((3, 3), 1)).Q
    a = hermitian(v @ np.diag([1.0, 1.0, 4.0]) @ v.T)
    pair = lambda a: xp.sum(LA.eigvalsh(a)[:2])  # noqa: E731
    agree(ad.grad(pair, backend=B)(a), v[:, :2] @ v[:, :2].T, 1e-14)
    t = hermitian(random((3, 3), 2))
    plane, third = v[:, :2], v[:, 2]
    # Second order: 2 sum |v_i^T t v_3|^2 / (1 - 4) over the pair.
    expected = 2 * np.sum((plane.T @ t @ third) ** 2) / (1 - 4)
    agree(pairing(jvp(ad.grad(pair, backend=B), a, t)[1], t), expected, 1e-13)


def test_vectors_of_repeated_values_stand_still() -> None:
    for fun in (lambda a: LA.eigh(a).eigenvectors, lambda a: LA.svd(a).U):
        t = hermitian(random((3, 3), 2))
        np.testing.assert_array_equal(jvp(fun, np.eye(3), t)[1], 0.0)


def test_repeated_singular_values() -> None:
    """The nuclear norm at a scaled orthogonal matrix: gradient U V^T, to second order by the polar factor."""
    q = 3 * LA.qr(random((4, 4), 1)).Q
    t = random((4, 4), 2)
    gradient = ad.grad(lambda a: LA.norm(a, "nuc"), backend=B)
    agree(gradient(q), q / 3, 1e-14)
    # At A = s Q, d(polar factor) = Q (Q^T dA - dA^T Q) / (2 s).
    w = q / 3
    expected = w @ (w.T @ t - t.T @ w) / 6
    agree(jvp(gradient, q, t)[1], expected, 1e-13)
    agree(jvp(lambda a: LA.svd(a).U @ LA.svd(a).Vh, q, t)[1], expected, 1e-13)


def test_singular_values_that_are_zero() -> None:
    """0 in the place of a kink: the nuclear norm's gradient is the part of rank 2."""
    a = rank(4, 2)
    u, _, vh = LA.svd(a)
    agree(ad.grad(lambda a: LA.norm(a, "nuc"), backend=B)(a), u[:, :2] @ vh[:2], 1e-13)
    np.testing.assert_array_equal(ad.grad(lambda a: LA.norm(a, "nuc"), backend=B)(np.zeros((2, 3))), 0.0)
    np.testing.assert_array_equal(ad.grad(lambda a: LA.norm(a, -2), backend=B)(rank(4, 3)), 0.0)


@pytest.mark.parametrize("ord", [1, 2, 3, 2.5, 1.5, 0.5, math.inf])
def test_norm_of_the_zero_vector(ord: float) -> None:
    for dtype in (np.float64, np.float32, np.complex128):
        x = np.zeros(3, dtype)
        got = ad.grad(lambda x: LA.norm(x, ord), backend=B)(x)
        np.testing.assert_array_equal(got, 0.0)
        assert got.dtype == dtype
    hessian = ad.hessian(lambda x: LA.norm(x, ord), backend=B)(np.zeros(2))
    np.testing.assert_array_equal(hessian, 0.0)


def test_norm_beside_zeros() -> None:
    """An entry at its kink has derivative 0, the others theirs."""
    x = np.array([3.0, 0.0, -4.0])
    for ord, expected in ((2, [0.6, 0, -0.8]), (1, [1, 0, -1]), (3, [9, 0, -16])):
        scale = 91 ** (2 / 3) if ord == 3 else 1.0
        agree(ad.grad(lambda x, ord=ord: LA.norm(x, ord), backend=B)(x), np.array(expected) / scale, 1e-15)
    matrix = np.array([[0.0, 0.0], [3.0, 4.0]])
    got = ad.grad(lambda x: xp.sum(LA.norm(x, axis=1)), backend=B)(matrix)
    agree(got, np.array([[0.0, 0.0], [0.6, 0.8]]), 1e-15)


def test_ties_of_norms_share() -> None:
    agree(ad.grad(lambda x: LA.norm(x, math.inf), backend=B)(np.array([2.0, -2.0, 1.0])), [0.5, -0.5, 0], 0)
    agree(ad.grad(lambda x: LA.norm(x, 1), backend=B)(np.eye(2)), np.eye(2) / 2, 0)
    # Both singular values of the unit matrix are its 2-norm.
    agree(ad.grad(lambda x: LA.norm(x, 2), backend=B)(np.eye(2)), np.eye(2) / 2, 1e-15)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5)], ids=str)
def test_pinv_of_constant_rank(shape: tuple[int, int], dtype: Any) -> None:
    """Along G(s) H(s), of rank 2: the pseudo-inverse is smooth there, and differences see it."""
    g, h = random((shape[0], 2), 1, dtype), random((2, shape[1]), 2, dtype)
    dg, dh = random(g.shape, 3, dtype), random(h.shape, 4, dtype)
    along = lambda s: (g + s * dg) @ (h + s * dh)  # noqa: E731
    fun = lambda s: LA.pinv(along(s), rtol=1e-10)  # noqa: E731
    _, pushed = jvp(fun, np.zeros(()), np.ones(()))
    # The pseudo-inverse of G H is H^+ G^+ when both have full rank: no cut is needed there.
    smooth = lambda s: LA.pinv(h + s * dh) @ LA.pinv(g + s * dg)  # noqa: E731
    agree(pushed, differences(smooth, np.zeros(()), np.ones(())), 1e-8)
    check_adjoint(lambda a: LA.pinv(a, rtol=1e-10), g @ h, 1e-10)
    second = jvp(lambda s: jvp(fun, s, np.ones(()))[1], np.zeros(()), np.ones(()))[1]
    agree(second, differences(lambda s: jvp(smooth, s, np.ones(()))[1], np.zeros(()), np.ones(())), 1e-8)


def test_default_cuts_of_pinv() -> None:
    """The standard's in our namespace, NumPy's under NumPy's name."""
    a = np.diag([1.0, 3e-16, 1e-17])
    for ours, numpys in ((xp.linalg.pinv, lambda a: LA.pinv(a, rtol=None)), (LA.pinv, LA.pinv)):
        agree(jvp(ours, a, a)[0], numpys(a), 0)
    agree(jvp(lambda x: LA.pinv(x, 0.5), a, a)[0], LA.pinv(a, 0.5), 0)


def test_matrix_rank_is_constant() -> None:
    fun = lambda x: xp.linalg.matrix_rank(x) * x[0, 0] + LA.matrix_rank(x)  # noqa: E731
    agree(ad.grad(fun, backend=B)(rank(3, 2)), np.diag([2.0, 0, 0]), 0)


# Two arguments.


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize(
    "shapes",
    [((3, 3), (3,)), ((3, 3), (3, 2)), ((2, 3, 3), (3, 2)), ((3, 3), (2, 3, 1)), ((2, 1, 3, 3), (4, 3, 2))],
    ids=str,
)
def test_solve(shapes: Any, dtype: Any) -> None:
    a, b = general(shapes[0], 1, dtype), random(shapes[1], 2, dtype)
    check(lambda a: LA.solve(a, b), a)
    check(lambda b: LA.solve(a, b), b)
    check(lambda s: LA.solve(a * s, b / s), np.array(1.2, dtype))
    check(lambda s: LA.solve(a * s, b.tolist()), np.array(1.2, dtype))


@pytest.mark.parametrize("shapes", [((3,), (4, 3)), ((4, 1, 3), (2, 3))], ids=str)
def test_cross_broadcasts(shapes: Any) -> None:
    a, b = random(shapes[0], 1), random(shapes[1], 2)
    check(lambda a: LA.cross(a, b), a)
    check(lambda b: np.cross(a, b), b)


# The array API's namespace is NumPy's, name by name and value by value.

STANDARD: dict[str, Callable[[Any, Any], Any]] = {
    "matmul": lambda la, x: la.matmul(x, x),
    "tensordot": lambda la, x: la.tensordot(x, x, axes=1),
    "vecdot": lambda la, x: la.vecdot(x, x, axis=0),
    "outer": lambda la, x: la.outer(x[0], x[1]),
    "cross": lambda la, x: la.cross(x, x[0], axis=-1),
    "trace": lambda la, x: la.trace(x, offset=1),
    "diagonal": lambda la, x: la.diagonal(x, offset=-1),
    "vector_norm": lambda la, x: la.vector_norm(x, axis=0, keepdims=True, ord=1),
    "matrix_norm": lambda la, x: la.matrix_norm(x, keepdims=True, ord="nuc"),
    "det": lambda la, x: la.det(x),
    "slogdet": lambda la, x: la.slogdet(x),
    "inv": lambda la, x: la.inv(x),
    "solve": lambda la, x: la.solve(x, x[0]),
    "cholesky": lambda la, x: la.cholesky(x @ x.T, upper=True),
    "qr": lambda la, x: la.qr(x, mode="complete"),
    "eigh": lambda la, x: la.eigh(x + x.T),
    "eigvalsh": lambda la, x: la.eigvalsh(x + x.T),
    "svd": lambda la, x: la.svd(x, full_matrices=True),
    "svdvals": lambda la, x: la.svdvals(x),
    "pinv": lambda la, x: la.pinv(x, rtol=0.01),
    "matrix_power": lambda la, x: la.matrix_power(x, -2),
    "matrix_rank": lambda la, x: la.matrix_rank(x, rtol=0.1),
    "matrix_transpose": lambda la, x: la.matrix_transpose(x),
}


@pytest.mark.parametrize("name", STANDARD)
def test_namespace_is_the_standards(name: str) -> None:
    x, fun = general((3, 3), 1), STANDARD[name]
    expected = fun(np.linalg, x)
    _, got = ad.grad(lambda x: (0.0, fun(ad.array_namespace(x).linalg, x)), has_aux=True, backend=B)(x)
    plain = fun(xp.linalg, x)
    if isinstance(expected, tuple):
        assert type(plain)._fields == type(expected)._fields
    else:
        expected, got, plain = (expected,), (got,), (plain,)
    for a, b, c in zip(expected, got, plain, strict=True):
        agree(b, a, 1e-14)
        agree(c, a, 1e-14)


# Fourier transforms.

FFT = np.fft
NORMS = ["backward", "ortho", "forward"]

# Name -> function of an array [3, 4, 6].
FOURIER: dict[str, Callable[[Any, str], Any]] = {
    "fft": lambda x, norm: FFT.fft(x, norm=norm),
    "fft cropped": lambda x, norm: FFT.fft(x, 4, 1, norm),
    "fft padded": lambda x, norm: FFT.fft(x, n=9, axis=0, norm=norm),
    "ifft": lambda x, norm: FFT.ifft(x, axis=1, norm=norm),
    "ifft padded": lambda x, norm: FFT.ifft(x, 7, norm=norm),
    "fftn": lambda x, norm: FFT.fftn(x, norm=norm),
    "fftn axes": lambda x, norm: FFT.fftn(x, (5, 2), axes=(2, 0), norm=norm),
    "ifftn": lambda x, norm: FFT.ifftn(x, (-1, 5), axes=(0, 1), norm=norm),
    "fft2": lambda x, norm: FFT.fft2(x, norm=norm),
    "ifft2": lambda x, norm: FFT.ifft2(x, norm=norm),
    "rfft": lambda x, norm: FFT.rfft(x, norm=norm),
    "rfft odd": lambda x, norm: FFT.rfft(x, 5, 0, norm=norm),
    "rfft cropped": lambda x, norm: FFT.rfft(x, 2, norm=norm),
    "rfftn": lambda x, norm: FFT.rfftn(x, norm=norm),
    "rfftn axes": lambda x, norm: FFT.rfftn(x, (3, 7), axes=(2, 1), norm=norm),
    "rfft2": lambda x, norm: FFT.rfft2(x, norm=norm),
    "irfft": lambda x, norm: FFT.irfft(x, norm=norm),
    "irfft odd": lambda x, norm: FFT.irfft(x, 7, 1, norm),
    "irfft cropped": lambda x, norm: FFT.irfft(x, 4, norm=norm),
    "irfft of one": lambda x, norm: FFT.irfft(x, 1, norm=norm),
    "irfftn": lambda x, norm: FFT.irfftn(x, norm=norm),
    "irfftn axes": lambda x, norm: FFT.irfftn(x, (3, 5), axes=(2, 0), norm=norm),
    "irfft2": lambda x, norm: FFT.irfft2(x, norm=norm),
    "hfft": lambda x, norm: FFT.hfft(x, norm=norm),
    "hfft odd": lambda x, norm: FFT.hfft(x, 7, norm=norm),
    "ihfft": lambda x, norm: FFT.ihfft(x, norm=norm),
    "ihfft odd": lambda x, norm: FFT.ihfft(x, 5, 1, norm=norm),
}


def _dtypes(name: str) -> list[Any]:
    return [np.float64] if name.startswith(("rfft", "ihfft")) else [np.float64, np.complex128]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("name", "dtype"), [(name, dtype) for name in FOURIER for dtype in _dtypes(name)])
def test_fourier(name: str, dtype: Any, norm: str) -> None:
    """Linear: the tangent is the transform of the tangent, to rounding; and the transpose is pinned by pairing."""
    x, t = random((3, 4, 6), 1, dtype), random((3, 4, 6), 2, dtype)
    fun = lambda x: FOURIER[name](x, norm)  # noqa: E731
    out, pushed = jvp(fun, x, t)
    agree(out, fun(x), 1e-15)
    agree(pushed, fun(t), 1e-15)
    check_adjoint(fun, x, 1e-14)
    check_adjoint(lambda x: fun(x * x) * fun(x), x, 1e-13)
    narrow = np.float32 if dtype == np.float64 else np.complex64
    small = x.astype(narrow)
    assert jvp(fun, small, small)[1].dtype == fun(small).dtype
    assert pull(fun, small, fun(small)).dtype == narrow


@pytest.mark.parametrize("name", ["fft", "ifft", "rfft odd", "irfft", "irfft odd", "hfft", "ihfft"])
def test_fourier_matrix(name: str) -> None:
    """Every entry of the reverse-mode Jacobian, against the transform of unit vectors (real x)."""
    fun = lambda x: FOURIER[name](x[None, None, :] * np.ones((5, 1, 1)), "backward")  # noqa: E731
    columns = np.stack([fun(row) for row in np.eye(6)], axis=-1)
    parts = [np.real, np.imag] if columns.dtype.kind == "c" else [np.real]
    for part in parts:
        got = ad.jacobian(lambda x, part=part: part(fun(x)), mode="reverse", backend=B)(np.ones(6))
        agree(got, part(columns), 1e-14)


@pytest.mark.parametrize("axes", [None, 0, (1, 2), (0, -1)], ids=str)
@pytest.mark.parametrize("shift", [FFT.fftshift, FFT.ifftshift])
def test_shifts(shift: Any, axes: Any) -> None:
    x = random((3, 4, 5), 1)
    fun = lambda x: shift(x, axes) ** 2  # noqa: E731
    np.testing.assert_array_equal(jvp(fun, x, x)[0], fun(x))
    check(fun, x)


def test_frequencies() -> None:
    np.testing.assert_array_equal(xp.fft.fftfreq(5, d=0.1), FFT.fftfreq(5, 0.1))
    np.testing.assert_array_equal(xp.fft.rfftfreq(4, d=2.0), FFT.rfftfreq(4, 2.0))
    assert xp.fft.fftfreq(4, dtype=np.float32).dtype == xp.fft.rfftfreq(4, dtype=np.float32).dtype == np.float32


def test_parseval() -> None:
    """The energy of the spectrum: gradient 2 n x."""
    x = random((6,), 1)
    agree(ad.grad(lambda x: xp.sum(xp.abs(FFT.fft(x)) ** 2), backend=B)(x), 12 * x, 1e-14)
    # Of the half: the outer frequencies count once, the others half of what they would.
    m = np.array([1, 2, 2, 1])
    agree(ad.grad(lambda x: xp.sum(m * xp.abs(FFT.rfft(x)) ** 2), backend=B)(x), 12 * x, 1e-14)


def test_no_transforms_of_an_empty_stack() -> None:
    x = np.zeros((0, 4))
    assert pull(FFT.rfft, x, FFT.rfft(x)).shape == (0, 4)


# Einsum: subscripts and the operands' shapes.

EINSUM = [
    ("ij,jk->ik", (2, 3), (3, 4)),
    ("ij,jk", (2, 3), (3, 4)),
    ("ba", (2, 3)),
    ("ij->", (2, 3)),
    ("ii", (3, 3)),
    ("ii->i", (3, 3)),
    ("iji->j", (3, 2, 3)),
    ("iii", (3, 3, 3)),
    ("ijij->ji", (2, 3, 2, 3)),
    ("i,i", (3,), (3,)),
    ("i,j->ij", (3,), (2,)),
    ("i,j->ji", (3,), (2,)),
    ("ij,ij->ij", (2, 3), (2, 3)),
    ("ij,ij->j", (2, 3), (2, 3)),
    ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
    ("bij,kjb->ki", (2, 3, 4), (5, 4, 2)),
    ("ij,jk,kl->il", (2, 3), (3, 4), (4, 5)),
    ("i,ij,j", (2,), (2, 3), (3,)),
    ("i,i,i->i", (3,), (3,), (3,)),
    ("i,i,i,i", (3,), (3,), (3,), (3,)),
    ("...ij,...jk->...ik", (2, 3, 4), (4, 5)),
    ("...ij,...jk->...ik", (6, 1, 3, 4), (2, 4, 5)),
    ("...ii->...i", (2, 3, 3)),
    ("...", (2, 3)),
    ("...i->...", (2, 3)),
    ("i...,i...", (3, 2), (3, 2)),
    ("i...->...i", (3, 2)),
    (" i j , j -> i ", (2, 3), (3,)),
    ("ij,j->i", (2, 3), (1,)),
    ("ij,k->i", (2, 3), (4,)),
    (",ij", (), (2, 3)),
    ("ii,ij->j", (3, 3), (3, 2)),
    ("ij,jk->ik", (2, 0), (0, 3)),
]


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("case", EINSUM, ids=str)
def test_einsum(case: Any, dtype: Any) -> None:
    """Multilinear: the tangent is the einsum of the tangent, operand by operand."""
    subscripts, *shapes = case
    operands = [random(shape, seed, dtype) for seed, shape in enumerate(shapes)]
    for i, x in enumerate(operands):

        def fun(x: Any, i: int = i) -> Any:
            return np.einsum(subscripts, *operands[:i], x, *operands[i + 1 :])

        t = random(x.shape, 9, dtype)
        out, pushed = jvp(fun, x, t)
        agree(out, fun(x), 1e-14)
        agree(pushed, fun(t), 1e-14)
        check_adjoint(fun, x, 1e-13)
        # All at once, to second order.
        check_adjoint(lambda s: np.einsum(subscripts, *(s * x for x in operands)) * s, np.array(1.5, dtype), 1e-12)


def test_einsum_of_lists() -> None:
    a, b = random((2, 3), 1), random((3, 4), 2)
    for lists in ([[0, 1], [1, 2]], [[0, 1], [1, 2], [2, 0]], [[..., 1], [1, 2], [..., 2]]):
        fun = lambda a, lists=lists: np.einsum(a, lists[0], b, lists[1], *lists[2:])  # noqa: E731
        agree(jvp(fun, a, a)[0], fun(a), 1e-15)
        check_adjoint(fun, a)


def test_einsum_is_in_the_namespace() -> None:
    a = random((3, 3), 1)
    agree(ad.grad(lambda a: xp.einsum("ij,ji", a, a), backend=B)(a), 2 * a.T, 1e-15)
    agree(xp.einsum("ii", a), np.trace(a), 1e-15)
    narrow, ones = a.astype(np.float32), np.ones(3, np.float32)
    assert pull(lambda a: np.einsum("ij,j->i", a, a[0], optimize=True), narrow, ones).dtype == np.float32


@pytest.mark.parametrize("subscripts", ["ij,jk->iz", "ij,jk->ii", "ijk,jk", "ij"])
def test_einsum_errors_are_numpys(subscripts: str) -> None:
    with pytest.raises(ValueError):
        jvp(lambda a: np.einsum(subscripts, a, np.ones((3, 2))), np.ones((2, 3)), np.ones((2, 3)))


# Refusals.

REFUSALS: dict[str, tuple[Fun, type[Exception], str]] = {
    "eig": (LA.eig, ad.NotDifferentiable, r"no numpy\.linalg\.eig; write the function with other operations"),
    "eigvals": (LA.eigvals, ad.NotDifferentiable, r"no numpy\.linalg\.eigvals"),
    "eig of the namespace": (lambda x: xp.linalg.eig(x), ad.NotDifferentiable, r"no linalg\.eig; .*eigh and svd are"),
    "cond": (LA.cond, ad.NotDifferentiable, r"no numpy\.linalg\.cond"),
    "full svd": (
        lambda x: LA.svd(x[:, :2]),
        ad.NotDifferentiable,
        r"no svd\(full_matrices=True\) of a 3 x 2 matrix: the last 1 singular.*use full_matrices=False",
    ),
    "complete qr": (
        lambda x: LA.qr(x[:, :1], mode="complete"),
        ad.NotDifferentiable,
        r"no qr\(mode='complete'\) of a 3 x 1 matrix: the last 2 columns.*use mode='reduced'",
    ),
    "hermitian pinv": (
        lambda x: LA.pinv(x, hermitian=True),
        ad.NotDifferentiable,
        r"numpy\.linalg\.pinv: .*'hermitian'; it takes \(a",
    ),
    "raw qr": (lambda x: LA.qr(x, mode="raw"), ValueError, "qr has no mode 'raw'; choose 'reduced'"),
    "matrix norm": (lambda x: LA.norm(x, 3), ValueError, "ord=3 is not a norm of matrices; choose one of 'fro', 'nuc'"),
    "norm of three axes": (lambda x: LA.norm(x[None], "fro"), ValueError, "norm takes one axis or two, got 3"),
    "cross of two": (lambda x: np.cross(x[:, :2], x[:, :2]), ValueError, "cross takes vectors of 3 elements, got 2"),
    "singular": (lambda x: LA.inv(x * 0), LA.LinAlgError, "Singular"),
    "not positive": (lambda x: LA.cholesky(-x), LA.LinAlgError, "not positive definite"),
    "not square": (lambda x: LA.det(x[:2]), LA.LinAlgError, "square"),
    "norm of transforms": (lambda x: FFT.fft(x, norm="no"), ValueError, "norm='no' is not a norm of Fourier"),
    "lengths": (lambda x: FFT.fftn(x, (2,), axes=(0, 1)), ValueError, r"1 lengths s=\(2,\) for 2 axes \(0, 1\)"),
    "axes": (lambda x: FFT.fft(x, axis=2), np.exceptions.AxisError, "axis 2 is out of bounds"),
    "no points": (lambda x: FFT.fft(x, 0), ValueError, r"[Ii]nvalid number of (FFT )?data points"),
    "einsum out": (
        lambda x: np.einsum("ij->i", x, out=np.zeros(3)),
        ad.NotDifferentiable,
        r"no numpy\.einsum\(out=\.\.\.\)",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name: str) -> None:
    fun, kind, text = REFUSALS[name]
    for run in (lambda: pull(fun, np.eye(3), 1.0), lambda: jvp(fun, np.eye(3), np.eye(3))):
        with pytest.raises(kind, match=text):
            run()


def test_namespace_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="linalg has no 'frobnicate'"):
        _ = xp.linalg.frobnicate


# Bundles.


def test_one_bundle_many_picks() -> None:
    """U, s and V^H of one run of the primitive; unused ones cost nothing in reverse."""
    a = general((3, 3), 1)

    def rebuilt(a: Any) -> Any:
        u, s, vh = LA.svd(a)
        return (u * s) @ vh

    t = random((3, 3), 2)
    agree(jvp(rebuilt, a, t)[1], t, 1e-13)
    agree(pull(rebuilt, a, t), t, 1e-13)
    second = jvp(lambda a: pull(lambda a: rebuilt(a) ** 2, a, t), a, t)[1]
    agree(second, 2 * t * t, 1e-12)


def test_bundles_are_recorded() -> None:
    a, b = general((3, 3), 1), general((3, 3), 2)
    program = transforms.record(lambda a: (LA.eigh(a).eigenvectors, LA.slogdet(a).logabsdet), a)
    assert [eq.primitive.name for eq in program.equations] == ["eigh", "pick", "pick", "slogdet", "pick", "pick"]
    assert "v1" in str(program)
    for got, expected in zip(evaluate(program, b), (LA.eigh(b).eigenvectors, LA.slogdet(b).logabsdet), strict=True):
        np.testing.assert_array_equal(got, expected)


# Other engines.


@pytest.mark.parametrize("name", ["inv", "det", "slogdet", "cholesky", "eigvalsh", "svdvals", "qr R", "pinv"])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_agreement_with_jax(name: str, dtype: Any) -> None:
    pytest.importorskip("jax")
    x = general((3, 3), 5, dtype)

    def fun(x: Any) -> Any:
        la = ad.array_namespace(x).linalg
        h = x + ad.array_namespace(x).conj(x.T)
        return {
            "inv": lambda: la.inv(x),
            "det": lambda: la.det(x),
            "slogdet": lambda: la.slogdet(x)[1],
            "cholesky": lambda: la.cholesky(x @ ad.array_namespace(x).conj(x.T)),
            "eigvalsh": lambda: la.eigvalsh(h),
            "svdvals": lambda: la.svdvals(x),
            "qr R": lambda: la.qr(x)[1],
            "pinv": lambda: la.pinv(x),
        }[name]()

    out, pullback = ad.vjp(fun, x, backend="jax")
    cotangent = random(out.shape, 2, out.dtype)
    agree(pull(fun, x, cotangent), pullback(cotangent)[0], 1e-11)


@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"])
@pytest.mark.parametrize("n", [None, 5, 8])
def test_fourier_agrees_with_jax(name: str, n: int | None) -> None:
    """The cotangent convention of real and complex numbers is JAX's."""
    pytest.importorskip("jax")
    x = random((6,), 1, np.complex128 if name in ("fft", "ifft", "irfft", "hfft") else np.float64)
    fun = lambda x: getattr(ad.array_namespace(x).fft, name)(x, n=n)  # noqa: E731
    out, pullback = ad.vjp(fun, x, backend="jax")
    cotangent = random(out.shape, 2, out.dtype)
    agree(pull(fun, x, cotangent), pullback(cotangent)[0], 1e-13)


# The table: every primitive of these rules has a test above.

ROWS = {
    **dict.fromkeys(("fft", "ifft", "rfft", "irfft"), FOURIER),
    **dict.fromkeys(("inv", "solve", "det", "slogdet", "cholesky", "qr", "eigh", "svd", "pinv", "diagonal"), SQUARE),
    "matrix_rank": test_matrix_rank_is_constant,
    "from_diagonal": test_function_of_square_matrices,  # the transpose of diagonal
    "pick": test_one_bundle_many_picks,
    **dict.fromkeys(("cofactor", "cofactor_1", "cofactor_2", "cofactor_3"), test_cofactors_of_a_row_of_their_own),
}


def test_every_primitive_is_here() -> None:
    tables = (decompositions, fourier, linalg)
    found = {row.name for table in tables for row in vars(table).values() if isinstance(row, Primitive)}
    others = (elementwise, reductions, shaping)
    found -= {row.name for table in others for row in vars(table).values() if isinstance(row, Primitive)}
    # Those of cofactors are made when a derivative of their order is asked for.
    assert {name for name in ROWS if not name.startswith("cofactor")} == found - {"matmul"}
    assert {name for name in PRIMITIVES if name.startswith("cofactor")} <= ROWS.keys()
