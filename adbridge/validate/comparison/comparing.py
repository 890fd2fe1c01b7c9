"""The rows of a cross-check: each result judged by the referee, then results beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from adbridge.errors import AdbridgeError, RuleError
from adbridge.protocol import Backend
from adbridge.trees import PyTree, flatten
from adbridge.validate.comparison.agreement import Row
from adbridge.validate.comparison.subject import Failure, Subject, cotangents, first_line
from adbridge.validate.verdict import TOLERANCE, difference, tolerance

if TYPE_CHECKING:
    from adbridge.validate.judging import Finding
    from adbridge.validate.referee import Referee

LONGEST = 20_000
"""Numbers in a run of a program that is run in Arb arithmetic: a run takes about 5 microseconds for each, and a
cross-check needs some 50 runs."""
LARGEST_ULP = 4.0
"""Units in the last place of an array's largest entry by which its smallest may be off: a sum of terms of that size
cannot be better."""
Results = dict[str, dict[str, Any]]
"""backend -> operator -> result in NumPy, or Failure."""


@dataclass(frozen=True)
class Court:
    """A subject and its referee: None where there is none, for the reason `why`. `output` is the value in NumPy.

    `accuracy` is what a backend promises of its derivatives (`Capabilities.accuracy`), if less than all digits.
    """

    subject: Subject
    referee: Referee | None
    why: str
    output: PyTree
    accuracy: Mapping[str, float] = field(default_factory=dict)

    def row(self, backend: str, operator: str, result: Any) -> Row:
        """The verdict on one result."""
        if isinstance(result, Failure):
            return Row(backend, operator, result.verdict, note=result.note)
        if self.referee is None:
            return Row(backend, operator, "unresolved", note=self.why, result=result)
        try:
            with np.errstate(all="ignore"):
                finding = self._find(self.referee, operator, result)
        except AdbridgeError as exc:
            return Row(backend, operator, "unresolved", note=first_line(exc), result=result)
        promised = self.accuracy.get(backend, 1.0)
        if (
            finding.verdict == "wrong"
            and promised < 1
            and operator != "value"
            and self._near(operator, result, promised)
        ):
            finding = replace(finding, verdict="agree", note="as near as it promises, in the maximum norm")
        return Row.of(backend, operator, finding, result)

    def _find(self, referee: Referee, operator: str, result: Any) -> Finding:
        from adbridge.validate import judging

        if operator == "value":
            return judging.judge_value(referee, result)
        if operator in ("grad", "vjp"):
            return judging.judge_vjp(referee, self._seeds(operator), result)
        judge = judging.judge_jvp if operator == "jvp" else judging.judge_hvp
        return judge(referee, self.subject.like_arguments(self.subject.flat_tangents()), result)

    def _near(self, operator: str, result: PyTree, accuracy: float) -> bool:
        """Whether the result is right to a share of its digits, each leaf by its largest entry."""
        dtypes = {str(leaf.dtype) for leaf in flatten(result)[0]}
        if len(dtypes) != 1 or self.referee is None:
            return False
        tangents = self.subject.like_arguments(self.subject.flat_tangents())
        try:
            if operator in ("grad", "vjp"):
                expected = self.referee.vjp(self._seeds(operator))
            else:
                expected = self.referee.jvp(tangents) if operator == "jvp" else self.referee.hvp(tangents)
        except AdbridgeError:  # no derivative to be near to
            return False
        dtype = dtypes.pop()
        return difference({operator: result}, {operator: expected}, dtype).error <= tolerance(dtype, accuracy)

    def _seeds(self, operator: str) -> PyTree:
        return np.ones((), np.asarray(self.output).dtype) if operator == "grad" else cotangents(self.output)

    def rows(self, results: Results) -> list[Row]:
        """The verdicts on all results, with what their comparison adds."""
        rows = [self.row(backend, op, found) for backend, by_op in results.items() for op, found in by_op.items()]
        return [replace(row, note=_joined(row.note, *_remarks(row, rows, self))) for row in rows]


def court_of(subject: Subject, output: PyTree, engine: Backend | None) -> Court:
    """With the subject's referee, if the function can be refereed: where not in Arb, by differences on `engine`.

    Raises RuleError: it keeps state, or the like.
    """
    try:
        with np.errstate(all="ignore"):
            found, why = _referee(subject.in_numpy(), engine)
            found.classify()
    except RuleError:
        raise
    except Exception as exc:
        return Court(subject, None, f"no referee: {type(exc).__name__}: {first_line(exc)}", output)
    return Court(subject, found, why, output)


def _referee(subject: Subject, engine: Backend | None) -> tuple[Referee, str]:
    from adbridge.validate.referee import referee

    if _is_long(subject):
        return referee(subject.fun, *subject.args, backend="reference"), "it would run for minutes in Arb arithmetic"
    found = referee(subject.fun, *subject.args)
    why = found.why
    if found.method != "arb" and engine is not None:
        found = referee(subject.fun, *subject.args, backend=engine)
    found.floor = LARGEST_ULP
    return found, why if found.method != "arb" else ""


def _is_long(subject: Subject) -> bool:
    """Whether one run of the function makes more than `LONGEST` numbers, of those that run in Arb arithmetic."""
    from adbridge.tracing import trace

    if sum(np.size(leaf) for leaf in subject.leaves) * 100 < LONGEST:  # to count is not free
        return False
    try:
        with np.errstate(all="ignore"):
            return trace(subject.fun, *subject.args).cost().bytes_written > 8 * LONGEST
    except Exception:  # whatever a function raises on arrays that it was not written for
        return False


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def _remarks(row: Row, rows: Sequence[Row], court: Court) -> list[str]:
    peers = [r for r in rows if r.operator == row.operator and r.result is not None]
    remarks = []
    if row.verdict == "unresolved" and row.result is not None and len(peers) > 1:
        remarks.append(_company(row, peers))
    if row.operator == "jvp" and row.verdict not in ("wrong", "unsupported", "error"):
        reverse = next((r for r in rows if r.backend == row.backend and r.operator in ("grad", "vjp")), None)
        remarks.append("" if reverse is None or reverse.result is None else _adjoint(row, reverse, court))
    return remarks


# Engines beside each other. They take rules and formulas from each other, so that a majority is no proof: it is told
# in a note, and is no verdict.


def _company(row: Row, peers: Sequence[Row]) -> str:
    """Which other backends have the same result; if most of them agree without this one, that it is the odd one out."""
    same = [peer.backend for peer in peers if peer is not row and _close(peer.result, row.result)]
    if 2 * (len(same) + 1) > len(peers):
        return f"agrees with {', '.join(same)}"
    for leader in peers:
        camp = [peer.backend for peer in peers if _close(peer.result, leader.result)]
        if 2 * len(camp) > len(peers):
            return f"the odd one out: {', '.join(camp)} agree on another result"
    return f"no majority: {f'agrees with {same[0]} alone' if same else 'no other backend has this result'}"


def _close(a: PyTree, b: PyTree) -> bool:
    """Same tree, shapes and dtypes, and each leaf close in the maximum norm. NaN is close to nothing."""
    (left, tree), (right, other) = flatten(a), flatten(b)
    return tree == other and all(map(_leaf_close, left, right))


def _leaf_close(a: Any, b: Any) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    with np.errstate(invalid="ignore"):
        apart = np.where(a == b, 0.0, np.abs(a - b))
    finite = np.abs(np.where(np.isfinite(b), b, 0.0))
    return bool(np.all(apart <= TOLERANCE.get(str(a.dtype), 0.0) * np.max(finite, initial=0.0)))


def _adjoint(forward: Row, reverse: Row, court: Court) -> str:
    """<w, J v> = <J' w, v>, with the pairing Re(sum(a * b)), of one backend's two modes; a word if it is not so."""
    subject = court.subject
    seeds = [np.ones(())] if reverse.operator == "grad" else flatten(cotangents(court.output))[0]
    pushed = _pairing(flatten(forward.result)[0], seeds)
    pulled = _pairing(flatten(reverse.result)[0], subject.flat_tangents())
    tolerance = max(TOLERANCE.get(spec.dtype, 0.0) for spec in subject.active_specs())
    if np.isnan(pushed[0]) and np.isnan(pulled[0]):
        return ""
    if abs(pushed[0] - pulled[0]) <= tolerance * max(pushed[1], pulled[1]):
        return ""
    return f"its forward and reverse mode differ: <w, Jv> is {pushed[0]:.6g}, <J'w, v> is {pulled[0]:.6g}"


def _pairing(a: Sequence[Any], b: Sequence[Any]) -> tuple[float, float]:
    """The pairing, and the same of magnitudes, for its rounding."""
    with np.errstate(all="ignore"):
        products = [np.real(np.asarray(x) * np.asarray(y)).astype(float) for x, y in zip(a, b, strict=True)]
        return float(sum(p.sum() for p in products)), float(sum(np.abs(p).sum() for p in products))
