"""The cases of one instance: every operator on every backend, measured and judged, as records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from statistics import median

import numpy as np

from adbridge.bench.measure import OPERATORS, Seeds, seeds_for
from adbridge.bench.pool import Pool, Result
from adbridge.bench.problem import Answer, Instance, Problem
from adbridge.bench.store import Record
from adbridge.bench.worker import Failed, Job, Place, Timed, Weighed
from adbridge.registry import BackendLike
from adbridge.trees import PyTree, flatten
from adbridge.validate.verdict import TOLERANCE, Judgement, disagreement, judge


@dataclass(frozen=True)
class Settings:
    """What is the same for all cases of a run. `missing`: backends that were asked for, and why they are not here."""

    backends: Mapping[str, BackendLike]
    missing: Mapping[str, str]
    device: str
    dtype: str
    seconds: float
    memory: bool
    common: Record


@dataclass(frozen=True)
class Group:
    """One instance, to be run with all operators on all backends."""

    suite: str
    problem: Problem
    place: Place

    @property
    def name(self) -> str:
        return f"{self.problem.name}[{self.place.label}]" if self.place.label else self.problem.name


@dataclass(frozen=True)
class Known:
    """The instance as the judge sees it."""

    instance: Instance
    answer: Answer
    seeds: Seeds
    operators: tuple[str, ...]

    def expected(self, operator: str) -> PyTree:
        """The right result of an operator, like what the backend returns; Jacobians as a probe (see `probe`)."""
        tangent, cotangent = self.seeds.tangent, self.seeds.cotangent
        if operator == "value":
            return self.answer.value
        if operator == "grad":
            return self.answer.vjp(1.0)
        if operator == "vjp":
            return self.answer.vjp(cotangent)
        if operator == "jvp":
            return {"value": self.answer.value, "tangent": self.answer.jvp(tangent)}
        return {"J t": self.answer.jvp(tangent), "J^T c": self.answer.vjp(cotangent)}

    def probe(self, operator: str, result: PyTree) -> PyTree:
        """The result in the form of `expected`: named parts, and a Jacobian J as J t and J^T c.

        The probe directions are dense and random, so that an entry's error can only cancel by chance.
        """
        if operator == "jvp":
            return {"value": result[0], "tangent": result[1]}
        if not operator.startswith("jacobian"):
            return result
        tangent, cotangent = self.seeds.tangent, self.seeds.cotangent
        matrix = np.asarray(result).reshape(np.size(cotangent), np.size(tangent))
        return {
            "J t": (matrix @ np.ravel(tangent)).reshape(np.shape(cotangent)),
            "J^T c": (matrix.T @ np.ravel(cotangent)).reshape(np.shape(tangent)),
        }


def run_group(group: Group, settings: Settings, pool: Pool) -> list[Record]:
    """Measure and judge. A problem that cannot be made is a record for every backend, and the run goes on."""
    started = {"started": datetime.now(UTC).isoformat(timespec="seconds")}
    try:
        known = _know(group)
    except Exception as exc:
        note = f"the problem could not be made: {type(exc).__name__}: {exc}"
        names = [*settings.backends, *settings.missing]
        operators = group.problem.operators or ("value",)
        size = {"n": group.place.n, "m": group.place.m}
        return [
            {**_row(group, settings, n, op, size), **_failed("error", note), **started}
            for op in operators
            for n in names
        ]
    size = {"n": _count(known.instance.args[0]), "m": _count(known.answer.value)}
    records = {(op, name): {**_row(group, settings, name, op, size), **started} for op, name in _pairs(known, settings)}
    for name in settings.missing:
        for op in known.operators:
            records[op, name].update(_failed("error", settings.missing[name]))
    results: dict[str, dict[str, PyTree]] = {op: {} for op in known.operators}
    for name, backend in settings.backends.items():
        for op, fields, result in _measure(group, settings, known, backend, pool):
            records[op, name].update(fields)
            if result is not None:
                results[op][name] = known.probe(op, result)
    for op, found in results.items():
        for name, fields in _judged(found, known.expected(op), settings.dtype).items():
            records[op, name].update(fields)
    return list(records.values())


def _pairs(known: Known, settings: Settings) -> Iterator[tuple[str, str]]:
    return ((op, name) for op in known.operators for name in [*settings.backends, *settings.missing])


def _know(group: Group) -> Known:
    instance = group.place.load()
    answer = group.place.answer(instance)
    seeds = seeds_for(instance, answer.value)
    leaves = flatten(answer.value)[0]
    scalar = len(leaves) == 1 and np.shape(leaves[0]) == ()
    operators = group.problem.operators or (("grad", "jvp") if scalar else ("vjp", "jvp"))
    # The value first: the other operators' times are compared with it.
    return Known(instance, answer, seeds, tuple(dict.fromkeys(("value", *operators))))


def _row(group: Group, settings: Settings, backend: str, operator: str, size: Record) -> Record:
    name, mode = OPERATORS[operator]
    return {
        **settings.common,
        "suite": group.suite,
        "problem": group.name,
        **size,
        "operator": name,
        "mode": mode,
        "backend": backend,
        "device": settings.device,
        "dtype": settings.dtype,
    }


def _failed(outcome: str, note: str) -> Record:
    verdict = "unsupported" if outcome == "unsupported" else "error"
    return {"outcome": outcome, "verdict": verdict, "note": note}


def _measure(
    group: Group, settings: Settings, known: Known, backend: BackendLike, pool: Pool
) -> Iterator[tuple[str, Record, PyTree | None]]:
    """Per operator: the record's measured fields, and the result if there is one."""
    job = Job(group.place, settings.device, known.operators, settings.seconds)
    timed = pool.do(job, backend)
    value = timed.get("value")
    primal = min(value.timing.samples) if isinstance(value, Timed) else None
    for op, found in timed.items():
        if isinstance(found, Failed):
            yield op, _failed(found.outcome, found.note), None
        elif isinstance(found, Timed):
            weighed = _weigh(job, op, backend, pool) if settings.memory else {}
            yield op, {**_timing(found, primal), **weighed}, found.result


