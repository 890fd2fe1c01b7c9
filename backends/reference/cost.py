"""What one run of a program costs, counted: the same on every machine.

Elementwise operations count one per element of the result; a matrix product (m, k) by (k, n) counts m n k
multiplications and as many additions; factorisations by the leading terms of G. H. Golub, C. F. Van Loan, Matrix
Computations, 4th ed., Johns Hopkins (2013), half of them multiplications. Reshaped, transposed, broadcast and
sliced arrays are views: no operation, no byte. Else a step reads its operands and writes its result.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from adbridge.backends.reference.primitives import Var
from adbridge.backends.reference.program import Equation, Program


@dataclass(frozen=True)
class Cost:
    """Counts of one run. `other` are comparisons, selections, roundings, signs and extrema; `sweeps` the forward and
    reverse passes through the function that was traced."""

    equations: int
    sweeps: int
    additions: int
    multiplications: int
    divisions: int
    transcendental: int
    other: int
    bytes_read: int
    bytes_written: int

    @property
    def operations(self) -> int:
        """All of them, each counted as one."""
        return self.additions + self.multiplications + self.divisions + self.transcendental + self.other

    def to_dict(self) -> dict[str, int]:
        """The counts by name, `operations` among them."""
        return {**asdict(self), "operations": self.operations}

    def __str__(self) -> str:
        kinds = ("additions", "multiplications", "divisions", "transcendental", "other")
        counted = ", ".join(f"{getattr(self, kind)} {kind}" for kind in kinds if getattr(self, kind))
        sweeps = f"{self.sweeps} sweep{'s' * (self.sweeps != 1)}"
        return (
            f"{self.operations} operations ({counted or 'none'}) in {self.equations} equations, {sweeps}; "
            f"{self.bytes_read} bytes read, {self.bytes_written} written"
        )


def cost(program: Program) -> Cost:
    """The counts of one run of the program.

    >>> from adbridge import array_namespace, trace
    >>> program = trace(lambda x: array_namespace(x).sin(x) * x, 2.0)
    >>> print(program.cost())
    2 operations (1 multiplications, 1 transcendental) in 2 equations, 1 sweep; 24 bytes read, 16 written
    """
    counts: Counter[str] = Counter()
    for eq in program.equations:
        counts.update(_operations(eq))
        if not _is_view(eq):
            counts["bytes_read"] += sum(_bytes(x) for x in eq.inputs)
            counts["bytes_written"] += _bytes(eq.output)
    sweeps = 1 if program.run is None else program.run.sweeps
    kinds = ("additions", "multiplications", "divisions", "transcendental", "other", "bytes_read", "bytes_written")
    return Cost(len(program.equations), sweeps, *(counts[kind] for kind in kinds))


def _operations(eq: Equation) -> dict[str, int]:
    name, size = eq.primitive.name, _size(eq.output)
    if name in _KIND:
        return {_KIND[name]: size}
    if name in _COUNTED:
        return _COUNTED[name](eq)
    if name in _MOVES:
        return {}
    if name in _FACTORISATIONS and eq.inputs:
        half = round(_flops(_FACTORISATIONS[name], eq.inputs[0].shape) / 2)
        return {"additions": half, "multiplications": half}
    return {"transcendental" if eq.primitive.partials is not None else "other": size}


def _kinds(kind: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(names, kind)


_KIND = {
    **_kinds("additions", "add", "subtract"),
    **_kinds("multiplications", "multiply", "square"),
    **_kinds("divisions", "divide", "reciprocal", "floor_divide", "remainder"),
    **_kinds("other", "negative", "abs", "sign", "maximum", "minimum", "copysign", "where"),
}
_VIEWS = frozenset({"broadcast_to", "reshape", "permute_dims", "pick", "real", "imag"})
_MOVES = frozenset(
    {*_VIEWS, "astype", "getitem", "set_at", "clear_at", "concat", "conj", "take_along_axis", "last_writes"}
)


def _is_view(eq: Equation) -> bool:
    return eq.primitive.name in _VIEWS or (eq.primitive.name == "getitem" and len(eq.inputs) == 1)


def _matmul(eq: Equation) -> dict[str, int]:
    count = _size(eq.output) * eq.inputs[0].shape[-1]
    return {"additions": count, "multiplications": count}


def _reduced(kind: str) -> Callable[[Equation], dict[str, int]]:
    return lambda eq: {kind: max(_size(eq.inputs[0]) - _size(eq.output), 0)}


def _power(eq: Equation) -> dict[str, int]:
    """A small whole power is multiplications."""
    exponent = eq.inputs[1]
    if type(exponent) is Var or np.shape(exponent) or exponent not in (1, 2, 3, 4):
        return {"transcendental": _size(eq.output)}
    return {"multiplications": _size(eq.output) * {1: 0, 2: 1, 3: 2, 4: 2}[int(exponent)]}


_COUNTED: dict[str, Callable[[Equation], dict[str, int]]] = {
    "matmul": _matmul,
    "pow": _power,
    "sum": _reduced("additions"),
    "prod": _reduced("multiplications"),
    "cumulative_sum": lambda eq: {"additions": _size(eq.output)},
    "cumulative_prod": lambda eq: {"multiplications": _size(eq.output)},
    "add_at": lambda eq: {"additions": _size(eq.inputs[1])},
    **{name: _reduced("other") for name in ("max", "min", "any", "all", "argmax", "argmin")},
}
# Floating-point operations, over n^3.
_FACTORISATIONS = {
    "cholesky": 1 / 3,
    "det": 2 / 3,
    "slogdet": 2 / 3,
    "solve": 8 / 3,
    "inv": 2.0,
    "qr": 4 / 3,
    "eigh": 9.0,
    "eigvalsh": 4 / 3,
    "svd": 21.0,
    "svdvals": 8 / 3,
    "pinv": 21.0,
}


def _flops(over_cube: float, shape: tuple[int, ...]) -> float:
    *batch, m, n = shape if len(shape) > 1 else (1, *shape)
    return over_cube * math.prod(batch) * m * n * min(m, n)


def _size(x: Any) -> int:
    if type(x) is Var and x.dtype is None:
        return 0  # several results: counted as they are taken out
    return math.prod(np.shape(x) if type(x) is not Var else x.shape)


def _bytes(x: Any) -> int:
    if type(x) is Var:
        return 0 if x.dtype is None else _size(x) * int(x.dtype.itemsize)
    return int(x.nbytes) if isinstance(x, (np.ndarray, np.generic)) else 0
