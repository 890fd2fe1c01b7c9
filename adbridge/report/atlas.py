"""The atlas as text: counts, what every engine answers at every special point, and the findings."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from adbridge.validate.ledger import Defect
from adbridge.validate.verdict import VERDICTS

if TYPE_CHECKING:
    from adbridge.validate.atlas import Atlas, Row

_STYLES = {"agree": "green", "known": "yellow", "wrong": "bold red", "error": "bold red", "unsupported": "dim"}
_REFEREE = "referee"


def as_text(atlas: Atlas, width: int = 200) -> str:
    """The whole atlas, without colours."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(atlas_tables(atlas))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def atlas_tables(atlas: Atlas) -> Group:
    """What is printed: the table of all answers, the counts, what is known, and what is new."""
    return Group(_answers(atlas), _counts(atlas), _known(atlas), *_news(atlas), _summary(atlas))


def _answers(atlas: Atlas) -> Table:
    """A row per question, a column per backend; a row only where not all answers are the one right answer."""
    backends = list(atlas.versions)
    table = Table(title=f"{atlas.suite}: answers by point", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1))
    for column in ("point", "operator", "right"):
        table.add_column(column, overflow="fold")
    for backend in backends:
        table.add_column(backend, overflow="fold")
    for (case, operator), rows in _grouped(atlas.rows).items():
        of = {row.backend: row for row in rows}
        if all(row.verdict == "agree" for row in rows):
            continue
        cells = [_cell(of[b]) if b in of else Text("-") for b in backends]
        table.add_row(case, operator, Text(rows[0].expected), *cells)
    return table


def _grouped(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """By case and operator. The modes of a Hessian are one row where every backend answers alike in all of them."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.backend != _REFEREE:
            found.setdefault((row.case, row.operator), []).append(row)
    merged: dict[tuple[str, str], list[Row]] = {}
    for (case, operator), of in found.items():
        name, _, mode = operator.partition(" ")
        first = next((key for key in merged if key[0] == case and key[1].partition(" ")[0] == name), None)
        if mode and first is not None and _alike(merged[first], of):
            merged[case, f"{first[1]},{mode}"] = merged.pop(first)
        else:
            merged[case, operator] = of
    return merged


def _alike(first: Sequence[Row], second: Sequence[Row]) -> bool:
    return [(r.verdict, r.known, _number(r.value)) for r in first] == [
        (r.verdict, r.known, _number(r.value)) for r in second
    ]


def _cell(row: Row) -> Text:
    verdict = "known" if row.known else row.verdict
    shown = "" if row.value is None else f"{_number(row.value)} "
    return Text(f"{shown}{verdict}", style=_STYLES.get(verdict, ""))


def _number(value: Any) -> str:
    """Four digits; of a large array, the beginning."""
    text = np.array2string(np.asarray(value), precision=4, separator=" ", threshold=9, edgeitems=2)
    return " ".join(text.split()).replace("[ ", "[")


def _counts(atlas: Atlas) -> Table:
    table = Table(title="verdicts", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1))
    found = atlas.counts()
    columns = [v for v in (*VERDICTS, "known") if any(v in of for of in found.values())]
    table.add_column("backend")
    table.add_column("version")
    for column in columns:
        table.add_column("known defect" if column == "known" else column, justify="right")
    for backend, of in found.items():
        table.add_row(backend, atlas.versions.get(backend, ""), *(str(of.get(c, "")) for c in columns))
    return table


def _known(atlas: Atlas) -> Table:
    table = Table(title="known defects", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1))
    for column in ("point", "backend", "what", "thread"):
        table.add_column(column, overflow="fold")
    seen = {(row.case, row.backend) for row in atlas.known_defects}
    for defect in atlas.ledger:
        if (defect.case, defect.engine) in seen:
            operators = ", ".join(defect.operators)
            table.add_row(defect.case, defect.engine, Text(f"{operators}: {defect.what}"), defect.thread)
    return table


def _news(atlas: Atlas) -> list[Text]:
    """What is new, a line each; the same answer to several questions of a case is one."""
    lines = [_line("new defect", rows) for rows in _same(atlas.new_defects)]
    lines += [_line("referee against closed form", rows) for rows in _same(atlas.contradictions)]
    return [*lines, *map(_mended_line, atlas.mended)]


def _same(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows that differ in the backend or the operator alone, together."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        found.setdefault((row.case, row.expected, row.verdict, row.note, _got(row)), []).append(row)
    return list(found.values())


def _got(row: Row) -> str:
    return "no answer" if row.value is None else _number(row.value)


def _line(kind: str, rows: Sequence[Row]) -> Text:
    row = rows[0]
    operators, backends = (
        ", ".join(dict.fromkeys(names)) for names in zip(*((r.operator, r.backend) for r in rows), strict=True)
    )
    text = Text(f"{kind}: ", style="bold red")
    text.append(f"{row.case}, {operators} by {backends}: got {_got(row)}, right is {row.expected}", style="default")
    return text.append(f" ({row.note})" if row.note else "", style="default")


def _mended_line(defect: Defect) -> Text:
    text = Text("mended: ", style="bold green")
    return text.append(
        f"{defect.engine} is right about {defect.case}, {', '.join(defect.operators)}; "
        "please take it out of adbridge/validate/ledger.py",
        style="default",
    )


def _summary(atlas: Atlas) -> Text:
    engines = [row for row in atlas.rows if row.backend != _REFEREE]
    text = f"{len(engines)} answers at {len({row.case for row in engines})} points: "
    text += f"{len(atlas.known_defects)} known defects, {len(atlas.new_defects)} new, {len(atlas.mended)} mended"
    if atlas.contradictions:
        text += f"; in {len(atlas.contradictions)} the referee and the closed form disagree"
    return Text(text, style="bold red" if atlas.failed else "green")
