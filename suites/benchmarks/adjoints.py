"""Ten scalar functions, each with its gradient written by hand in plain NumPy.

The adjoints are what a numerical programmer would write: every common subexpression once, in place where that
is natural, and the gradient alone. They are the 1.00 of `against_adjoints`; tests/test_adjoints.py checks them
against finite differences. The functions are in the array API, and follow the same algorithms.

A problem is one entry in `PROBLEMS`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

import adbridge as ad
from adbridge.bench.problem import Vector
from adbridge.suites import adbench, scaling
from adbridge.trees import PyTree

SIZES = ("small", "medium", "large")


@dataclass(frozen=True)
class Case:
    """A problem at one size. ``adjoint(*args)`` is the gradient of ``fun(*args)`` with respect to ``args[0]``.

    With `operator` "jacobian", ``fun(*args)`` is an array, and the adjoint its Jacobian.
    """

    problem: str
    size: str
    fun: Callable[..., Any]
    args: tuple[PyTree, ...]
    adjoint: Callable[..., PyTree]
    operator: str = "grad"


@dataclass(frozen=True)
class Handwritten:
    """A function and its adjoint. ``make(rng, *shape)`` gives the arguments; `shapes` are those of `SIZES`."""

    name: str
    fun: Callable[..., Any]
    adjoint: Callable[..., PyTree]
    make: Callable[..., tuple[PyTree, ...]]
    shapes: Mapping[str, tuple[int, ...]]
    operator: str = "grad"

    def case(self, size: str) -> Case:
        """The same numbers every time."""
        rng = np.random.default_rng([zlib.crc32(self.name.encode()), SIZES.index(size)])
        args = self.make(rng, *self.shapes[size])
        return Case(self.name, size, self.fun, args, self.adjoint, self.operator)


def _sizes(small: tuple[int, ...], medium: tuple[int, ...], large: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
    return dict(zip(SIZES, (small, medium, large), strict=True))


# The sin/cos chain of the scaling suite: its sum over the elements has a diagonal Jacobian in every step.


def chain_adjoint(x: Vector) -> Vector:
    """The product of the slopes of all steps, each at its own input. The last step's value is not needed."""
    slope = np.ones_like(x)
    for step in range(scaling.STEPS):
        sin, cos = np.sin(x), np.cos(x)
        slope *= sin if step % 2 else cos
        x = cos if step % 2 else sin
    # Each cosine step has the slope -sin.
    return slope if scaling.STEPS // 2 % 2 == 0 else -slope


def _normal(rng: np.random.Generator, n: int) -> tuple[Vector]:
    return (rng.standard_normal(n),)


# Rosenbrock's function.


def rosenbrock_adjoint(x: Vector) -> Vector:
    """With s_i = 200 (x_{i+1} - x_i^2): df/dx_i = 2 (x_i - 1 - x_i s_i) + s_{i-1}."""
    head = x[:-1]
    scaled = head * head
    np.subtract(x[1:], scaled, out=scaled)
    scaled *= 200
    gradient = np.empty_like(x)
    gradient[0] = 0
    gradient[1:] = scaled
    np.subtract(1, scaled, out=scaled)
    scaled *= head
    scaled -= 1
    scaled *= 2
    gradient[:-1] += scaled
    return gradient


def _uniform(rng: np.random.Generator, n: int) -> tuple[Vector]:
    return (rng.uniform(-2.0, 2.0, n),)


# Log-sum-exp, with the largest element taken out.


def log_sum_exp_adjoint(x: Vector) -> Vector:
    """Softmax."""
    weights: Vector = x - x.max()
    np.exp(weights, out=weights)
    weights /= weights.sum()
    return weights


def _log_sum_exp_args(rng: np.random.Generator, n: int) -> tuple[Vector]:
    # As in the scaling suite: spread enough that no single element, through the shift, cancels to rounding.
    return (1000.0 + 4.0 * rng.standard_normal(n),)


# A network of two layers.


def network(weights: PyTree, inputs: Any, targets: Any) -> Any:
    """Mean of (tanh(X V + a) W + b - Y)^2, weights (V [d, h], a [h], W [h, o], b [o]), X [batch, d], Y [batch, o]."""
    first, first_bias, second, second_bias = weights
    xp = ad.array_namespace(first)
    active = xp.tanh(inputs @ first + first_bias)
    return xp.mean((active @ second + second_bias - targets) ** 2)


