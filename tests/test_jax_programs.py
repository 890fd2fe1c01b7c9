"""Plain JAX code in Arb arithmetic: values as JAX computes them, gradients as JAX's own rules give them."""

from __future__ import annotations

import numpy as np
import pytest

import adbridge as ad

jax = pytest.importorskip("jax")
pytest.importorskip("flint")
jnp, lax = jax.numpy, jax.lax

VECTOR = np.array([0.3, -1.2, 2.0, 0.7])
MATRIX = np.random.default_rng(0).standard_normal((4, 4)) + 4 * np.eye(4)
PLACES = np.array([1, 0, 2, 2])

ROWS = {
    "sin": jnp.sin,
    "softmax": lambda x: jax.nn.softmax(x),
    "gelu": lambda x: jax.nn.gelu(x),
    "softplus": lambda x: jax.nn.softplus(x),
    "logsumexp": lambda x: jax.scipy.special.logsumexp(x),
    "xlogy": lambda x: jax.scipy.special.xlogy(x**2, x**2),
    "erfinv": lambda x: jax.scipy.special.erfinv(x / 4),
    "digamma": lambda x: jax.scipy.special.digamma(x + 2),
    "i0e": lambda x: jax.scipy.special.i0e(x),
    "indexing": lambda x: x[PLACES] * x[::-1],
    "padding": lambda x: jnp.pad(x, (1, 2)) ** 2,
    "cond": lambda x: lax.cond(x[0] > 0, lambda x: x**2, lambda x: 2 * x, x),
    "fori_loop": lambda x: lax.fori_loop(0, 3, lambda i, s: s * x + i, x),
    "scan": lambda x: lax.scan(lambda c, a: (c * a, c + a), x[0], x)[1],
    "scan in reverse": lambda x: lax.scan(lambda c, a: (c * a, c + a), x[0], x, reverse=True)[1],
    "scatter": lambda x: x.at[1].add(x[0] * 2.0) + x.at[np.array([3, 0])].set(x[2]) + x.at[PLACES].add(x**2),
    "sort": lambda x: jnp.sort(x) ** 2,
    "cumulative": lambda x: jnp.cumsum(x) * jnp.cumprod(x) + lax.cummax(x),
    "norm": jnp.linalg.norm,
    "interp": lambda x: jnp.interp(x, jnp.array([-2.0, 0, 3]), jnp.array([1.0, 2, -1])),
    "median": jnp.median,
    "fft": lambda x: jnp.abs(jnp.fft.fft(x)) + jnp.sum(jnp.fft.irfft(jnp.fft.rfft(x) ** 2)),
    "outer": lambda x: jnp.einsum("i,j->ij", x, x),
    "where": lambda x: jnp.where(x > 0, jnp.sqrt(jnp.abs(x)), x),
}  # fmt: skip
OF_MATRICES = {
    "solve": lambda a: jnp.linalg.solve(a, jnp.ones(4)),
    "det": jnp.linalg.det,
    "inv": jnp.linalg.inv,
    "cholesky": lambda a: jnp.linalg.cholesky(a @ a.T),
    "eigvalsh": lambda a: jnp.linalg.eigvalsh(a @ a.T),
    "svd": lambda a: jnp.linalg.svd(a, compute_uv=False),
    "slogdet": lambda a: jnp.linalg.slogdet(a)[1],
    "cho_solve": lambda a: jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(a @ a.T), jnp.ones(4)),
    "matmul": lambda a: a @ a,
    "expm": jax.scipy.linalg.expm,
    "segment_sum": lambda a: jax.ops.segment_sum(a, np.array([0, 1, 0, 2]), num_segments=3) ** 2,
}


@pytest.mark.parametrize(
    ("fun", "x"),
    [*((f, VECTOR) for f in ROWS.values()), *((f, MATRIX) for f in OF_MATRICES.values())],
    ids=[*ROWS, *OF_MATRICES],
)
def test_values_and_gradients(fun, x):
    judge = ad.referee(fun, x)
    assert judge.method == "arb", judge.why
    with jax.enable_x64(True):
        value, pullback = jax.vjp(fun, jnp.asarray(x))
        weights = 1 + np.arange(value.size, dtype=float).reshape(value.shape)
        (gradient,) = pullback(jnp.asarray(weights))
    # JAX's expm is good to some ten digits: its scaling and squaring works on a matrix of norm 50.
    rtol = 1e-11 if fun is jax.scipy.linalg.expm else 1e-13
    np.testing.assert_allclose(judge.value, value, rtol=rtol, atol=rtol)
    exact = judge.vjp(weights)[0]
    np.testing.assert_allclose(exact, gradient, rtol=rtol, atol=rtol * np.max(np.abs(exact)))


