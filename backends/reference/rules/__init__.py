"""The rule tables: every primitive of the reference engine, a row each. Importing this fills `PRIMITIVES`."""

from adbridge.backends.reference.rules import (
    decompositions,
    elementwise,
    fourier,
    linalg,
    numeric,
    reductions,
    shaping,
    sorting,
    special,
)

__all__ = [
    "decompositions",
    "elementwise",
    "fourier",
    "linalg",
    "numeric",
    "reductions",
    "shaping",
    "sorting",
    "special",
]
