"""A run as tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from adbridge.bench.scaling import growths
from adbridge.bench.store import Record
from adbridge.validate.verdict import worst

if TYPE_CHECKING:
    from adbridge.bench.runner import Run

_STYLES = {
    "agree": "green",
    "unsupported": "yellow",
    "unresolved": "yellow",
    "wrong": "bold red",
    "error": "bold red",
}
_FAILURES_SHOWN = 20
_CELL = 25  # columns that a cell with time, ratio and memory takes


def run_tables(run: Run, width: int) -> Group:
    """Everything that a person sees at the end of a run, for a terminal of `width` columns."""
    parts: list[RenderableType] = []
    for _, problems in groupby(by_problem(run.records), key=lambda records: records[0]["suite"]):
        several: list[list[Record]] = []
        single: list[list[Record]] = []
        for records in problems:
            (several if len(_sizes(records)) > 1 else single).append(records)
        if single:
            parts += [answers_table(single, width), Text()]
        for records in several:
            parts += [sizes_table(records, width), Text()]
    if any(r.get("alloc_source", "").startswith("xla") for r in run.records):
        parts += [Text("peak memory of jax: XLA's own account, which counts the arguments too", style="dim"), Text()]
    growth = growth_table(run.records, width)
    if growth.row_count:
        parts += [growth, Text()]
    return Group(*parts, failures(run.records), summary(run))


def answers_table(problems: Sequence[Sequence[Record]], width: int) -> Table:
    """Problems of one size, a row each: per backend the worst verdict, and what the gradient costs."""
    table = _table(f"{problems[0][0]['suite']}: verdict, and of the gradient: time, ratio to the primal, peak memory")
    backends = _unique(r["backend"] for records in problems for r in records)
    if width < 50 + _CELL * len(backends):
        return _long_answers(table, problems)
    for column in ("problem", "n → m", *backends, "worst error"):
        table.add_column(column, justify="left" if column == "problem" else "right", no_wrap=True)
    for records in problems:
        cells = [_answer_cell([r for r in records if r["backend"] == b]) for b in backends]
        table.add_row(escape(records[0]["problem"]), _size(records[0]), *cells, _worst_error(records))
    return table


def verdicts_table(problems: Sequence[Sequence[Record]]) -> Table:
    """Problems, a row each: per backend the worst verdict."""
    table = _table(f"{problems[0][0]['suite']}: verdicts")
    backends = _unique(r["backend"] for records in problems for r in records)
    for column in ("problem", *backends, "worst error"):
        table.add_column(column, justify="right" if column == "worst error" else "left", overflow="fold")
    for records in problems:
        cells = [_verdict_text([r["verdict"] for r in records if r["backend"] == b]) for b in backends]
        table.add_row(escape(records[0]["problem"]), *cells, _worst_error(records))
    return table


def _long_answers(table: Table, problems: Sequence[Sequence[Record]]) -> Table:
    """The same for narrow terminals: a row per problem and backend."""
    for column in ("problem", "backend", "verdict", "time", "ratio", "memory", "error"):
        left = column in ("problem", "backend", "verdict")
        table.add_column(column, justify="left" if left else "right", overflow="fold", no_wrap=column != "problem")
    for records in problems:
        for i, backend in enumerate(_unique(r["backend"] for r in records)):
            mine = [r for r in records if r["backend"] == backend]
            costs = next((_costs(r) for r in mine if _is_gradient(r)), ("", "", ""))
            problem = escape(records[0]["problem"]) if i == 0 else ""
            table.add_row(problem, backend, _verdict_text([r["verdict"] for r in mine]), *costs, _worst_error(mine))
        table.add_section()
    return table


def sizes_table(records: Sequence[Record], width: int) -> Table:
    """One problem of several sizes: a row per operator and backend, a column per size."""
    first, sizes = records[0], _sizes(records)
    table = _table(f"{first['suite']}, {escape(first['problem'])}: time, ratio to the primal, peak memory")
    if width < 50 + _CELL * len(sizes):
        return _long_sizes(table, records)
    table.add_column("operator", no_wrap=True)
    table.add_column("backend", no_wrap=True)
    for n, m in sizes:
        table.add_column(f"n={count(n)}, m={count(m)}", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("worst error", justify="right", no_wrap=True)
    for operator, backend, rows in _by_operator(records):
        found = {(r["n"], r["m"]): r for r in rows}
        cells = [_cost_cell(found[size]) if size in found else Text("-") for size in sizes]
        table.add_row(operator, backend, *cells, _verdict_text([r["verdict"] for r in rows]), _worst_error(rows))
    return table


def _long_sizes(table: Table, records: Sequence[Record]) -> Table:
    """The same for narrow terminals: a row per operator, backend and size."""
    for column in ("operator", "backend", "n → m", "time", "ratio", "memory", "verdict"):
        left = column in ("operator", "backend", "verdict")
        table.add_column(column, justify="left" if left else "right", overflow="fold", no_wrap=column != "operator")
    for operator, backend, rows in _by_operator(records):
        for i, record in enumerate(rows):
            words = (operator, backend) if i == 0 else ("", "")
            costs = _costs(record) if record.get("seconds_min") else (record["outcome"], "", "")
            table.add_row(*words, _size(record), *costs, _verdict_text([record["verdict"]]))
    return table


def growth_table(records: Sequence[Record], width: int) -> Table:
    """Fitted exponents: cost ~ size^p over the largest sizes; in wide terminals with their intervals."""
    backends = _unique(r["backend"] for r in records)
    intervals = width >= 62 + 22 * len(backends)
    note = " [90% interval of the fit]" if intervals else ""
    table = _table(f"growth: exponent p of cost ~ size^p, over the largest sizes{note}")
    for column in ("problem", "operator", "cost", "size"):
        table.add_column(column, overflow="fold", no_wrap=intervals)
    for backend in backends:
        table.add_column(backend, justify="right", no_wrap=True)
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for g in growths(list(records)):
        span = f"{g['variable']}: {count(g['from_size'])} to {count(g['to_size'])}" if intervals else g["variable"]
        key = (g["problem"], _operator(g), "time" if g["quantity"] == "seconds" else "memory", span)
        known = intervals and not math.isnan(g["low"])
        interval = f" [{g['low']:.2f}, {g['high']:.2f}]" if known else ""
        rows.setdefault(key, {})[g["backend"]] = escape(f"{g['exponent']:.2f}{interval}")
    for row in sorted(rows, key=lambda row: (row[0], row[2] == "memory", row[3][0], row[1])):
        table.add_row(*map(escape, row), *(rows[row].get(b, "-") for b in backends))
    return table


def failures(records: Sequence[Record], rest: str = "in the records") -> Text:
    """A line for each case that did not agree: who is off, by how much, where; one per reason of failure.

    `rest` says where those are that are too many to show.
    """
    wrong = [r for r in records if r["verdict"] in ("wrong", "unresolved")]
    text = Text()
    for r in wrong[:_FAILURES_SHOWN]:
        text.append(f"{r['backend']} is {r['verdict']}", style="bold red")
        text.append(f": {_case(r)}, relative error {r['relative_error']:.1e}")
        if r.get("got") is not None:
            text.append(f", {r['entry']} is {number(r['got'])}, should be {number(r['expected'])}")
        text.append(f" ({r['note']})\n" if r.get("note") else "\n")
    if len(wrong) > _FAILURES_SHOWN:
        text.append(f"... and {len(wrong) - _FAILURES_SHOWN} more, {rest}\n")
    for (backend, outcome, note), cases in _failed(records).items():
        style = "yellow" if outcome == "unsupported" else "bold red"
        text.append(f"{backend}: {outcome}", style=style)
        text.append(f" in {_case(cases[0]) if len(cases) == 1 else f'{len(cases)} cases'}: {note}\n")
    return text


def _case(record: Record) -> str:
    size = f"n={count(record['n'])}, m={count(record['m'])}"
    return f"{record['suite']} {record['problem']}, {size}, {_operator(record)}"


def _failed(records: Sequence[Record]) -> dict[tuple[str, str, str], list[Record]]:
    """Cases that gave no result, or could not be weighed, by backend, outcome and reason."""
    found: dict[tuple[str, str, str], list[Record]] = {}
    for r in records:
        if r["verdict"] in ("error", "unsupported"):
            found.setdefault((r["backend"], r["outcome"], r.get("note") or ""), []).append(r)
        elif r.get("memory_outcome", "ok") != "ok":
            note = f"measuring memory: {r['memory_note']}"
            found.setdefault((r["backend"], r["memory_outcome"], note), []).append(r)
    return found


def summary(run: Run) -> Text:
    """The last lines: who agrees, who does not, where the records are."""
    return conclusion(run.records, run.exit_code).append(f"\nrecords: {run.path / 'records.jsonl'}")


def conclusion(records: Sequence[Record], exit_code: int) -> Text:
    """Who agrees, and who does not."""
    agreed = [r for r in records if r["verdict"] == "agree"]
    backends = _unique(r["backend"] for r in records)
    text = Text()
    if agreed and len(agreed) == len(records):
        verb = "agrees" if len(backends) == 1 else "agree"
        text.append(f"{_listed(backends)} {verb} on all {len(agreed)} results", style="green")
    else:
        style = "yellow" if exit_code == 0 else "bold red"
        text.append(f"{len(agreed)} of {len(records)} results agree", style=style)
    apart = [r["disagreement"] for r in agreed if not math.isnan(r["disagreement"])]
    if apart:
        text.append(f" (largest relative difference between two that are right: {max(apart):.1e})")
    for backend in backends:
        verdicts = [r["verdict"] for r in records if r["backend"] == backend]
        for verdict, said, style in _SAID:
            if found := verdicts.count(verdict):
                text.append(f"\n{backend} {said} {found} of its {len(verdicts)} results", style)
    return text


_SAID = (
    ("wrong", "is wrong in", "bold red"),
    ("unresolved", "could not be judged in", "bold red"),
    ("error", "failed in", "bold red"),
    ("unsupported", "does not support", "yellow"),
)


# Cells.


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1))


def _answer_cell(records: Sequence[Record]) -> Text:
    text = _verdict_text([r["verdict"] for r in records])
    for record in records:
        if _is_gradient(record):
            text.append(f"\n{_cost(record)}", style="default")
    return text


def _is_gradient(record: Record) -> bool:
    return record["operator"] in ("grad", "vjp") and bool(record.get("seconds_min"))


def _cost_cell(record: Record) -> Text:
    if record.get("seconds_min") is None:
        return Text(record["outcome"], style=_STYLES.get(record["verdict"], ""))
    return Text(_cost(record), style="" if record["verdict"] == "agree" else "red")


def _cost(record: Record) -> str:
    time, ratio_, memory = _costs(record)
    return f"{time} {ratio_:>5} {memory:>8}".rstrip() if ratio_ or memory else time


def _costs(record: Record) -> tuple[str, str, str]:
    """Time, ratio to the primal, peak memory."""
    has_ratio = record["operator"] != "value" and record.get("primal_seconds")
    weighed = record.get("peak_alloc_bytes") is not None
    return (
        seconds(record["seconds_min"]),
        f"{ratio(record['seconds_min'] / record['primal_seconds'])}x" if has_ratio else "",
        size(record["peak_alloc_bytes"]) if weighed else "",
    )


def _size(record: Record) -> str:
    return f"{count(record['n'])} → {count(record['m'])}"


def _verdict_text(verdicts: Sequence[str]) -> Text:
    found = worst(list(verdicts))
    return Text(found, style=_STYLES.get(found, ""))


def _worst_error(records: Iterable[Record]) -> str:
    errors = [r["relative_error"] for r in records if r.get("relative_error") is not None]
    return f"{max(errors):.0e}" if errors else "-"


def _operator(record: Record) -> str:
    return f"{record['operator']} {record['mode']}" if record["operator"] == "jacobian" else str(record["operator"])


def _by_operator(records: Sequence[Record]) -> Iterator[tuple[str, str, list[Record]]]:
    """Operator (only in its first row), backend, and the records of both."""
    for operator in _unique(map(_operator, records)):
        rows = [r for r in records if _operator(r) == operator]
        for i, backend in enumerate(_unique(r["backend"] for r in rows)):
            yield operator if i == 0 else "", backend, [r for r in rows if r["backend"] == backend]


def by_problem(records: Sequence[Record]) -> list[list[Record]]:
    grouped: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        grouped.setdefault((record["suite"], record["problem"]), []).append(record)
    return list(grouped.values())


def _sizes(records: Iterable[Record]) -> list[tuple[int, int]]:
    return list(dict.fromkeys((r["n"], r["m"]) for r in records))


def _unique(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


# Numbers.


def seconds(value: float) -> str:
    """``1.23 ms``: three digits and a unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= scale:
            return f"{_three(value / scale)}\u00a0{unit}"
    return f"{_three(value / 1e-9)}\u00a0ns"


def size(value: float) -> str:
    """``1.23 MB``, decimal units."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{_three(value / scale)}\u00a0{unit}"
    return f"{value:.0f}\u00a0B"


def ratio(value: float) -> str:
    """Two digits."""
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def count(value: int) -> str:
    """A size: in full up to five digits, else like ``3e5``."""
    if value < 10**5:
        return str(value)
    digits, exponent = f"{value:.2e}".split("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"


def number(value: object) -> str:
    """A value from a result; the records have all its digits."""
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _three(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