def network_adjoint(weights: PyTree, inputs: Vector, targets: Vector) -> PyTree:
    """Backpropagation; tanh' = 1 - tanh^2."""
    first, first_bias, second, second_bias = weights
    active = inputs @ first
    active += first_bias
    np.tanh(active, out=active)
    d_out = active @ second
    d_out += second_bias
    d_out -= targets
    d_out *= 2 / d_out.size
    d_second = active.T @ d_out
    d_active = d_out @ second.T
    active *= active
    np.subtract(1, active, out=active)
    d_active *= active
    return inputs.T @ d_active, d_active.sum(axis=0), d_second, d_out.sum(axis=0)


def _network_args(rng: np.random.Generator, batch: int, d: int, hidden: int, out: int) -> tuple[PyTree, ...]:
    weights = (
        rng.standard_normal((d, hidden)) / np.sqrt(d),
        0.1 * rng.standard_normal(hidden),
        rng.standard_normal((hidden, out)) / np.sqrt(hidden),
        0.1 * rng.standard_normal(out),
    )
    return weights, rng.standard_normal((batch, d)), rng.standard_normal((batch, out))


# Logistic regression.


def logistic(weights: Any, inputs: Any, labels: Any) -> Any:
    """The sum of log(1 + exp(-y_i x_i.w)): w [d], X [N, d], labels y [N] of -1 and 1."""
    xp = ad.array_namespace(weights)
    return xp.sum(xp.log1p(xp.exp(-labels * (inputs @ weights))))


def logistic_adjoint(weights: Vector, inputs: Vector, labels: Vector) -> Vector:
    """-X^T (y / (1 + exp(y X w)))."""
    margin = inputs @ weights
    margin *= labels
    np.exp(margin, out=margin)
    margin += 1
    np.divide(labels, margin, out=margin)
    np.negative(margin, out=margin)
    return margin @ inputs


def _logistic_args(rng: np.random.Generator, count: int, d: int) -> tuple[Vector, ...]:
    inputs = rng.standard_normal((count, d))
    labels = np.where(inputs[:, 0] + rng.standard_normal(count) > 0, 1.0, -1.0)
    return rng.standard_normal(d) / np.sqrt(d), inputs, labels


# Least squares.


def least_squares(x: Any, matrix: Any, target: Any) -> Any:
    """|A x - b|^2 / 2: x [n], A [m, n], b [m]."""
    residual = matrix @ x - target
    return ad.array_namespace(x).sum(residual * residual) / 2.0


def least_squares_adjoint(x: Vector, matrix: Vector, target: Vector) -> Vector:
    """A^T (A x - b)."""
    residual = matrix @ x
    residual -= target
    return residual @ matrix


def _least_squares_args(rng: np.random.Generator, m: int, n: int) -> tuple[Vector, ...]:
    return rng.standard_normal(n), rng.standard_normal((m, n)), rng.standard_normal(m)


# Runge-Kutta on n independent Lotka-Volterra systems u' = u (1 - v), v' = R v (u - 1).

RK4_STEPS, STEP, RATIO = 20, 0.05, 0.75


def lotka_volterra(state: PyTree) -> Any:
    """Sum of u^2 + v^2 after `RK4_STEPS` steps of the classical Runge-Kutta method from state (u [n], v [n])."""
    u, v = state
    half, sixth = STEP / 2, STEP / 6
    for _ in range(RK4_STEPS):
        a1, b1 = _velocity(u, v)
        a2, b2 = _velocity(u + half * a1, v + half * b1)
        a3, b3 = _velocity(u + half * a2, v + half * b2)
        a4, b4 = _velocity(u + STEP * a3, v + STEP * b3)
        u = u + sixth * (a1 + 2.0 * (a2 + a3) + a4)
        v = v + sixth * (b1 + 2.0 * (b2 + b3) + b4)
    return ad.array_namespace(u).sum(u * u + v * v)


def _velocity(u: Any, v: Any) -> tuple[Any, Any]:
    return u * (1.0 - v), RATIO * v * (u - 1.0)


def lotka_volterra_adjoint(state: PyTree) -> PyTree:
    """The discrete adjoint: the stages of each step are kept, and their Jacobians transposed in reverse.

    With y' = f(y) and the stages y_s, where k_s = f(y_s): from the cotangent c of a step's result, those of its
    stages are l_4 = h c / 6, l_3 = h c / 3 + h J_4^T l_4, l_2 = h c / 3 + h/2 J_3^T l_3, l_1 = h c / 6 + h/2 J_2^T l_2,
    and c + sum_s J_s^T l_s is the cotangent of its start.
    """
    kept = []
    for _ in range(RK4_STEPS):
        state, stages = _rk4_step(*state)
        kept.append(stages)
    c, d = 2 * state[0], 2 * state[1]
    for stages in reversed(kept):
        _rk4_step_adjoint(stages, c, d)
    return c, d


