"""Families whose cost should grow with n (inputs) or m (outputs) in a known way, sizes free."""

from __future__ import annotations

from typing import Any

import numpy as np

import adbridge as ad
from adbridge.bench.problem import Answer, Instance, Problem, Suite, Vector, gradient_answer
from adbridge.trees import PyTree

STEPS = 20  # of the sin/cos chain
BATCH, FEATURES = 16, 18  # of the network: n = (FEATURES + 2) * hidden

_BY_N = ((10**3, 1), (10**4, 1), (10**5, 1), (10**6, 1))


# tanh(A x): R^n -> R^m.


def tanh_layer(x: Any, matrix: Any) -> Any:
    """``tanh(A x)`` of x [n] and A [m, n]."""
    return ad.array_namespace(x).tanh(matrix @ x)


def _tanh_layer_answer(x: Vector, matrix: Vector) -> Answer:
    """J = diag(1 / cosh^2(A x)) A, never formed: n and m may be large."""
    x, matrix = np.asarray(x, float), np.asarray(matrix, float)
    z = matrix @ x
    slope = np.cosh(z) ** -2
    return Answer(np.tanh(z), lambda t: slope * (matrix @ t), lambda c: matrix.T @ (slope * c))


def _make_tanh_layer(n: int, m: int, rng: np.random.Generator) -> Instance:
    # Rows of variance 1/n keep tanh away from saturation at every n.
    matrix = rng.standard_normal((m, n)) / np.sqrt(n)
    return Instance(tanh_layer, (rng.standard_normal(n), matrix), _tanh_layer_answer)


# A chain of elementwise steps, summed: R^n -> R.


def chain(x: Any) -> Any:
    """The sum over the elements of cos(sin( ... cos(sin x))), `STEPS` steps."""
    xp = ad.array_namespace(x)
    for step in range(STEPS):
        x = xp.cos(x) if step % 2 else xp.sin(x)
    return xp.sum(x)


def _chain_answer(x: Vector) -> Answer:
    """By the chain rule: the slope of each step at its own input, multiplied up."""
    y = np.asarray(x, float)
    slope = np.ones_like(y)
    for step in range(STEPS):
        slope *= -np.sin(y) if step % 2 else np.cos(y)
        y = np.cos(y) if step % 2 else np.sin(y)
    return gradient_answer(np.sum(y), slope)


def _make_chain(n: int, m: int, rng: np.random.Generator) -> Instance:
    return Instance(chain, (rng.standard_normal(n),), _chain_answer)


# Rosenbrock's function in n variables, the chained form.


def rosenbrock(x: Any) -> Any:
    """sum_i 100 (x_{i+1} - x_i^2)^2 + (1 - x_i)^2 over i = 1 .. n - 1."""
    xp = ad.array_namespace(x)
    head, tail = x[:-1], x[1:]
    return xp.sum(100.0 * (tail - head * head) ** 2 + (1.0 - head) ** 2)


def _rosenbrock_answer(x: Vector) -> Answer:
    """With r_i = x_{i+1} - x_i^2: df/dx_i = -400 x_i r_i - 2 (1 - x_i) + 200 r_{i-1}."""
    x = np.asarray(x, float)
    residual = x[1:] - x[:-1] ** 2
    gradient = np.zeros_like(x)
    gradient[:-1] = -400 * x[:-1] * residual - 2 * (1 - x[:-1])
    gradient[1:] += 200 * residual
    return gradient_answer(100 * residual @ residual + np.sum((1 - x[:-1]) ** 2), gradient)


def _make_rosenbrock(n: int, m: int, rng: np.random.Generator) -> Instance:
    return Instance(rosenbrock, (rng.uniform(-2.0, 2.0, n),), _rosenbrock_answer)


# log sum exp, shifted by the largest element: R^n -> R.


def log_sum_exp(x: Any) -> Any:
    """log(sum(exp(x))) without overflow."""
    xp = ad.array_namespace(x)
    top = xp.max(x)
    return top + xp.log(xp.sum(xp.exp(x - top)))


