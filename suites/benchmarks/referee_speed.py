"""How long the referee takes: ``python -m adbridge.suites.benchmarks.referee_speed``.

A directional derivative of a chain of 20 sines and cosines with 100 inputs to 30 digits, and gradients and a
Hessian-vector product of problems with 20 inputs. The minimum of several runs, each from a fresh referee.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

import adbridge as ad

REPEATS = 5


def chain(x: Any) -> Any:
    """Ten times sin, then cos: nonlinear enough that every digit has to be computed."""
    xp = ad.array_namespace(x)
    for _ in range(10):
        x = xp.cos(1.5 * xp.sin(x)) + 0.1 * x
    return xp.sum(x)


def rosenbrock(x: Any) -> Any:
    """J. J. Moré, B. S. Garbow, K. E. Hillstrom, ACM Trans. Math. Softw. 7 (1981), problem 21."""
    return ad.array_namespace(x).sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def quadratic(x: Any) -> Any:
    """Of a Hilbert matrix, by way of solve: linear algebra in Arb arithmetic."""
    xp = ad.array_namespace(x)
    n = x.shape[0]
    hilbert = 1.0 / (np.arange(n)[:, None] + np.arange(n) + 1.0) + np.eye(n)
    return xp.sum(x * xp.linalg.solve(xp.asarray(hilbert), x))


def rows() -> list[tuple[str, Callable[[], Any], float | None]]:
    """What is timed, and the figure to stay below, in seconds."""
    many, few = np.linspace(0.1, 2, 100), np.linspace(0.1, 2, 20)
    return [
        ("chain, n=100, directional derivative", lambda: ad.referee(chain, many).jvp(np.ones(100)), 0.5),
        ("chain, n=20, gradient", lambda: ad.referee(chain, few).grad(), 1.0),
        ("Rosenbrock, n=20, gradient", lambda: ad.referee(rosenbrock, few).grad(), 1.0),
        ("x' H^-1 x, n=20, gradient", lambda: ad.referee(quadratic, few).grad(), 1.0),
        ("chain, n=20, Hessian-vector product", lambda: ad.referee(chain, few).hvp((np.ones(20),))[0], None),
    ]


def main() -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("what", "seconds", "wanted below", "certain digits", title="the referee")
    for name, compute, wanted in rows():
        seconds, result = _timed(compute)
        digits = min(ball.rel_accuracy_bits() for ball in result.exact.flat) * np.log10(2)
        table.add_row(name, f"{seconds:.3f}", "" if wanted is None else f"{wanted}", f"{digits:.0f}")
    Console().print(table)


def _timed(compute: Callable[[], Any]) -> tuple[float, Any]:
    best, result = float("inf"), None
    for _ in range(REPEATS):
        start = time.perf_counter()
        result = compute()
        best = min(best, time.perf_counter() - start)
    return best, result


if __name__ == "__main__":
    main()
