"""Questions about balls that need an answer: comparisons, floors, which numbers are finite; and ties.

An answer is certain, or `Undecided` is raised. Within `ties_decided` two numbers that agree to so many bits count as
equal, and each such tie is written down; a run may also be told to take them apart, so that both sides of a kink
can be evaluated at the kink itself.

One object is one number: a ball is equal to itself whatever its radius, and that is no tie. Nor are comparisons among
integers and booleans.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import flint
import numpy as np
from flint import acb, arb

from adbridge.backends.reference.numbers import Undecided
from adbridge.backends.reference.numbers.conversions import NAN, ball, certainly_nan, is_exact
from adbridge.backends.reference.primitives import CONSTANTS

SIDES = {"less": -1, "equal": 0, "greater": 1}


@dataclass(frozen=True, eq=False)
class Tie:
    """A question on whose two sides the same number stands, and the answer that was taken.

    Attributes:
        question: what was asked, of a and b.
        kind: "exact", both are this number; "close", they agree to the bits that were asked for; "nan", one of
            them is no number at this precision, and what was asked is answered as IEEE's nan would.
        side: "equal", or the side that the run was told to take, "less" or "greater".
    """

    question: str
    a: Any
    b: Any
    kind: str
    side: str = "equal"


@dataclass
class _Policy:
    below: int
    sides: Iterator[str]
    apart: bool
    met: list[Tie] = field(default_factory=list)
    known: dict[tuple[int, int], Tie] = field(default_factory=dict)


_policy: ContextVar[_Policy | None] = ContextVar("ties", default=None)


@contextmanager
def ties_decided(below: int, sides: Iterable[str] = (), apart: bool = True) -> Iterator[list[Tie]]:
    """While this lasts, what differs by less than 2^-below is equal, and ties are listed in the order they are met.

    Args:
        below: how near is equal, of numbers whose balls overlap.
        sides: what to answer at the first tie, the second, ...: "less", "equal" or "greater" (the first operand
            than the second); "equal" from its end on. The same two objects asked about again get the same answer,
            and are listed once.
        apart: whether balls that do not overlap are told apart, however close they are. If not, all that is nearer
            than 2^-below is a tie, so that one side of a kink can be followed to beyond the kink.

    >>> with ties_decided(100, ["less"]) as met:
    ...     less(arb(1), 1), less(arb(1), 1)
    (True, False)
    >>> [(tie.question, tie.side) for tie in met]
    [('a < b', 'less'), ('a < b', 'equal')]
    """
    policy = _Policy(below, iter(sides), apart)
    token = _policy.set(policy)
    try:
        yield policy.met
    finally:
        _policy.reset(token)


def is_close(a: Any, b: Any) -> bool:
    """Whether ties are decided, and a and b certainly agree to as many bits as make one."""
    policy = _policy.get()
    return policy is not None and bool(abs(a - b) < arb(2) ** -policy.below)


def note(question: str, a: Any, b: Any, kind: str = "exact") -> None:
    """Write down a tie that leaves no choice."""
    policy = _policy.get()
    if policy is not None:
        policy.met.append(Tie(question, a, b, kind))


def _tie(question: str, a: Any, b: Any, kind: str) -> int:
    policy = _policy.get()
    if policy is None:
        return 0
    pair, swapped = (id(a), id(b)), (id(b), id(a))  # the ties that are kept keep their operands alive
    if pair in policy.known:
        return SIDES[policy.known[pair].side]
    if swapped in policy.known:
        return -SIDES[policy.known[swapped].side]
    tie = policy.known[pair] = Tie(question, a, b, kind, next(policy.sides, "equal"))
    policy.met.append(tie)
    return SIDES[tie.side]


def undecided(question: str, *operands: Any) -> Undecided:
    shown = ", ".join(x.str(10) for x in operands)
    return Undecided(f"{question} for {shown}", *operands, bits=flint.ctx.prec)


@lru_cache(1024)
def _number(kind: str, x: Any) -> Any:
    return ball(x)


def operand(x: Any) -> Any:
    """A ball; Python's own numbers are one object each, as they are always the same constant."""
    kind = type(x)
    if kind is arb or kind is acb:
        return x
    lasting = kind is int or (kind is float and x == x and id(x) not in CONSTANTS)
    return _number(kind.__name__, x) if lasting else ball(x)


def follows_sides(a: Any, b: Any) -> bool:
    """Whether a and b count as tied although they may be told apart."""
    policy = _policy.get()
    return policy is not None and not policy.apart and a is not b and is_close(a, b)


def compare(a: Any, b: Any, question: str = "a < b") -> int | None:
    """-1, 0 or 1: whether a is less than b, equal to it or greater; None if one of them is nan."""
    a, b = operand(a), operand(b)
    if follows_sides(a, b):
        return _tie(question, a, b, "close")
    if a < b:
        return -1
    if a > b:
        return 1
    if certainly_nan(a) or certainly_nan(b):
        return None
    if a is b:
        return 0
    if a == b:
        return _tie(question, a, b, "exact")
    return _overlapping(question, a, b)


