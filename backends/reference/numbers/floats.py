"""Programs over float32, float64 and longdouble: NumPy's own functions, with operands and results in one precision."""

from __future__ import annotations

from typing import Any

import numpy as np

from adbridge.backends.reference.primitives import CONSTANTS, Var
from adbridge.backends.reference.program import Equation, Program
from adbridge.errors import CapabilityError

# The named constants as NumPy computes them in a dtype.
NAMED: dict[str, Any] = {
    "ln 2": lambda one: np.log(2 * one),
    "ln 10": lambda one: np.log(10 * one),
    "2/sqrt(pi)": lambda one: 1 / np.sqrt(np.arctan(one)),
    "sqrt(pi)/2": lambda one: np.sqrt(np.arctan(one)),
    "sqrt(2 pi)": lambda one: np.sqrt(8 * np.arctan(one)),
    "1/sqrt(2 pi)": lambda one: 1 / np.sqrt(8 * np.arctan(one)),
    "sqrt(2/pi)": lambda one: 1 / np.sqrt(2 * np.arctan(one)),
    "sqrt(1/2)": lambda one: np.sqrt(one / 2),
}


def evaluate(program: Program, args: tuple[Any, ...], dtype: Any) -> tuple[Any, ...]:
    """Every floating or complex value is in `dtype`'s precision; so are the dtypes in parameters."""
    values: list[Any] = [None] * program.size

    def value_of(x: Any) -> Any:
        return values[x.index] if type(x) is Var else in_precision(x, dtype)

    for var, arg in zip(program.inputs, args, strict=True):
        values[var.index] = in_precision(np.asarray(arg), dtype)
    for eq in program.equations:
        values[eq.output.index] = _step(eq, [value_of(x) for x in eq.inputs], dtype)
    return tuple(map(value_of, program.outputs))


def in_precision(x: Any, dtype: Any) -> Any:
    """An array or number cast, if it is floating or complex; Python's numbers stay weak, unless they have a name."""
    if isinstance(x, tuple):
        return tuple(in_precision(part, dtype) for part in x)
    if isinstance(x, float) and id(x) in CONSTANTS:
        named = NAMED.get(CONSTANTS[id(x)])
        return named(dtype.type(1)) if named else dtype.type(x)
    if not hasattr(x, "dtype") or x.dtype.kind not in "fc":
        return x
    return x.astype(_matching(x.dtype, dtype))


def _matching(asked: Any, dtype: Any) -> Any:
    return np.result_type(dtype, np.complex64) if asked.kind == "c" else dtype


def _step(eq: Equation, operands: list[Any], dtype: Any) -> Any:
    params = dict(eq.params)
    if "dtype" in params and np.dtype(params["dtype"]).kind in "fc":
        params["dtype"] = _matching(np.dtype(params["dtype"]), dtype)
    try:
        result = eq.primitive.impl(*operands, **params)
    except (TypeError, ValueError) as exc:
        raise _refusal(eq, dtype, str(exc)) from exc
    if any(_is_coarser(x, dtype) for x in (result if isinstance(result, tuple) else (result,))):
        raise _refusal(eq, dtype, "its NumPy implementation computes in a lower precision")
    return in_precision(result, dtype)


def _is_coarser(x: Any, dtype: Any) -> bool:
    """Whether x lost digits on its way; masks and counts lose none."""
    if x.dtype.kind not in "fc" or np.finfo(x.dtype).eps <= np.finfo(dtype).eps:
        return False
    return not np.all(x == np.rint(x.real))


def _refusal(eq: Equation, dtype: Any, why: str) -> CapabilityError:
    return CapabilityError(
        f"the reference engine's {eq.primitive.name} does not run over {dtype}: {why}; "
        'number="arb" has more digits still'
    )
