"""Gradients, pushforwards and Jacobians of the suites' problems, by backend and size.

Timed as the runner does: prepared, on the engine's own arrays, outputs synchronised.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import optree

from adbridge import get_backend, grad, jacobian, prepare
from adbridge.bench.problem import Problem
from adbridge.operators import Operator
from adbridge.registry import default_names
from adbridge.suites import adbench, scaling, textbook

BACKENDS = default_names()  # the installed engines


class _Call:
    """A prepared operator and the engine arrays to call it on. Called once here: the first call is apart."""

    def __init__(self, operator: Operator, *args: Any) -> None:
        self.backend = get_backend(operator.backend or "reference")
        self.prepared = prepare(operator, *args)
        self.arrays = self.prepared.arrays(*args)
        self()

    def __call__(self) -> None:
        with self.prepared.scope():
            self.backend.synchronize(optree.tree_leaves(self.prepared.run(*self.arrays)))

    def peak_bytes(self) -> int:
        with self.prepared.scope():
            return self.backend.peak_alloc(self.prepared.compiled, self.arrays)[0]


class _Scalar:
    """A family of functions R^n -> R."""

    problem: ClassVar[Problem]
    params: ClassVar[tuple[list[str], list[int]]]
    param_names = ("backend", "n")
    timeout = 120.0

    def setup(self, backend: str, n: int) -> None:
        instance = self.problem.instance(n, 1)
        tangent = optree.tree_map(np.ones_like, instance.args[0])
        self.grad = _Call(grad(instance.fun, backend=backend), *instance.args)
        self.jvp = _Call(Operator("jvp", instance.fun, backend=backend), instance.args, (tangent,))

    def time_grad(self, backend: str, n: int) -> None:
        self.grad()

    def time_jvp(self, backend: str, n: int) -> None:
        self.jvp()

    def track_grad_bytes(self, backend: str, n: int) -> int:
        return self.grad.peak_bytes()


class Small(_Scalar):
    """Two inputs: the time is that of the calls themselves."""

    problem = textbook.SUITE.problem("survey")
    params = (BACKENDS, [2])


class Chain(_Scalar):
    problem = scaling.CHAIN
    params = (BACKENDS, [10**3, 10**5])


class Rosenbrock(_Scalar):
    problem = scaling.ROSENBROCK
    params = (BACKENDS, [10**3, 10**5])


class LogSumExp(_Scalar):
    problem = scaling.LOG_SUM_EXP
    params = (BACKENDS, [10**3, 10**5])


class Network(_Scalar):
    problem = scaling.NETWORK
    params = (BACKENDS, [10**3, 10**5])


class Gmm(_Scalar):
    problem = adbench.GMM
    params = (BACKENDS, [330, 1650])


class TanhLayer:
    """Dense Jacobians of R^n -> R^m, n != m, in either mode."""

    params: ClassVar[tuple[list[str], list[tuple[int, int]]]] = (BACKENDS, [(30, 30), (300, 30), (30, 300)])
    param_names = ("backend", "size")
    timeout = 120.0

    def setup(self, backend: str, size: tuple[int, int]) -> None:
        instance = scaling.TANH_LAYER.instance(*size)
        self.forward = _Call(jacobian(instance.fun, mode="forward", backend=backend), *instance.args)
        self.reverse = _Call(jacobian(instance.fun, mode="reverse", backend=backend), *instance.args)

    def time_jacobian_forward(self, backend: str, size: tuple[int, int]) -> None:
        self.forward()

    def time_jacobian_reverse(self, backend: str, size: tuple[int, int]) -> None:
        self.reverse()

    def track_jacobian_reverse_bytes(self, backend: str, size: tuple[int, int]) -> int:
        return self.reverse.peak_bytes()


for _class, _track in ((_Scalar, "track_grad_bytes"), (TanhLayer, "track_jacobian_reverse_bytes")):
    getattr(_class, _track).unit = "bytes"
