"""Running a Program over other number types: float32, float64, longdouble, and Arb balls of any precision.

- `floats.py`       NumPy's floating dtypes         - `conversions.py`     numbers as Arb balls, and back
- `decisions.py`    comparisons of balls, and ties  - `balls.py`           elementwise functions, a row each
- `scalars.py`      arithmetic, powers and kinks    - `special.py`         error and gamma functions
- `arrays.py`       sums, sorting, indexing         - `matrices.py`        linear algebra, Fourier transforms
- `decompositions.py`  eigenvalues and singular values, repeated ones too

A program's constants are their exact binary values, but for those that `primitives.constant` names, such as
"ln 2", which are exact (to the working precision). An Arb ball encloses the exact result; nothing is rounded
to a dtype, so that a cast between floating dtypes does nothing there, and a float32 program in Arb is what its
formulas say, not what float32 makes of them. Comparisons, floors and sorts are certain, or raise `Undecided`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from adbridge.backends.reference.program import Program
from adbridge.errors import AdbridgeError, CapabilityError

NUMBERS = ("float32", "float64", "longdouble", "arb")


class Undecided(AdbridgeError, ArithmeticError):
    """A question whose answer the balls do not determine: more bits may, unless the two sides are equal."""

    def __init__(self, question: str, *operands: Any, bits: int) -> None:
        super().__init__(
            f"{question} is not decided at {bits} bits; raise bits=..., or move the point off the tie or the jump"
        )
        self.question = question
        self.operands = operands
        self.bits = bits


def evaluate_in(program: Program, args: tuple[Any, ...], number: str = "arb", bits: int = 256) -> tuple[Any, ...]:
    """The outputs of a program run over another number type.

    Args:
        args: an array for each input; for "arb", of floats (taken exactly) or of Arb numbers (dtype object).
        number: one of `NUMBERS`.
        bits: Arb's working precision; the result says how many of them are right.

    Returns:
        Arrays of the number's dtype; for "arb", object arrays of `flint.arb`, or `flint.acb` where complex.

    Raises:
        CapabilityError: a primitive does not run over this number type; or python-flint is not installed.
        Undecided: a comparison that needs more bits.

    >>> from adbridge.backends.reference.rules.elementwise import sqrt
    >>> from adbridge.backends.reference.transforms import record
    >>> program = record(lambda x: (sqrt(x),), np.array(2.0))
    >>> (root,) = evaluate_in(program, (np.array(2.0),), bits=140)
    >>> print(root.item().str(40, radius=False))
    1.414213562373095048801688724209698078570
    """
    if number not in NUMBERS:
        raise CapabilityError(f"no number type {number!r}; there are: {', '.join(NUMBERS)}")
    if number != "arb":
        from adbridge.backends.reference.numbers import floats

        return floats.evaluate(program, args, np.dtype(number))
    _need_flint()
    from adbridge.backends.reference.numbers import arrays
    from adbridge.backends.reference.numbers.conversions import working_precision

    with working_precision(bits):
        return arrays.evaluate(program, args)


def rounded(array: Any, dtype: Any = np.float64) -> Any:
    """An array of balls as floats: their midpoints, to the nearest."""
    from adbridge.backends.reference.numbers import conversions

    return conversions.rounded(array, dtype)


def has_arb(name: str) -> bool:
    """Whether the primitive of this name runs over Arb balls."""
    _need_flint()
    from adbridge.backends.reference.numbers import arrays

    return arrays.implementation_of(name) is not None


def _need_flint() -> None:
    try:
        import flint  # noqa: F401
    except ImportError as exc:
        raise CapabilityError("Arb balls need python-flint; run: pip install 'adbridge[arb]'") from exc
