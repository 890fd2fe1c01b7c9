"""How a file of published defect cases fares: what is flagged, what is called wrong although it is legal.

Run as ``python -m adbridge.suites.benchmarks.corpus derivative_cases.json``. Each case names its right answers. The
judge here does not know them: portable cases run on every engine and are judged by the referee; snippets of one
engine's code run in processes of their own, and their results are compared with what the same function, written
portably, gives the referee, where there is such a function in `REWRITTEN`; gradient checkers' cases are put to
`adbridge.check_rule` (`corpus_rules`). Only then are the right answers looked up.

Exit codes: 0; 1 something that is wrong was not flagged, or something legal was called wrong; 2 wrong usage.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from adbridge.bench.problem import Instance, Problem
from adbridge.registry import default_names, get_backend
from adbridge.validate.special_points.asking import Question, Reply, ask
from adbridge.validate.special_points.portable import portable
from adbridge.validate.special_points.second_opinion import RIGHT, Opinion, View
from adbridge.validate.special_points.truth import Special, Truth, close

from .corpus_rules import RULES, Ruled  # relative: asv names this folder otherwise

SNIPPET_SECONDS = 180
DEFECTS = ("bug", "nan-trap")
# The operators of the file, by ours.
OPERATORS = {
    "grad": "grad",
    "jvp": "jvp",
    "d2": "hessian rr",
    "d3": "third",
    "d4": "fourth",
    "hessian": "hessian fr",
    "hessian_rr": "hessian rr",
    "hessian_ff": "hessian ff",
    "hessian_rf": "hessian rf",
}

# Snippets' functions, written portably, and the derivative that the snippet takes.
REWRITTEN: dict[str, tuple[Callable[..., Any], Any, str]] = {
    "zygote-swap": (lambda xp, x: 4.0 * x * x * x, 1.5, "grad"),
    "zygote-abs-broadcast": (lambda xp, x: xp.sum(xp.abs(x)), np.zeros(2), "grad"),
    "nested-closure": (lambda xp, x: 1.0 * x, 1.0, "grad"),
    "bce-sum-double": (
        lambda xp, x: (
            -xp.sum(xp.asarray(np.array([0.2, 0.7])) * xp.log(x) + xp.asarray(np.array([0.8, 0.3])) * xp.log(1.0 - x))
        ),
        np.array([0.3, 0.6]),
        "hessian rr",
    ),
    "pad-zero-width": (
        lambda xp, x: xp.sum(x * xp.asarray(np.array([[4.0, 5.0], [8.0, 9.0]]))),
        np.ones((2, 2)),
        "grad",
    ),
}


@dataclass(frozen=True)
class Entry:
    """One answer to one case. `legal`: the file's right answers hold it; None: there was no answer."""

    case: str
    classification: str
    engine: str
    operator: str
    value: Any
    legal: bool | None
    view: View
    ulp: float = math.nan
    note: str = ""
    category: str = ""

    @property
    def flagged(self) -> bool:
        """Called wrong: by the judge, or, where it has no view, by the right answers."""
        return self.view.verdict == "wrong" or (self.unjudged and self.legal is False)

    @property
    def unjudged(self) -> bool:
        return self.view.verdict not in (*RIGHT, "wrong")

    @property
    def missed(self) -> bool:
        """Wrong by the file, and of a class that has to be found, but not flagged."""
        return self.legal is False and self.classification in DEFECTS and not self.flagged

    @property
    def false_alarm(self) -> bool:
        return self.legal is True and self.view.verdict == "wrong"


# The right answers of the file.


def number(value: Any) -> Any:
    """JSON's numbers, the words nan, inf and -inf, and pairs re, im, as an array."""
    if isinstance(value, dict):
        return complex(float(value["re"]), float(value["im"]))
    return [number(part) for part in value] if isinstance(value, list) else float(value)