def _overlapping(question: str, a: Any, b: Any) -> int | None:
    if is_close(a, b):
        return _tie(question, a, b, "close")
    if _policy.get() is None or not (a.is_nan() or b.is_nan()):
        raise undecided(question, a, b)
    note(question, a, b, "nan")
    return None


def _among_integers(a: Any, b: Any) -> bool:
    whole = (int, np.integer, np.bool_)
    return isinstance(a, whole) and isinstance(b, whole)


def less(a: Any, b: Any, question: str = "a < b") -> bool:
    if _among_integers(a, b):
        return bool(a < b)
    a, b = operand(a), operand(b)
    if a == b or not a >= b or follows_sides(a, b):
        return compare(a, b, question) == -1
    return False  # the balls may touch


def less_equal(a: Any, b: Any) -> bool:
    if _among_integers(a, b):
        return bool(a <= b)
    a, b = operand(a), operand(b)
    if a == b or not a <= b or follows_sides(a, b):
        return compare(a, b, "a <= b") in (-1, 0)
    return True


def equal(a: Any, b: Any) -> bool:
    if _among_integers(a, b):
        return bool(a == b)
    a, b = operand(a), operand(b)
    if type(a) is arb and type(b) is arb:
        return compare(a, b, "a == b") == 0
    return _equal_complex(a, b)


def _equal_complex(a: Any, b: Any) -> bool:
    if certainly_nan(a) or certainly_nan(b) or a != b:
        return False
    if a is b:
        return True
    if a == b:
        return _tie("a == b", a, b, "exact") == 0
    if is_close(a, b):
        return _tie("a == b", a, b, "close") == 0
    raise undecided("a == b", a, b)


def truth(x: Any) -> bool:
    return bool(x) if isinstance(x, (int, np.integer, np.bool_)) else not equal(x, 0)


# Which numbers are finite.


def is_nan(x: Any) -> bool:
    x = ball(x)
    if certainly_nan(x):
        return True
    if x.is_finite() or is_exact(x):
        return False
    return _is_no_number(x)


def _is_no_number(x: Any) -> bool:
    if _policy.get() is None or not (x.is_nan() if type(x) is arb else x.real.is_nan() or x.imag.is_nan()):
        raise undecided("whether x is nan", x)
    note("whether x is nan", x, NAN, "nan")
    return True


def is_infinite(x: Any) -> bool:
    x = ball(x)
    return not x.is_finite() and not is_nan(x)


def is_finite(x: Any) -> bool:
    x = ball(x)
    return bool(x.is_finite()) or (not is_exact(x) and not is_nan(x))


# Whole numbers.


def _is_its_own_floor(x: Any) -> bool:
    """NaN, infinities, and integers so large that nothing is to be asked."""
    return x.is_nan() or (x.is_exact() and (not x.is_finite() or abs(x) > arb(2) ** flint.ctx.prec))


def floor(x: Any) -> Any:
    """The nearest integer, or the one before it."""
    x = ball(x)
    if _is_its_own_floor(x):
        return x
    n = operand(nearest(x))
    return arb(n - 1 if compare(x, n, "floor(a), a = b") == -1 else n)


def ceil(x: Any) -> Any:
    x = ball(x)
    if _is_its_own_floor(x):
        return x
    n = operand(nearest(x))
    return arb(n + 1 if compare(x, n, "ceil(a), a = b") == 1 else n)


def nearest(x: Any) -> int:
    """An integer that x is nearest to; of two, half-way, the greater. Raises Undecided: x may be off by one."""
    if x.is_finite() and x.rad() < 0.25:
        n = x.mid() if x.mid().is_integer() else (x.mid() + 0.5).floor()
        if n.is_exact():
            return int(n.unique_fmpz())
    raise undecided("which integer x is next to", x)


def trunc(x: Any) -> Any:
    """0 between -1 and 1, where nothing is to be asked at 0."""
    x = ball(x)
    if x > -1 and x < 1:
        return arb(0)
    return ceil(x) if less(x, 0) else floor(x)


def round_half_even(x: Any) -> Any:
    """The floor of x + 1/2, but the even neighbour of a number half-way."""
    x = ball(x)
    if _is_its_own_floor(x):
        return x
    low = nearest(x - 0.5)
    side = compare(x, low + 0.5, "round(a), half-way at b")
    return arb(low + low % 2 if side == 0 else low + (side == 1))


def whole(x: Any) -> int:
    """The integer that a ball is known to be."""
    x = ball(x)
    integer = x.unique_fmpz() if x.is_finite() else None
    if integer is None:
        raise undecided("which integer x is", x)
    return int(integer)
