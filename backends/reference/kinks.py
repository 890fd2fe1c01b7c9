"""The gradients where a function has a kink, a tie, a pole or no unique derivative: one convention, in one table.

``python -m adbridge.backends.reference.kinks`` prints it in Markdown; the tests run every row. The convention:
of the slopes to the two sides the mean, shared evenly among those that tie; 0 where symmetry leaves no direction;
at a pole, what IEEE arithmetic says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields


@dataclass(frozen=True)
class Kink:
    """A row: Python expressions of a function of x, of a point, and of the gradient there (or the error).

    Forward mode gives the same, and 0 where reverse mode gives nan.
    """

    function: str
    at: str
    gradient: str
    why: str


KINKS = (
    Kink("np.abs(x)", "0.0", "0.0", "the mean of -1 and 1"),
    Kink("np.where(x > 0, x, 0.0)", "0.0", "0.0", "relu: the branch that is taken"),
    Kink("np.maximum(x, 0.0)", "0.0", "0.5", "relu by a tie: the mean of 0 and 1"),
    Kink("np.clip(x, 0.0, 1.0)", "1.0", "0.5", "a tie with the bound"),
    Kink("np.max(x)", "np.array([1.0, 3.0, 3.0])", "[0.0, 0.5, 0.5]", "ties share evenly"),
    Kink("np.min(x)", "np.array([1.0, 1.0, 1.0, 3.0])", "[1 / 3, 1 / 3, 1 / 3, 0.0]", "ties share evenly"),
    Kink("np.linalg.norm(x, np.inf)", "np.array([2.0, -2.0])", "[0.5, -0.5]", "ties share evenly"),
    Kink("np.sort(x)[0]", "np.array([1.0, 1.0])", "[1.0, 0.0]", "the sort is stable: the first one stays first"),
    Kink("np.median(x)", "np.array([1.0, 1.0, 2.0])", "[0.0, 1.0, 0.0]", "as sort"),
    Kink("np.sign(x)", "0.0", "0.0", "piecewise constant"),
    Kink("np.floor(x)", "2.0", "0.0", "piecewise constant; so are ceil, trunc, round and //"),
    Kink("x % 2.0", "4.0", "1.0", "the jump does not count"),
    Kink("np.linalg.norm(x)", "np.array([0.0, 0.0])", "[0.0, 0.0]", "no direction to point in"),
    Kink("np.hypot(x, 0.0)", "0.0", "0.0", "as norm; arctan2 at the origin too"),
    Kink("np.std(x)", "np.array([2.0, 2.0])", "[0.0, 0.0]", "constant data: a norm of 0"),
    Kink("x**0", "0.0", "0.0", "the constant 1"),
    Kink("x**1.0", "0.0", "1.0", "x"),
    Kink("0.0**x", "2.0", "0.0", "flat for positive exponents"),
    Kink("np.sqrt(x)", "0.0", "np.inf", "a pole of the slope"),
    Kink("np.log(x)", "0.0", "np.inf", "a pole"),
    Kink("np.prod(x)", "np.array([2.0, 0.0, 5.0])", "[0.0, 10.0, 0.0]", "the product of the others, never a quotient"),
    Kink("np.prod(x)", "np.array([0.0, 0.0, 5.0])", "[0.0, 0.0, 0.0]", "the product of the others"),
    Kink("scipy.special.xlogy(0.0, x)", "0.0", "0.0", "0 log x is 0 for every x"),
    Kink("scipy.special.xlogy(x, 0.0)", "0.0", "-np.inf", "log 0"),
    Kink("np.sinc(x)", "0.0", "0.0", "smooth there"),
    Kink(
        "np.where(x > 0, np.sqrt(x), 0.0)",
        "0.0",
        "np.nan",
        "0 times the pole of the other branch: see the next",
    ),
    Kink("np.where(x > 0, np.sqrt(np.where(x > 0, x, 1.0)), 0.0)", "0.0", "0.0", "a safe argument for that branch"),
    Kink("np.linalg.det(x)", "np.array([[1.0, 2.0], [2.0, 4.0]])", "[[4.0, -2.0], [-2.0, 1.0]]", "the cofactors"),
    Kink("np.linalg.slogdet(x)[1]", "np.zeros((2, 2))", "np.linalg.LinAlgError", "log 0 of a singular matrix"),
    Kink("np.linalg.inv(x)[0, 0]", "np.zeros((2, 2))", "np.linalg.LinAlgError", "there is no inverse"),
    Kink("np.sum(np.linalg.eigvalsh(x) ** 2)", "np.eye(2)", "2 * np.eye(2)", "the same for any choice of vectors"),
    Kink("np.linalg.eigvalsh(x)[0]", "np.eye(2)", "[[1.0, 0.0], [0.0, 0.0]]", "for the eigenvectors that eigh chose"),
    Kink("np.linalg.eigh(x)[1][0, 1]", "np.eye(2)", "np.zeros((2, 2))", "the vectors of equal eigenvalues do not turn"),
    Kink(
        "(lambda w, v: np.sum(v * np.exp(w) @ v.T))(*np.linalg.eigh(x))",
        "np.zeros((2, 2))",
        "np.eye(2)",
        "so this lacks its off-diagonal: write functions of a matrix without eigh where eigenvalues are equal",
    ),
    Kink("np.linalg.svd(x)[1][0]", "np.eye(2)", "[[1.0, 0.0], [0.0, 0.0]]", "for the singular vectors that svd chose"),
    Kink("np.linalg.norm(x, 2)", "np.eye(2)", "np.eye(2) / 2", "ties of singular values share evenly"),
    Kink("np.linalg.norm(x, 'nuc')", "np.zeros((2, 2))", "np.zeros((2, 2))", "no direction to point in"),
)


def markdown(rows: Iterable[Kink] = KINKS) -> str:
    """The table, aligned."""
    lines = [[f.name for f in fields(Kink)], *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def _cells(row: Kink) -> list[str]:
    *codes, why = astuple(row)
    return [*(f"`{code}`" for code in codes), why]


if __name__ == "__main__":
    print(markdown())