def _log_sum_exp_answer(x: Vector) -> Answer:
    """The gradient is softmax(x)."""
    x = np.asarray(x, float)
    weights = np.exp(x - np.max(x))
    total = np.sum(weights)
    return gradient_answer(np.max(x) + np.log(total), weights / total)


def _make_log_sum_exp(n: int, m: int, rng: np.random.Generator) -> Instance:
    # Near 1000, exp(x) overflows. Spread by 4, the largest softmax stays near 0.1 at any n: the engine's rounding
    # of 1 - sum(softmax), which is what reaches that entry through the shift, is then small beside it.
    return Instance(log_sum_exp, (1000.0 + 4.0 * rng.standard_normal(n),), _log_sum_exp_answer)


# A network of two layers: n weights -> its loss.


def network_loss(weights: PyTree, inputs: Any, targets: Any) -> Any:
    """Mean over the batch of (tanh(X W + b) v - y)^2 / 2.

    Weights: a dict of W ``hidden`` [features, h], b ``bias`` [h] and v ``output`` [h].
    Inputs X [batch, features], targets y [batch].
    """
    xp = ad.array_namespace(weights["hidden"])
    active = xp.tanh(inputs @ weights["hidden"] + weights["bias"])
    return xp.mean((active @ weights["output"] - targets) ** 2) / 2.0


def _network_answer(weights: PyTree, inputs: Vector, targets: Vector) -> Answer:
    """Backpropagation by hand: with z = X W + b, a = tanh z, and r = (a v - y) / batch,

    df/dv = a^T r,  df/dz = (r v^T) / cosh^2 z,  df/dW = X^T df/dz,  df/db = the column sums of df/dz.
    """
    hidden, bias, output = (np.asarray(weights[name], float) for name in ("hidden", "bias", "output"))
    inputs, targets = np.asarray(inputs, float), np.asarray(targets, float)
    z = inputs @ hidden + bias
    error = np.tanh(z) @ output - targets
    residual = error / len(targets)
    dz = np.outer(residual, output) / np.cosh(z) ** 2
    gradient = {"hidden": inputs.T @ dz, "bias": np.sum(dz, axis=0), "output": np.tanh(z).T @ residual}
    return gradient_answer(error @ residual / 2, gradient)


def _make_network(n: int, m: int, rng: np.random.Generator) -> Instance:
    width = max(1, round(n / (FEATURES + 2)))
    weights = {
        "hidden": rng.standard_normal((FEATURES, width)) / np.sqrt(FEATURES),
        "bias": 0.1 * rng.standard_normal(width),
        "output": rng.standard_normal(width) / np.sqrt(width),
    }
    data = rng.standard_normal((BATCH, FEATURES)), rng.standard_normal(BATCH)
    return Instance(network_loss, (weights, *data), _network_answer)


TANH_LAYER = Problem(
    "tanh-layer",
    _make_tanh_layer,
    # A cross: n varies at m = 30, m varies at n = 30.
    sizes=((10, 30), (30, 30), (100, 30), (300, 30), (30, 10), (30, 100), (30, 300)),
    free="nm",
    operators=("value", "vjp", "jvp", "jacobian-forward", "jacobian-reverse"),
)
CHAIN = Problem("chain", _make_chain, sizes=((10**3, 1), (10**4, 1), (10**5, 1), (3 * 10**5, 1)), free="n")
ROSENBROCK = Problem(
    "rosenbrock",
    _make_rosenbrock,
    sizes=_BY_N,
    free="n",
    source="H. H. Rosenbrock, An automatic method for finding the greatest or least value of a function, "
    "Computer Journal 3 (1960); the chained form in n variables",
)
LOG_SUM_EXP = Problem("log-sum-exp", _make_log_sum_exp, sizes=_BY_N, free="n")
NETWORK = Problem("network", _make_network, sizes=((10**4, 1), (3 * 10**5, 1), (10**6, 1), (3 * 10**6, 1)), free="n")

SUITE = Suite(
    "scaling",
    (TANH_LAYER, CHAIN, ROSENBROCK, LOG_SUM_EXP, NETWORK),
    "cost as it grows with the inputs n and the outputs m",
)