def truth_of(case: dict[str, Any]) -> Truth:
    """Any accepted answer, or any in the interval."""
    accepted = {name: np.asarray(number(value)) for name, value in case["accepted"].items()}
    member = None
    if "interval" in case:
        low, high = (np.asarray(number(end)) for end in case["interval"])

        def member(got: Any, tolerance: float) -> bool:
            return bool(np.all((got >= low - tolerance) & (got <= high + tolerance)))

    return Truth("limit", accepted, member, nan=False)


def legal(case: dict[str, Any], got: Any) -> bool:
    truth, tolerance = truth_of(case), case.get("tol") or 1e-9
    got = np.asarray(got)
    if any(close(got, value, tolerance, 1.0) for value in truth.accepted.values() if value.size and not np.any(value)):
        return True  # a zero has no relative error
    return any(close(got, value, tolerance) for value in truth.accepted.values()) or (
        truth.member is not None and truth.member(got, tolerance)
    )


# Portable cases.


def question_of(case: dict[str, Any]) -> Question:
    names: dict[str, Any] = {"np": np}
    exec(case["code"], names)  # the file's own code: a function f(xp, *args)
    fun = names["f"]
    dtype = (case.get("dtypes") or ["float64"])[0]
    args = tuple(np.asarray(number(point), dtype) for point in case["points"])
    instance = Instance(lambda *xs: fun(portable(*xs), *xs), args, _no_answer)
    special = Special({}, case["category"], tuple(case["source"]), tolerance=case.get("tol") or 0.0)
    problem = Problem(case["id"], lambda n, m, rng: instance, special=special)
    return Question(problem, instance, OPERATORS[case["operator"]], None)


def _no_answer(*args: Any) -> Any:
    raise AssertionError("a case of the file is judged, not run as a problem")


def portable_entries(case: dict[str, Any], backends: Iterable[str]) -> Iterator[Entry]:
    question = question_of(case)
    opinion = Opinion(question.problem, question.instance)
    for name in backends:
        yield _entry(case, question, name, ask(question, get_backend(name)), opinion)


def _entry(case: dict[str, Any], question: Question, engine: str, reply: Reply, opinion: Opinion) -> Entry:
    fixed = (case["id"], case["classification"], engine, case["operator"])
    if reply.failed:
        raised = None if reply.failed == "unsupported" else False
        return Entry(*fixed, None, raised, View(reply.failed), note=reply.note, category=case["category"])
    view = opinion.on(question, reply.value)
    return Entry(*fixed, reply.value, legal(case, reply.value), view, view.ulp, view.note, case["category"])


# Snippets.


def snippet_entries(case: dict[str, Any]) -> Iterator[Entry]:
    """The results of the engines' own code; a case about gradient checkers is about ours instead."""
    if case["id"] in RULES:
        yield from (_ruled(case, found) for found in RULES[case["id"]]())
        return
    for engine, code in case["code_by_engine"].items():
        yield _judged_snippet(case, engine, code)


def _ruled(case: dict[str, Any], found: Ruled) -> Entry:
    """Of a rule that is wrong, ``wrong`` is right; of a right one, all but that."""
    note = f"the checker says {found.verdict}: {found.note}".strip(": ")
    right = (found.verdict in ("wrong", "error")) == found.planted
    view = View("agree" if right else "unresolved")
    return Entry(
        case["id"], case["classification"], f"check_rule, {found.name}", "rule", None, right, view, note=note,
        category=case["category"],
    )  # fmt: skip


def _judged_snippet(case: dict[str, Any], engine: str, code: str) -> Entry:
    fixed = (case["id"], case["classification"], engine, case["operator"])
    value, failure = run_snippet(code)
    if failure:
        return Entry(*fixed, None, None, View("unsupported"), note=failure, category=case["category"])
    got = np.asarray(number(value))
    view = _view_of_snippet(case["id"], got)
    return Entry(*fixed, got, legal(case, got), view, view.ulp, view.note, case["category"])


def _view_of_snippet(name: str, got: Any) -> View:
    if name not in REWRITTEN:
        return View("unresolved", "an engine's own code: by the file's answers alone")
    fun, point, operator = REWRITTEN[name]
    instance = Instance(lambda x: fun(portable(x), x), (np.asarray(point),), _no_answer)
    problem = Problem(name, lambda n, m, rng: instance)
    return Opinion(problem, instance).on(Question(problem, instance, operator, None), got)


