"""A run as tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
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
    for _, problems in groupby(_by_problem(run.records), key=lambda records: records[0]["suite"]):
        several: list[list[Record]] = []
        single: list[list[Record]] = []
        for records in problems:
            (several if len(_sizes(records)) > 1 else single).append(records)
        if single:
            parts += [answers_table(single, width), Text()]
        for records in several:
            parts += [sizes_table(records, width), Text()]
    for table in (growth_table(run.records), failures_table(run.records)):
        if table.row_count:
            parts += [table, Text()]
    return Group(*parts, summary(run))


def answers_table(problems: Sequence[Sequence[Record]], width: int) -> Table:
    """Problems of one size, a row each: per backend the worst verdict, and what the gradient costs."""
    title = "verdict, and of the gradient: time, ratio to the primal, peak memory"
    table = _table(f"{problems[0][0]['suite']}: {title}")
    table.add_column("problem", no_wrap=True)
    table.add_column("n → m", justify="right", no_wrap=True)
    backends = _unique(r["backend"] for records in problems for r in records)
    for backend in backends:
        table.add_column(backend, justify="right")
    table.add_column("worst error", justify="right")
    narrow = width < 50 + _CELL * len(backends)
    for records in problems:
        cells = [_answer_cell([r for r in records if r["backend"] == b], narrow) for b in backends]
        size = f"{count(records[0]['n'])} → {count(records[0]['m'])}"
        table.add_row(escape(records[0]["problem"]), size, *cells, _worst_error(records))
    return table


def sizes_table(records: Sequence[Record], width: int) -> Table:
    """One problem of several sizes: a row per operator and backend, a column per size."""
    first = records[0]
    table = _table(f"{first['suite']}, {escape(first['problem'])}: time, ratio to the primal, peak memory")
    table.add_column("operator", no_wrap=True)
    table.add_column("backend", no_wrap=True)
    sizes = _sizes(records)
    narrow = width < 50 + _CELL * len(sizes)
    for n, m in sizes:
        table.add_column(f"n={count(n)}, m={count(m)}", justify="right")
    table.add_column("verdict", no_wrap=True)
    table.add_column("worst error", justify="right", no_wrap=True)
    for operator in _unique(map(_operator, records)):
        rows = [r for r in records if _operator(r) == operator]
        for i, backend in enumerate(_unique(r["backend"] for r in rows)):
            found = {(r["n"], r["m"]): r for r in rows if r["backend"] == backend}
            cells = [_cost_cell(found[size], narrow) if size in found else Text("-") for size in sizes]
            verdict = _verdict_text([r["verdict"] for r in found.values()])
            table.add_row(operator if i == 0 else "", backend, *cells, verdict, _worst_error(list(found.values())))
        table.add_section()
    return table


def growth_table(records: Sequence[Record]) -> Table:
    """Fitted exponents: cost ~ size^p over the largest sizes, with the interval for times."""
    table = _table("growth: exponent p of cost ~ size^p, over the largest sizes [5% to 95%]")
    for column in ("problem", "operator", "cost", "size"):
        table.add_column(column, no_wrap=True)
    backends = _unique(r["backend"] for r in records)
    for backend in backends:
        table.add_column(backend, justify="right", no_wrap=True)
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for g in growths(list(records)):
        span = f"{g['variable']}: {count(g['from_size'])} to {count(g['to_size'])}"
        key = (g["problem"], _operator(g), "time" if g["quantity"] == "seconds" else "memory", span)
        interval = f" [{g['low']:.2f}, {g['high']:.2f}]" if g["quantity"] == "seconds" else ""
        rows.setdefault(key, {})[g["backend"]] = escape(f"{g['exponent']:.2f}{interval}")
    for row in sorted(rows, key=lambda key: (key[0], key[2] == "memory", key[3][0], key[1])):
        table.add_row(*map(escape, row), *(rows[row].get(b, "-") for b in backends))
    return table


def failures_table(records: Sequence[Record]) -> Table:
    """The cases that did not agree, and where they are off."""
    failed = [r for r in records if r["verdict"] != "agree" or r["outcome"] != "ok"]
    more = f" (the first {_FAILURES_SHOWN} of {len(failed)})" if len(failed) > _FAILURES_SHOWN else ""
    table = _table(f"not in agreement{more}")
    for column in (
        "backend",
        "problem",
        "n → m",
        "operator",
        "outcome",
        "error",
        "entry: got, expected",
        "note",
    ):
        table.add_column(column, overflow="fold")
    for r in failed[:_FAILURES_SHOWN]:
        error = r.get("relative_error")
        where = f"{r['entry'] or 'output'}: {number(r['got'])}, {number(r['expected'])}" if "got" in r else ""
        table.add_row(
            r["backend"], escape(r["problem"]), f"{count(r['n'])} → {count(r['m'])}", _operator(r), r["outcome"],
            "" if error is None else f"{error:.1e}", escape(where), escape(r.get("note") or ""),
        )  # fmt: skip
    return table


def summary(run: Run) -> Text:
    """The last lines: who agrees, who does not, where the records are."""
    compared = [r for r in run.records if r["verdict"] in ("agree", "wrong")]
    agreed = [r for r in compared if r["verdict"] == "agree"]
    backends = _unique(r["backend"] for r in run.records)
    text = Text()
    apart = max((r["disagreement"] for r in agreed if not math.isnan(r["disagreement"])), default=None)
    if compared and len(agreed) == len(run.records):
        text.append(f"{_listed(backends)} agree{'s' * (len(backends) == 1)} on all {len(agreed)} results", style="green")
    else:
        text.append(f"{len(agreed)} of {len(run.records)} results agree", style="bold red")
    if apart is not None:
        text.append(f" (largest relative difference between two that are right: {apart:.1e})")
    for backend in run.culprits:
        verdicts = [r["verdict"] for r in run.records if r["backend"] == backend]
        text.append(f"\n{backend} is wrong in {verdicts.count('wrong')} of its {len(verdicts)} results", "bold red")
    failed = [r for r in run.records if r["verdict"] == "error"]
    for backend in _unique(r["backend"] for r in failed):
        text.append(f"\n{backend} failed in {sum(r['backend'] == backend for r in failed)} cases", "bold red")
    text.append(f"\nrecords: {run.path / 'records.jsonl'}")
    return text


# Cells.


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1))


def _answer_cell(records: Sequence[Record], narrow: bool) -> Text:
    text = _verdict_text([r["verdict"] for r in records])
    for record in records:
        if record["operator"] in ("grad", "vjp") and record.get("seconds_min"):
            text.append(f"\n{_cost(record, narrow)}", style="default")
    return text


def _cost_cell(record: Record, narrow: bool) -> Text:
    if record.get("seconds_min") is None:
        return Text(record["outcome"], style=_STYLES.get(record["verdict"], ""))
    return Text(_cost(record, narrow), style="" if record["verdict"] == "agree" else "red")


def _cost(record: Record, narrow: bool) -> str:
    time = seconds(record["seconds_min"])
    if record["operator"] != "value" and record.get("primal_seconds"):
        time += f" {ratio(record['seconds_min'] / record['primal_seconds']) + 'x':>5}"
    if record.get("peak_alloc_bytes") is None:
        return time
    return f"{time}{chr(10) if narrow else ' '}{size(record['peak_alloc_bytes']):>8}"


def _verdict_text(verdicts: Sequence[str]) -> Text:
    found = worst(list(verdicts))
    return Text(found, style=_STYLES.get(found, ""))


def _worst_error(records: Iterable[Record]) -> str:
    errors = [r["relative_error"] for r in records if r.get("relative_error") is not None]
    return f"{max(errors):.0e}" if errors else "-"


def _operator(record: Record) -> str:
    return f"{record['operator']} {record['mode']}" if record["operator"] == "jacobian" else str(record["operator"])


def _by_problem(records: Sequence[Record]) -> list[list[Record]]:
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
            return f"{_three(value / scale)} {unit}"
    return f"{_three(value / 1e-9)} ns"


def size(value: float) -> str:
    """``1.23 MB``, decimal units."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{_three(value / scale)} {unit}"
    return f"{value:.0f} B"


def ratio(value: float) -> str:
    """Two digits."""
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def count(value: int) -> str:
    """A size: in full below a million, else like ``1e+06``."""
    return str(value) if value < 10**6 else f"{value:.3g}"


def number(value: object) -> str:
    """A value from a result, with the digits of a double."""
    return f"{value:.17g}" if isinstance(value, float) else str(value)


def _three(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
