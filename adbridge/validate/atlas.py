"""The atlas: special point x engine -> value and verdict, by the closed forms, with the referee beside them.

Every answer is judged twice. The closed form decides; where the referee says otherwise, that is reported as an error
of its own: one of the two is wrong. Defects in the ledger are known, and fail nothing; a wrong answer that is not in
it is new, and one in it that is no longer given is mended.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from adbridge.bench.problem import Problem, Suite, get_suite
from adbridge.protocol import Backend
from adbridge.registry import BackendLike, default_names, get_backend
from adbridge.validate.ledger import LEDGER, Defect
from adbridge.validate.special_points.asking import Question, ask, questions
from adbridge.validate.special_points.second_opinion import Opinion, View
from adbridge.validate.verdict import worst

if TYPE_CHECKING:
    import pandas as pd

REFEREE = "referee"
FAULTS = ("wrong", "error")


@dataclass(frozen=True)
class Row:
    """One answer: `value` as an array, or None; `expected` in words; `known`: the ledger has it."""

    case: str
    topic: str
    backend: str
    operator: str
    value: Any
    expected: str
    verdict: str
    known: bool = False
    note: str = ""
    contradiction: bool = False
    """The referee and the closed form disagree about this answer."""


@dataclass(frozen=True)
class Atlas:
    """The findings of one run. `str` gives them as text."""

    suite: str
    rows: tuple[Row, ...]
    versions: dict[str, str]
    ledger: tuple[Defect, ...] = LEDGER

    @cached_property
    def new_defects(self) -> tuple[Row, ...]:
        """Wrong answers of engines that the ledger does not have."""
        return tuple(r for r in self._faults if not r.known and not r.contradiction)

    @cached_property
    def _faults(self) -> tuple[Row, ...]:
        return tuple(r for r in self.rows if r.backend != REFEREE and r.verdict in FAULTS)

    @cached_property
    def known_defects(self) -> tuple[Row, ...]:
        return tuple(r for r in self.rows if r.known)

    @cached_property
    def mended(self) -> tuple[Defect, ...]:
        """What the ledger says of an installed version and this run did not see, an operator each."""
        asked = {(r.case, r.backend) for r in self.rows}
        here = (d for d in self.ledger if (d.case, d.engine) in asked and d.covers(self.versions[d.engine]))
        each = (replace(d, operators=(operator,)) for d in here for operator in d.operators)
        return tuple(d for d in each if not any(_is_of(d, row) for row in self._faults))

    @cached_property
    def contradictions(self) -> tuple[Row, ...]:
        """Rows in which the referee and the closed form do not say the same."""
        return tuple(r for r in self.rows if r.contradiction)

    @property
    def verdict(self) -> str:
        """The worst of the answers that are not known defects, ``error`` where the two judges disagree."""
        found = [r.verdict for r in self.rows if not r.known and not r.contradiction]
        return worst([*found, *(["error"] if self.contradictions else [])])

    @property
    def failed(self) -> bool:
        """Whether there is something new: a defect, a contradiction; or nothing was compared at all."""
        return bool(self.new_defects or self.contradictions) or not self.rows

    def counts(self) -> dict[str, dict[str, int]]:
        """Per backend, how many answers got which verdict; known defects apart, as ``known``."""
        found: dict[str, dict[str, int]] = {}
        for row in self.rows:
            of = found.setdefault(row.backend, {})
            verdict = "known" if row.known else row.verdict
            of[verdict] = of.get(verdict, 0) + 1
        return found

    def to_frame(self) -> pd.DataFrame:
        """Columns: ``case, topic, backend, operator, value, expected, verdict, known, note``."""
        import pandas as pd

        columns = ("case", "topic", "backend", "operator", "value", "expected", "verdict", "known", "note")
        rows = [{name: getattr(row, name) for name in columns} | {"value": _plain(row.value)} for row in self.rows]
        return pd.DataFrame(rows, columns=list(columns))

    def to_json(self) -> str:
        """The rows, engine versions, and findings, as JSON text; numbers that JSON lacks are text."""
        return json.dumps(
            {
                "suite": self.suite,
                "verdict": self.verdict,
                "failed": self.failed,
                "versions": self.versions,
                "counts": self.counts(),
                "rows": [_record(row) for row in self.rows],
                "new_defects": [_record(row) for row in self.new_defects],
                "contradictions": [_record(row) for row in self.contradictions],
                "mended": [vars(defect) for defect in self.mended],
            },
            indent=1,
        )

    def __str__(self) -> str:
        from adbridge.report.atlas import as_text

        return as_text(self)


def atlas(
    suite: str | Suite = "conventions",
    backends: Sequence[BackendLike] | None = None,
    *,
    ledger: Iterable[Defect] = LEDGER,
) -> Atlas:
    """Ask every backend for every derivative of a suite of special points, and judge the answers.

    Args:
        suite: a suite whose problems are special points, or its name.
        backends: names or Backends; by default every installed one that is part of a plain run.
        ledger: the known defects.

    Raises:
        SuiteNotFound, BackendNotFound, BackendUnavailable.
    """
    found = get_suite(suite) if isinstance(suite, str) else suite
    chosen = [get_backend(b) for b in (default_names() if backends is None else backends)]
    known = tuple(ledger)
    rows = [row for problem in found.problems if problem.special for row in _rows(problem, chosen, known)]
    return Atlas(found.name, tuple(rows), {b.name: b.engine_version for b in chosen}, known)


def _rows(problem: Problem, backends: Sequence[Backend], ledger: tuple[Defect, ...]) -> Iterator[Row]:
    assert problem.special is not None
    asked = list(questions(problem))
    opinion = Opinion(problem, asked[0].instance)
    yield _of_referee(problem, "kind", None, opinion.on_kind())
    if (value := opinion.on_value()) is not None:
        yield _of_referee(problem, "grad", *value)
    for question in asked:
        for backend in backends:
            yield _mark(_row(question, backend, opinion), backend, ledger)


def _of_referee(problem: Problem, operator: str, value: Any, view: View) -> Row:
    assert problem.special is not None
    topic = problem.special.topic
    return Row(
        problem.name, topic, REFEREE, operator, value, view.expected, view.verdict, False, view.note, view.contradicts
    )


def _row(question: Question, backend: Backend, opinion: Opinion) -> Row:
    special = question.problem.special
    assert special is not None
    fixed = (question.problem.name, special.topic, backend.name, question.operator)
    expected = "by the referee" if question.truth is None else str(question.truth)
    reply = ask(question, backend)
    if reply.failed:
        refused = reply.failed == "error" and question.truth is not None and question.truth.kind == "undefined"
        return Row(*fixed, None, expected, "undefined" if refused else reply.failed, note=reply.note)
    second = opinion.on(question, reply.value)
    if question.truth is None:
        return Row(*fixed, reply.value, second.expected or expected, second.verdict, note=second.note)
    verdict, note = question.truth.verdict(reply.value, reply.like, question.tolerance, question.scale)
    contradiction = second.contradicts_verdict(verdict)
    if contradiction:
        note = f"{note}; the referee says {second.verdict}: {second.note}".strip("; ")
    return Row(*fixed, reply.value, expected, verdict, note=note, contradiction=contradiction)


def _mark(row: Row, backend: Backend, ledger: tuple[Defect, ...]) -> Row:
    """With what the ledger knows of it; where the two judges disagree, nobody knows."""
    if row.verdict not in FAULTS or row.contradiction:
        return row
    found = next((d for d in ledger if _is_of(d, row) and d.covers(backend.engine_version)), None)
    if found is None:
        return row
    note = "; ".join(part for part in (found.what, found.thread, row.note) if part)
    return replace(row, known=True, note=note)


def _is_of(defect: Defect, row: Row) -> bool:
    return defect.concerns(row.case, row.backend, row.operator)


def _record(row: Row) -> dict[str, Any]:
    return {**vars(row), "value": _plain(row.value)}


def _plain(value: Any) -> Any:
    """Nested lists; what JSON has no number for as text."""
    if value is None:
        return None
    return _as_text(np.asarray(value).tolist())


def _as_text(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_text(part) for part in value]
    return value if not isinstance(value, complex) and np.isfinite(value) else str(value)