def _timing(found: Timed, primal: float | None) -> Record:
    timing = found.timing
    middle = median(timing.samples)
    return {
        "outcome": "ok",
        "primal_seconds": primal,
        "seconds_min": min(timing.samples),
        "seconds_median": middle,
        "seconds_mad": median(abs(s - middle) for s in timing.samples),
        "samples": timing.samples,
        "first_call_seconds": timing.first_call_seconds,
        "prepare_seconds": timing.prepare_seconds,
        "transfer_seconds": timing.transfer_seconds,
        "primal_calls": timing.primal_calls,
        "engine_version": found.engine_version,
    }


def _weigh(job: Job, operator: str, backend: BackendLike, pool: Pool) -> Record:
    found: Result = pool.do(replace(job, operators=(operator,), memory=True), backend)[operator]
    if isinstance(found, Weighed):
        return {
            "peak_alloc_bytes": found.peak_alloc_bytes,
            "alloc_source": found.alloc_source,
            "peak_rss_delta_bytes": found.peak_rss_delta_bytes,
        }
    # The derivative was right, but could not be weighed: that is the case's outcome.
    assert isinstance(found, Failed)
    return {"outcome": found.outcome, "note": f"measuring memory: {found.note}"}


def _judged(results: dict[str, PyTree], expected: PyTree, dtype: str) -> dict[str, Record]:
    tolerance = TOLERANCE[dtype]
    judgements = judge(results, expected, tolerance)
    right = [name for name, j in judgements.items() if j.verdict == "agree"]
    return {name: _verdict(j, disagreement(results, name, right)) for name, j in judgements.items()}


def _verdict(judgement: Judgement, apart: float) -> Record:
    d = judgement.difference
    fields: Record = {"verdict": judgement.verdict, "relative_error": d.error, "disagreement": apart}
    if judgement.verdict != "agree":
        fields.update(entry=d.entry, got=d.got, expected=d.expected, note=d.note)
    if judgement.verdict == "wrong":
        fields["outcome"] = "wrong"
    return fields


def _count(tree: PyTree) -> int:
    return sum(int(np.size(leaf)) for leaf in flatten(tree)[0])