def test_while_loops_follow_the_values():
    judge = ad.referee(lambda x: lax.while_loop(lambda s: s < 10, lambda s: s * 3, x), 0.5)
    assert (judge.method, float(judge.grad())) == ("arb", 27.0)


def test_custom_rules_are_passed_by():
    @jax.custom_vjp
    def cube(x):
        return x**3

    cube.defvjp(lambda x: (x**3, x), lambda x, ct: (7 * ct,))
    assert float(ad.referee(lambda x: cube(x) + cube(x), 2.0).grad()) == 24.0


def test_what_cannot_be_read_is_judged_by_differences():
    kernel = np.array([1.0, -2.0, 0.5])
    judge = ad.referee(lambda x: jnp.sum(jnp.convolve(x, kernel) ** 2), VECTOR)
    assert judge.method == "differences"
    assert "conv_general_dilated" in judge.why
    exact = 2 * np.correlate(np.convolve(VECTOR, kernel), kernel, "valid")
    np.testing.assert_allclose(judge.grad(), exact, rtol=1e-9)


def test_jax_arrays_in():
    judge = ad.referee(lambda x: jnp.sum(x * x), jnp.array([1.0, 2.0], jnp.float32))
    assert judge.method == "arb"
    np.testing.assert_array_equal(judge.grad(), [2.0, 4.0])


def test_the_config_stays_as_it_was():
    ad.referee(lambda x: jnp.sum(jnp.sin(x)), VECTOR).grad()
    assert not jax.config.jax_enable_x64


# Rows whose parameters matter.

INTEGERS = {
    "division": lambda i: lax.div(i, jnp.full(4, 3, i.dtype)),
    "bits": lambda i: ((i & 3) | (i ^ 5)) + ~i,
    "wrapping": lambda i: (i.astype(jnp.int8) * jnp.int8(77)).astype(i.dtype),
    "reduction": lambda i: lax.reduce_xor(i, (0,)) + lax.population_count(i),
}
HALVES = np.array([0.5, 1.5, -2.5, 0.7])
PARAMETERS = {
    "round away from zero": (lambda x: lax.round(x, lax.RoundingMethod.AWAY_FROM_ZERO) + x, HALVES),
    "gather with a filler": (
        lambda x: x.at[np.array([7, -9, 2])].get(mode="fill", fill_value=3.0), VECTOR,
    ),
    "empty scan": (lambda x: lax.scan(lambda c, a: (c + a, c * a), x[0], x[:0]), VECTOR),
    "checkpoint": (lambda x: jax.checkpoint(lambda y: jnp.sin(jnp.sin(y)))(x), VECTOR),
    "cumlogsumexp": (lambda x: lax.cumlogsumexp(x, reverse=True), VECTOR),
    "split": (lambda x: jnp.split(x, [1, 3])[1] * 2, VECTOR),
    "tile and stack": (lambda x: jnp.stack([jnp.tile(x, 2), jnp.tile(-x, 2)]), VECTOR),
    "top_k": (lambda x: lax.top_k(x, 3)[0], VECTOR),
    "scatter-sub": (lambda x: x.at[np.array([1, 1])].subtract(x[:2]), VECTOR),
    "barrier": (lambda x: lax.optimization_barrier(x) * 2, VECTOR),
    "random numbers": (lambda x: x * jax.random.normal(jax.random.key(0), (4,)), VECTOR),
    "xor": (lambda x: jnp.where((x > 0) ^ (x > 0.5), x, x**2), VECTOR),
}  # fmt: skip


@pytest.mark.parametrize("name", [*PARAMETERS, *INTEGERS])
def test_parameters_of_rows(name):
    of_integers = INTEGERS.get(name)
    fun, x = PARAMETERS.get(name) or (lambda x: x * of_integers((x * 8).astype(jnp.int32)), VECTOR)
    judge = ad.referee(fun, x)
    assert judge.method == "arb", judge.why
    with jax.enable_x64(True):
        values = jax.tree.leaves(jax.jit(fun)(jnp.asarray(x)))
    for ours, jaxs in zip(jax.tree.leaves(judge.value), values, strict=True):
        np.testing.assert_allclose(ours, jaxs, rtol=1e-14)
