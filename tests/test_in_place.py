"""Writes to tracers: ``x[i] = v`` and ``x += v``, through views too, give what NumPy gives, and its derivative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import adbridge as ad

B = "reference"
X = np.arange(1.0, 13.0).reshape(3, 4) / 7
OTHER = np.linspace(-1.0, 2.0, 4)


def write(x: Any) -> Any:
    x = x * 1.0
    x[1] = x[0] * x[2]
    return x


def write_number(x: Any) -> Any:
    y = x * x
    y[:, 1] = 3.0
    return y


def write_twice(x: Any) -> Any:
    y = x * x
    y[0, 0] = x[1, 1] ** 3
    y[0, 0] = y[0, 0] * x[2, 2]
    return y


def add_to_part(x: Any) -> Any:
    y = x * 1.0
    y[1:] += x[:2] ** 2
    y[..., -1] *= x[..., 0]
    return y


def through_a_view(x: Any) -> Any:
    y = x * 1.0
    row = y[1]
    row[2] = x[0, 0] ** 2
    row *= 3.0
    return y


def a_view_sees_the_write(x: Any) -> Any:
    y = x * 1.0
    row = y[1]
    y[1, 2] = x[0, 0] ** 2
    return row * x[2]


def view_of_a_view(x: Any) -> Any:
    y = x * 1.0
    inner = y[1:][0][1:3]
    inner += x[0, :2] ** 2
    y[1, 1] *= 2.0
    return y * inner[0]


def siblings(x: Any) -> Any:
    y = x * 1.0
    first, second = y[:2], y[1:]
    first[1] = x[2] ** 2
    second[0] *= x[0]
    return y * np.sum(first * first)


def transposed(x: Any) -> Any:
    y = x * 1.0
    z = y.T
    z[1] = x[:, 0] ** 2
    y[2] *= 2.0
    return y + z.T


def reshaped(x: Any) -> Any:
    y = x * 1.0
    flat = y.reshape(-1)
    flat[5] = x[0, 0] ** 2
    y[2, 3] = x[1, 1] ** 3
    return y * flat[11]


def a_reshaped_copy(x: Any) -> Any:
    y = x * 1.0
    flat = y.T.reshape(-1)  # a copy
    flat[5] = x[0, 0] ** 2
    y[0, 0] = 7.0
    return y * flat[5] + flat[0]


def by_index_array(x: Any) -> Any:
    y = x * 1.0
    y[[0, 2]] = x[[1, 1]] ** 2
    return y


def an_index_twice(x: Any) -> Any:
    y = x * 1.0
    y[[0, 0, 1], [1, 1, 2]] = x[2, :3] ** 2  # the last of two writes to one place holds
    return y


def by_mask(x: Any) -> Any:
    y = x * 1.0
    y[x > 0.8] = x[0, 0] ** 2
    return y


def an_advanced_copy(x: Any) -> Any:
    y = x * 1.0
    z = y[[0, 1]]
    z[0] = x[2]
    return y + np.sum(z)


def aliases(x: Any) -> Any:
    y = x * 1.0
    z = y
    z += x**2
    return y * z


def rows(x: Any) -> Any:
    y = x * 1.0
    for i, row in enumerate(y):
        row += x[i] * i
    return y


def scalars(x: Any) -> Any:
    total = x[0, 0]
    kept = total
    total += x[1, 1] ** 2  # a scalar: replaced
    return total * kept * x


def loop(x: Any) -> Any:
    y = np.zeros_like(x)
    y[0] = x[0]
    for i in range(1, 3):
        y[i] = np.sin(y[i - 1]) * x[i]
    return y


def into_zeros_like(x: Any) -> Any:
    out = np.zeros(4, x.dtype, like=x)
    out[1:3] = x[0, :2] ** 2
    return out * x


CASES: list[Callable[[Any], Any]] = [
    write,
    write_number,
    write_twice,
    add_to_part,
    through_a_view,
    a_view_sees_the_write,
    view_of_a_view,
    siblings,
    transposed,
    reshaped,
    a_reshaped_copy,
    by_index_array,
    an_index_twice,
    by_mask,
    an_advanced_copy,
    aliases,
    rows,
    scalars,
    loop,
    into_zeros_like,
]


def complex_step(fun: Any, x: np.ndarray, t: np.ndarray) -> np.ndarray:
    """J t without subtraction (W. Squire and G. Trapp, SIAM Review 40(1), 1998): plain NumPy, in place writes and all.

    Where a function takes a mask or an order of x, its real part has to decide.
    """
    h = 1e-30

    class Step(np.ndarray):
        def __gt__(self, other: Any) -> Any:
            return np.asarray(self).real > other

    return np.asarray(fun((x + 1j * h * t).view(Step))).imag / h


@pytest.mark.parametrize("fun", CASES, ids=lambda f: f.__name__)
def test_writes_are_numpys_and_differentiate(fun: Callable[[Any], Any]) -> None:
    rng = np.random.default_rng(0)
    t = rng.standard_normal(X.shape)
    out, pushed = ad.jvp(fun, (X,), (t,), backend=B)
    np.testing.assert_array_equal(out, fun(X.copy()))
    expected = complex_step(fun, X, t)
    np.testing.assert_allclose(pushed, expected, rtol=1e-13, atol=1e-15)
    w = rng.standard_normal(out.shape)
    (pulled,) = ad.vjp(fun, X, backend=B)[1](w)
    np.testing.assert_allclose(np.sum(pulled * t), np.sum(w * expected), rtol=1e-12)


@pytest.mark.parametrize("fun", CASES, ids=lambda f: f.__name__)
def test_writes_to_second_order(fun: Callable[[Any], Any]) -> None:
    def gradient(x: Any) -> Any:
        return ad.grad(lambda x: np.sum(fun(x) ** 2), backend=B)(x)

    t = np.random.default_rng(1).standard_normal(X.shape)
    h = 1e-5
    slopes = [(gradient(X + s * h * t) - gradient(X - s * h * t)) / (2 * s * h) for s in (1, 2)]
    # One step of Richardson's extrapolation: O(h^4), and 1e-16 / 1e-5 of rounding.
    expected = (4 * slopes[0] - slopes[1]) / 3
    for mode in ("forward-over-reverse", "reverse-over-forward", "reverse-over-reverse"):
        (got,) = ad.hvp(lambda x: np.sum(fun(x) ** 2), (X,), (t,), mode=mode, backend=B)
        np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-8)


def test_the_callers_array_stays_as_it_is() -> None:
    x = X.copy()

    def fun(x: Any) -> Any:
        x[0] = 0.0
        return np.sum(x * x)

    np.testing.assert_array_equal(ad.grad(fun, backend=B)(x)[0], np.zeros(4))
    np.testing.assert_array_equal(x, X)


def test_an_inner_derivative_writes_into_an_outer_array() -> None:
    def fun(x: Any) -> Any:
        def inner(y: Any) -> Any:
            z = x * 1.0
            z[0] = y * y
            return np.sum(z * x)

        return ad.grad(inner, backend=B)(x[1])  # 2 x1 x0

    np.testing.assert_allclose(ad.grad(fun, backend=B)(np.array([3.0, 5.0])), [10.0, 6.0])


def test_adding_to_a_part_writes_once() -> None:
    """``y[1:] += z`` writes to y[1:], and then assigns it to itself."""

    def fun(x: Any) -> Any:
        y = x * 1.0
        y[1:] += x[:-1]
        return y

    written = [eq for eq in ad.trace(fun, np.arange(4.0)).equations if eq.primitive.name == "set_at"]
    assert len(written) == 1


def test_a_part_assigned_to_itself_after_another_write() -> None:
    def fun(x: Any) -> Any:
        y = x * 1.0
        part = y[1:]
        y[:2] = 0.0  # part[0] is 0, too
        y[1:] = part
        y[:-1] = part
        return np.sum(y * y)

    np.testing.assert_array_equal(ad.grad(fun, backend=B)(np.array([1.0, 2.0, 3.0])), [0.0, 0.0, 12.0])


def test_what_cannot_be_written() -> None:
    def shape(x: Any) -> Any:
        y = x[0] * 1.0
        y += x
        return np.sum(y)

    with pytest.raises(ad.NotDifferentiable, match=r"cannot write float64\[3,4\] into float64\[4\] in place"):
        ad.grad(shape, backend=B)(X)
    with pytest.raises(ValueError, match="broadcast"):
        ad.grad(lambda x: x.__setitem__(0, x), backend=B)(X)

    def leak(x: Any) -> Any:
        kept = x * 1.0

        def inner(y: Any) -> Any:
            kept[0] = y
            return np.sum(kept)

        ad.grad(inner, backend=B)(x[0])
        return np.sum(kept)

    with pytest.raises(ad.NotDifferentiable, match="leaked"):
        ad.grad(leak, backend=B)(np.ones(3))