def _rk4_step(u: Vector, v: Vector) -> tuple[tuple[Vector, Vector], list[tuple[Vector, Vector]]]:
    """The state after one step, and its stages."""
    stages, next_u, next_v = [(u, v)], u.copy(), v.copy()
    for share, ahead in ((STEP / 6, STEP / 2), (STEP / 3, STEP / 2), (STEP / 3, STEP), (STEP / 6, 0)):
        at_u, at_v = stages[-1]
        a = 1 - at_v
        a *= at_u
        b = at_u - 1
        b *= at_v
        b *= RATIO
        next_u += share * a
        next_v += share * b
        if ahead:
            a *= ahead
            a += u
            b *= ahead
            b += v
            stages.append((a, b))
    return (next_u, next_v), stages


def _rk4_step_adjoint(stages: list[tuple[Vector, Vector]], c: Vector, d: Vector) -> None:
    """Turn the cotangents (c, d) of the step's result into those of its start, in place."""
    end, middle = (STEP / 6 * c, STEP / 6 * d), (STEP / 3 * c, STEP / 3 * d)
    back_u, back_v = _velocity_adjoint(*stages[3], *end)
    for stage, share, ahead in ((2, middle, STEP), (1, middle, STEP / 2), (0, end, STEP / 2)):
        c += back_u
        d += back_v
        back_u *= ahead
        back_u += share[0]
        back_v *= ahead
        back_v += share[1]
        back_u, back_v = _velocity_adjoint(*stages[stage], back_u, back_v)
    c += back_u
    d += back_v


def _velocity_adjoint(u: Vector, v: Vector, a: Vector, b: Vector) -> tuple[Vector, Vector]:
    """J^T (a, b) for J = [[1 - v, -u], [R v, R (u - 1)]]: (a - v (a - R b), -u (a - R b) - R b)."""
    b = RATIO * b
    apart = a - b
    back_u = v * apart
    np.subtract(a, back_u, out=back_u)
    apart *= u
    apart += b
    np.negative(apart, out=apart)
    return back_u, apart


def _lotka_volterra_args(rng: np.random.Generator, n: int) -> tuple[PyTree]:
    return ((rng.uniform(0.5, 1.5, n), rng.uniform(0.5, 1.5, n)),)


# ADBench's Gaussian mixture, with gamma = 1 and m = 0.


def gmm(parameters: PyTree, points: Any, place: Any) -> Any:
    """`adbench.gmm_objective`."""
    return adbench.gmm_objective(parameters, points, place, 1.0, 0)


def gmm_adjoint(parameters: PyTree, points: Vector, place: Vector) -> PyTree:
    """The formulas are in `adbench.gmm_answer`; here the value is not needed, and the softmax is in place."""
    alphas, means, icf = parameters
    (clusters, d), count = means.shape, len(points)
    entries = _triangle_entries(d)
    lower = np.zeros((clusters, d * d))
    lower[:, entries] = icf
    diagonal = lower[:, :: d + 1]
    np.exp(diagonal, out=diagonal)
    factors = lower.reshape(clusters, d, d)

    centred = points - means[:, None, :]
    whitened = centred @ factors.transpose(0, 2, 1)
    shares = np.einsum("kna,kna->kn", whitened, whitened)
    shares *= -0.5
    shares += (alphas + icf[:, :d].sum(axis=1))[:, None]
    _softmax(shares)
    weight = shares.sum(axis=1)

    whitened *= shares[:, :, None]
    d_lower = whitened.transpose(0, 2, 1) @ centred
    d_lower += factors
    d_means = (whitened.sum(axis=1)[:, None, :] @ factors)[:, 0, :]
    d_icf = -d_lower.reshape(clusters, d * d)[:, entries]
    d_icf[:, :d] *= diagonal
    d_icf[:, :d] += weight[:, None]
    prior = alphas.copy()
    _softmax(prior)
    prior *= count
    weight -= prior
    return weight, d_means, d_icf


def _softmax(x: Vector) -> None:
    """Over the first axis, in place."""
    x -= x.max(axis=0)
    np.exp(x, out=x)
    x /= x.sum(axis=0)


