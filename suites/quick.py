"""The small selection that a newcomer runs first: some of every suite, in a minute."""

from __future__ import annotations

from dataclasses import replace

from adbridge.bench.problem import Problem, Suite
from adbridge.suites import adbench, elementary, scaling, textbook


def _pick(suite: Suite, *names: str) -> list[Problem]:
    """Problems of a suite at their first default size."""
    return [replace(problem, sizes=problem.sizes[:1]) for problem in map(suite.problem, names)]


SUITE = Suite(
    "quick",
    (
        *_pick(textbook.SUITE, "cubic", "survey", "complex-step-second", "two-outputs"),
        *_pick(elementary.SUITE, "tanh", "divide-broadcast", "take", "matmul"),
        # A cross: n varies at m = 25, m varies at n = 25.
        replace(scaling.TANH_LAYER, sizes=((25, 25), (150, 25), (900, 25), (25, 150), (25, 900))),
        # Large enough that the time is that of the elements.
        replace(scaling.CHAIN, sizes=((10_000, 1), (50_000, 1), (200_000, 1))),
        replace(scaling.NETWORK, sizes=((300_000, 1), (1_000_000, 1), (3_000_000, 1))),
        replace(scaling.LOG_SUM_EXP, sizes=((100_000, 1),)),
        replace(adbench.GMM, sizes=adbench.GMM.sizes[:1]),
    ),
    "a little of everything, in a minute: the first run",
)
