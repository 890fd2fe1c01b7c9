"""The table of kinks is what the engine does."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special  # noqa: F401  # the table's functions use it

import adbridge as ad
from adbridge.backends.reference.kinks import KINKS, Kink, markdown

VARIANTS = ("at once", "prepared", "jvp")


@pytest.mark.parametrize("how", VARIANTS)
@pytest.mark.parametrize("row", KINKS, ids=lambda row: f"{row.function} at {row.at}")
def test_gradient(row: Kink, how: str) -> None:
    x, expected = eval(row.at), eval(row.gradient)
    with np.errstate(all="ignore"):
        if isinstance(expected, type):
            with pytest.raises(expected):
                gradient(row, x, how)
        else:
            forward = np.where(np.isnan(expected), 0.0, expected)
            np.testing.assert_allclose(gradient(row, x, how), forward if how == "jvp" else expected, rtol=1e-15)


def gradient(row: Kink, x: object, how: str) -> object:
    fun = eval(f"lambda x: {row.function}")
    operator = ad.grad(fun, backend="reference")
    if how == "at once":
        return operator(x)
    if how == "prepared":
        return ad.prepare(operator, x)(x)
    tangents = [ad.jvp(fun, (x,), (seed,), backend="reference")[1] for seed in seeds(x)]
    return np.reshape(tangents, np.shape(x))


def seeds(x: object) -> list[object]:
    return [1.0] if isinstance(x, float) else list(np.eye(np.size(x)).reshape(-1, *np.shape(x)))


def test_markdown_has_every_row() -> None:
    assert len(markdown().splitlines()) == len(KINKS) + 2
