"""Arrays with an error bound: what the referee returns."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


class Bounded(np.ndarray[Any, np.dtype[Any]]):
    """A NumPy array of the nearest floats, with a bound on their distance from the exact values.

    `exact` are the referee's own numbers, an object array of Arb balls (`flint.arb`; `flint.acb` if complex) of the
    same shape, or None where it had to work in floats. `error` bounds ``|exact - self|`` entry by entry (for what
    was computed from differences, an estimate). Arithmetic gives plain arrays' values, without bounds.
    """

    exact: npt.NDArray[Any] | None
    error: npt.NDArray[np.float64] | None

    def __new__(cls, values: Any, error: Any, exact: Any = None) -> Bounded:
        self = np.asarray(values).view(cls)
        self.error = np.broadcast_to(np.asarray(error, float), self.shape)
        self.exact = exact
        return self

    def __array_finalize__(self, obj: Any) -> None:
        self.error = self.exact = None  # of what NumPy makes of it, nobody knows the error

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        if self.error is None or not isinstance(part, Bounded):
            return part
        part.error = self.error[key]
        part.exact = None if self.exact is None else np.asarray(self.exact[key], object)
        return part

    def digits(self, count: int = 30) -> Any:
        """The exact values as decimal text to `count` digits, in an array of strings; of a scalar, its string.

        Raises ValueError: there are no exact values, the referee worked in floats.
        """
        if self.exact is None:
            raise ValueError("these values were computed in floats, by differences: they have no more digits")
        shown = np.vectorize(lambda ball: ball.str(count, radius=False), otypes=[object])(self.exact)
        return shown.item() if self.shape == () else shown

    def __reduce__(self) -> Any:
        return Bounded, (np.array(self), np.array(self.error), None)
