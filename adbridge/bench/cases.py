"""The cases of one instance: every operator on every backend, measured and judged, as records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from statistics import median

from adbridge.bench.judging import Known, verdicts
from adbridge.bench.measure import OPERATORS
from adbridge.bench.pool import Pool
from adbridge.bench.problem import Problem
from adbridge.bench.store import Record
from adbridge.bench.worker import Answered, Failed, Job, Place, Timed, Weighed
from adbridge.registry import BackendLike
from adbridge.trees import PyTree

# The process that makes instances and known answers needs NumPy alone.
_ANSWERS = "zero"


@dataclass(frozen=True)
class Settings:
    """What is the same for all cases of a run. `missing`: backends asked for, and why they are not here."""

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

    @property
    def key(self) -> str:
        """What tells this group from the others of its run."""
        size = "" if self.place.label else f" n={self.place.n} m={self.place.m}"
        return f"{self.suite} {self.name}{size}"


def run_group(group: Group, settings: Settings, pool: Pool) -> list[Record]:
    """Measure and judge. A problem that cannot be made is a record for every backend, and the run goes on."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    known = _know(group, pool)
    names = [*settings.backends, *settings.missing]
    if isinstance(known, Failed):
        note = f"the problem could not be made: {known.note}"
        operators = group.problem.operators or ("value",)
        size = (group.place.n, group.place.m)
        rows = [_row(group, settings, op, name, size, started) for op in operators for name in names]
        return [{**row, **_failed(known.outcome, note)} for row in rows]
    size = (known.n, known.m)
    records = {(op, name): _row(group, settings, op, name, size, started) for op in known.operators for name in names}
    for op, name in records:
        if name in settings.missing:
            records[op, name].update(_failed("error", settings.missing[name]))
    results: dict[str, dict[str, PyTree]] = {op: {} for op in known.operators}
    accuracy: dict[str, float] = {}
    for name, backend in settings.backends.items():
        for op, fields, timed in _measure(group, settings, known, backend, pool):
            records[op, name].update(fields)
            if timed is not None:
                results[op][name], accuracy[name] = timed.result, timed.accuracy
    for op, found in results.items():
        for name, fields in verdicts(known, op, found, settings.dtype, accuracy).items() if found else ():
            records[op, name].update(fields)
    return list(records.values())


def _know(group: Group, pool: Pool) -> Known | Failed:
    job = Job("answer", group.place, "cpu", ("answer",), wanted=group.problem.operators)
    found = pool.do(job, _ANSWERS)["answer"]
    assert isinstance(found, (Answered, Failed))
    return found.known if isinstance(found, Answered) else found


def _row(group: Group, settings: Settings, operator: str, backend: str, size: tuple[int, int], started: str) -> Record:
    name, mode = OPERATORS[operator]
    return {
        **settings.common,
        "suite": group.suite,
        "problem": group.name,
        "n": size[0],
        "m": size[1],
        "operator": name,
        "mode": mode,
        "backend": backend,
        "device": settings.device,
        "dtype": settings.dtype,
        "started": started,
        "group": group.key,
    }


def _failed(outcome: str, note: str) -> Record:
    verdict = "unsupported" if outcome == "unsupported" else "error"
    return {"outcome": outcome, "verdict": verdict, "note": note}


def _measure(
    group: Group, settings: Settings, known: Known, backend: BackendLike, pool: Pool
) -> Iterator[tuple[str, Record, Timed | None]]:
    """Per operator: the record's measured fields, and the timed result if there is one."""
    job = Job("time", group.place, settings.device, known.operators, settings.seconds, known.output)
    timed = pool.do(job, backend)
    value = timed.get("value")
    primal = min(value.timing.samples) if isinstance(value, Timed) else None
    for op, found in timed.items():
        if isinstance(found, Failed):
            yield op, _failed(found.outcome, found.note), None
        elif isinstance(found, Timed):
            weighed = _weigh(job, op, backend, pool) if settings.memory else {}
            yield op, {**_timing(found, primal), **weighed}, found


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
    found = pool.do(replace(job, what="memory", operators=(operator,)), backend)[operator]
    if isinstance(found, Weighed):
        return {
            "peak_alloc_bytes": found.peak_alloc_bytes,
            "alloc_source": found.alloc_source,
            "peak_rss_delta_bytes": found.peak_rss_delta_bytes,
            "memory_outcome": "ok",
        }
    # Its times and its result stand; that it could not be weighed is a failure of its own.
    assert isinstance(found, Failed)
    return {"memory_outcome": found.outcome, "memory_note": found.note}