@cache
def _triangle_entries(d: int) -> Vector:
    """Of each column of icf, its place in a [d, d] matrix by rows."""
    columns, rows = np.triu_indices(d, 1)
    return np.concatenate([np.arange(d) * (d + 1), rows * d + columns])


def _gmm_args(rng: np.random.Generator, d: int, clusters: int, count: int) -> tuple[PyTree, ...]:
    parameters = (
        rng.standard_normal(clusters),
        rng.uniform(0.0, 1.0, (clusters, d)),
        0.2 * rng.standard_normal((clusters, d * (d + 1) // 2)),
    )
    return parameters, rng.standard_normal((count, d)), adbench.triangle_places(d)


# k-means.


def kmeans(centres: Any, points: Any) -> Any:
    """Sum over points x [N, d] of the least |x - c|^2 among centres c [K, d], as |x|^2 + min_c(|c|^2 - 2 c.x)."""
    xp = ad.array_namespace(centres)
    scores = xp.sum(centres * centres, axis=1)[:, None] - 2.0 * (centres @ points.T)
    return xp.sum(points * points) + xp.sum(xp.min(scores, axis=0))


def kmeans_adjoint(centres: Vector, points: Vector) -> Vector:
    """2 (N_k c_k - the sum of the points nearest to c_k)."""
    scores = (-2 * centres) @ points.T
    scores += np.einsum("kd,kd->k", centres, centres)[:, None]
    nearest = (scores == scores.min(axis=0)).astype(scores.dtype)
    gradient: Vector = nearest.sum(axis=1)[:, None] * centres
    gradient -= nearest @ points
    gradient *= 2
    return gradient


def _kmeans_args(rng: np.random.Generator, clusters: int, d: int, count: int) -> tuple[Vector, ...]:
    return rng.standard_normal((clusters, d)), rng.standard_normal((count, d))


# A recurrent network of LSTM cells.

LSTM_STEPS = 50


def lstm(weights: PyTree, inputs: Any, start: Any, target: Any) -> Any:
    """Mean of (the last state - target)^2.

    Weights: W [d, 4h], U [h, 4h], bias [4h], in the order input, forget, output gate, candidate.
    Inputs [steps, batch, d], start and target [batch, h].
    """
    of_input, of_state, bias = weights
    xp = ad.array_namespace(of_input)
    width, state, cell = of_state.shape[0], start, start
    for t in range(LSTM_STEPS):
        z = inputs[t] @ of_input + state @ of_state + bias
        gates = 1.0 / (1.0 + xp.exp(-z[:, : 3 * width]))
        into, forget, out = gates[:, :width], gates[:, width : 2 * width], gates[:, 2 * width :]
        cell = forget * cell + into * xp.tanh(z[:, 3 * width :])
        state = out * xp.tanh(cell)
    return xp.mean((state - target) ** 2)


def lstm_adjoint(weights: PyTree, inputs: Vector, start: Vector, target: Vector) -> PyTree:
    """Backpropagation through time; what does not depend on the step before is done for all steps at once."""
    of_state, (steps, batch, _) = weights[1], inputs.shape
    width = len(of_state)
    z, states, cells, tanh_cells = _lstm_forward(weights, inputs, start)

    # From here on slope[t], then dz[t]: s' = s (1 - s) for the gates, 1 - tanh^2 for the candidate.
    dz = z * z
    np.subtract(z[..., : 3 * width], dz[..., : 3 * width], out=dz[..., : 3 * width])
    np.subtract(1, dz[..., 3 * width :], out=dz[..., 3 * width :])
    cell_slope = tanh_cells * tanh_cells
    np.subtract(1, cell_slope, out=cell_slope)
    cell_slope *= z[..., 2 * width : 3 * width]

    d_state = states[steps] - target
    d_state *= 2 / d_state.size
    d_cell = np.zeros_like(d_state)
    for t in reversed(range(steps)):
        into, forget, candidate = z[t, :, :width], z[t, :, width : 2 * width], z[t, :, 3 * width :]
        d_cell += d_state * cell_slope[t]
        step = dz[t]
        step[:, :width] *= d_cell * candidate
        step[:, width : 2 * width] *= d_cell * cells[t]
        step[:, 2 * width : 3 * width] *= d_state * tanh_cells[t]
        step[:, 3 * width :] *= d_cell * into
        d_state = step @ of_state.T
        d_cell *= forget
    flat = dz.reshape(steps * batch, 4 * width)
    d_of_state = states[:steps].reshape(steps * batch, width).T @ flat
    return inputs.reshape(steps * batch, -1).T @ flat, d_of_state, flat.sum(axis=0)


def _lstm_forward(weights: PyTree, inputs: Vector, start: Vector) -> tuple[Vector, Vector, Vector, Vector]:
    """Gates and candidates [steps, batch, 4h]; states and cells [steps + 1, batch, h]; tanh(cells[1:])."""
    of_input, of_state, bias = weights
    steps, width = len(inputs), len(of_state)
    z = inputs @ of_input
    z += bias
    states = np.empty((steps + 1, *start.shape))
    cells, tanh_cells = np.empty_like(states), np.empty_like(states[1:])
    states[0] = cells[0] = start
    for t in range(steps):
        z[t] += states[t] @ of_state
        gates, candidate = z[t, :, : 3 * width], z[t, :, 3 * width :]
        np.negative(gates, out=gates)
        np.exp(gates, out=gates)
        gates += 1
        np.reciprocal(gates, out=gates)
        np.tanh(candidate, out=candidate)
        np.multiply(gates[:, width : 2 * width], cells[t], out=cells[t + 1])
        cells[t + 1] += gates[:, :width] * candidate
        np.tanh(cells[t + 1], out=tanh_cells[t])
        np.multiply(gates[:, 2 * width :], tanh_cells[t], out=states[t + 1])
    return z, states, cells, tanh_cells


def _lstm_args(rng: np.random.Generator, batch: int, d: int, width: int) -> tuple[PyTree, ...]:
    weights = (
        rng.standard_normal((d, 4 * width)) / np.sqrt(d),
        rng.standard_normal((width, 4 * width)) / np.sqrt(width),
        0.1 * rng.standard_normal(4 * width),
    )
    inputs = rng.standard_normal((LSTM_STEPS, batch, d))
    return weights, inputs, np.zeros((batch, width)), rng.standard_normal((batch, width))


PROBLEMS = (
    Handwritten("chain", scaling.chain, chain_adjoint, _normal, _sizes((10,), (5_000,), (200_000,))),
    Handwritten("rosenbrock", scaling.rosenbrock, rosenbrock_adjoint, _uniform, _sizes((10,), (10_000,), (1_000_000,))),
    Handwritten(
        "log-sum-exp",
        scaling.log_sum_exp,
        log_sum_exp_adjoint,
        _log_sum_exp_args,
        _sizes((10,), (10_000,), (1_000_000,)),
    ),
    Handwritten(
        "network", network, network_adjoint, _network_args, _sizes((8, 4, 5, 2), (64, 16, 32, 4), (2000, 100, 500, 10))
    ),
    Handwritten("logistic", logistic, logistic_adjoint, _logistic_args, _sizes((10, 3), (500, 20), (50_000, 100))),
    Handwritten(
        "least-squares",
        least_squares,
        least_squares_adjoint,
        _least_squares_args,
        _sizes((10, 5), (200, 50), (3000, 2000)),
    ),
    Handwritten(
        "lotka-volterra",
        lotka_volterra,
        lotka_volterra_adjoint,
        _lotka_volterra_args,
        _sizes((5,), (1_000,), (20_000,)),
    ),
    Handwritten("gmm", gmm, gmm_adjoint, _gmm_args, _sizes((2, 3, 10), (5, 5, 200), (10, 25, 1000))),
    Handwritten("k-means", kmeans, kmeans_adjoint, _kmeans_args, _sizes((3, 2, 10), (5, 5, 1000), (20, 10, 50_000))),
    Handwritten("lstm", lstm, lstm_adjoint, _lstm_args, _sizes((2, 3, 4), (8, 8, 16), (64, 32, 64))),
)


# Beside the gradients: the dense Jacobian of tanh(A x).


def tanh_jacobian(x: Vector, matrix: Vector) -> Vector:
    """(1 - y_i^2) A_ij for y = tanh(A x)."""
    slope = np.tanh(matrix @ x)
    slope *= slope
    np.subtract(1, slope, out=slope)
    jacobian: Vector = slope[:, None] * matrix
    return jacobian


def _tanh_layer_args(rng: np.random.Generator, n: int, m: int) -> tuple[Vector, ...]:
    return rng.standard_normal(n), rng.standard_normal((m, n)) / np.sqrt(n)


TANH_JACOBIAN = Handwritten(
    "jacobian of tanh(A x)",
    scaling.tanh_layer,
    tanh_jacobian,
    _tanh_layer_args,
    _sizes((5, 5), (100, 100), (1000, 1000)),
    operator="jacobian",
)