def run_snippet(code: str) -> tuple[Any, str]:
    """What the code leaves in `result`, and why it left nothing; in a process of its own."""
    program = f"{code}\nimport json as _json\nprint('\\n' + _json.dumps(result))\n"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=SNIPPET_SECONDS, env=environment
        )
    except subprocess.TimeoutExpired:
        return None, f"no result within {SNIPPET_SECONDS} s"
    if done.returncode:
        return None, (done.stderr.strip().splitlines() or ["no message"])[-1][:160]
    return json.loads(done.stdout.strip().splitlines()[-1]), ""


# All of it.


def entries(cases: list[dict[str, Any]], backends: list[str]) -> Iterator[Entry]:
    with ThreadPoolExecutor(2) as pool:
        engine = [c for c in cases if c["kind"] != "portable"]
        waiting = [pool.submit(lambda c: list(snippet_entries(c)), c) for c in engine if c["id"] not in RULES]
        for case in cases:
            if case["kind"] == "portable":
                yield from portable_entries(case, backends)
        for case in engine:
            if case["id"] in RULES:
                yield from snippet_entries(case)
        for found in waiting:
            yield from found.result()


def report(found: list[Entry]) -> list[Table | Text]:
    shown = [e for e in found if e.legal is False]
    defects = [e for e in shown if e.classification in DEFECTS]
    return [
        _table("wrong answers, as they are now", shown),
        _table("called wrong, though legal", [e for e in found if e.false_alarm]),
        _table("tail precision, in units in the last place", [e for e in found if e.category == "precision"]),
        _totals(found, defects),
    ]


def _table(title: str, rows: list[Entry]) -> Table:
    table = Table(title=f"{title} ({len(rows)})", title_justify="left")
    for column in ("case", "class", "engine", "operator", "got", "judged", "flagged", "ulp", "note"):
        table.add_column(column, overflow="fold")
    for e in rows:
        got = " ".join(np.array2string(np.asarray(e.value), precision=4, threshold=6).split())[:40]
        ulp = "" if math.isnan(e.ulp) else f"{e.ulp:.1e}"
        flagged = "by the judge" if e.view.verdict == "wrong" else "by its answers" if e.flagged else "no"
        cells = (e.case, e.classification, e.engine, e.operator, got, e.view.verdict, flagged, ulp, e.note[:80])
        table.add_row(*map(Text, cells))
    return table


def _totals(found: list[Entry], defects: list[Entry]) -> Text:
    verdicts = Counter(e.view.verdict for e in found)
    missed, alarms = [e for e in found if e.missed], [e for e in found if e.false_alarm]
    lines = [
        f"{len({e.case for e in found})} cases, {len(found)} answers: {dict(verdicts)}",
        f"bugs and NaN traps that are still shown: {len(defects)} answers in {len({e.case for e in defects})} cases; "
        f"flagged {sum(e.flagged for e in defects)}, of these by the judge alone "
        f"{sum(e.view.verdict == 'wrong' for e in defects)}",
        f"wrong answers not flagged: {len(missed)} {sorted({(e.case, e.engine) for e in missed})}",
        f"legal answers called wrong: {len(alarms)} {sorted({(e.case, e.engine) for e in alarms})}",
    ]
    return Text("\n".join(lines))


@click.command()
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--backends", default="", help="Names, with commas; default: all installed engines.")
@click.option("--only", default="", help="Cases whose name contains this.")
def main(path: Path, backends: str, only: str) -> None:
    """Judge the cases in the file at PATH."""
    cases = [case for case in json.loads(path.read_text()) if only in case["id"]]
    found = list(entries(cases, backends.split(",") if backends else default_names()))
    console = Console(width=None if sys.stdout.isatty() else 200)
    for part in report(found):
        console.print(part)
    sys.exit(1 if any(e.missed or e.false_alarm for e in found) else 0)


if __name__ == "__main__":
    main()
