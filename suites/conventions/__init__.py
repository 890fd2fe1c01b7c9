"""Special points where engines differ, trap their users, or have been wrong; each with every right answer.

- `kinks`     ties, borders, jumps; smooth sums of kinks      - `traps`     0 times infinity; infinite slopes
- `tails`     digits lost or overflown                        - `edges`     powers of 0, indices, shapes, dtypes
- `matrices`  lost rank, repeated values                      - `orders`    second to fourth derivatives

The points come from users' reports, named as threads, and from what an expert would try next; the functions are
written in the portable namespace, so that each engine's own implementation is what is asked. Run them with
``adbridge check conventions``.
"""

from __future__ import annotations

from adbridge.bench.problem import Suite
from adbridge.suites.conventions import edges, kinks, matrices, orders, tails, traps

SUITE = Suite(
    "conventions",
    (*kinks.CASES, *traps.CASES, *tails.CASES, *edges.CASES, *matrices.CASES, *orders.CASES),
    "special points with every right answer: conventions, traps and known defects of the engines",
)
