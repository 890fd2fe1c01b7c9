"""An `Agreement` as text: the conclusion in words, the verdicts as a table, the choices at a kink, the script."""

from __future__ import annotations

import inspect
import io
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from adbridge.trees import PyTree

if TYPE_CHECKING:
    from adbridge.validate.comparison.agreement import Agreement, Row

WIDTH = 100
_SHOWN = 6  # entries of an array that are written out
_LEGAL = ("convention", "infinite", "undefined")
_NO_ANSWER = ("unsupported", "error")


def agreement_text(agreement: Agreement) -> str:
    """Plain text of at most `WIDTH` columns, but for the lines of the function's own source."""
    parts = [filled(conclusion(agreement))]
    if agreement.rows:
        parts += [_table(agreement.rows, _cell_of(agreement)), _details(agreement), _choices(agreement)]
    parts.append(_footer(agreement))
    if agreement.snippet:
        parts.append("to reproduce:\n\n" + textwrap.indent(agreement.snippet, "    ", lambda line: bool(line.strip())))
    return "\n\n".join(part.rstrip() for part in parts if part)


# The conclusion.


def conclusion(agreement: Agreement) -> str:
    """Who is right, in a sentence."""
    row = agreement.culprit
    if row is None:
        return _without_fault(agreement)
    if row.verdict == "wrong":
        return _wrong(agreement, row)
    failing = _unique(r.backend for r in agreement.rows if r.verdict == "error")
    return f"{listed(failing)} {'fails' if len(failing) == 1 else 'fail'}: {row.backend}'s {row.operator} {row.note}"


def _wrong(agreement: Agreement, row: Row) -> str:
    culprits = agreement.culprits
    kind = agreement.point.kind if agreement.point else "unresolved"
    why = "the derivative exists: smooth" if kind == "smooth" else f"the point: {kind}"
    verb, whose = ("is", "") if len(culprits) == 1 else ("are", f"{row.backend}'s ")
    return f"{listed(culprits)} {verb} wrong: {whose}{_fault(row)}{f' ({why})' if row.operator != 'value' else ''}"


def _fault(row: Row) -> str:
    """``grad at x[0] is nan, should be 0``."""
    if row.note.startswith("no subgradient"):
        return f"{row.operator} is {row.note}"
    at = f" at {row.entry}" if row.entry else ""
    if row.got is None:
        return f"{row.operator}{at}: {row.note or 'no number to show'}"
    wanted = f"in {row.expected}" if isinstance(row.expected, str) else value(row.expected)
    return f"{row.operator}{at} is {value(row.got)}, should be {wanted}"


def _without_fault(agreement: Agreement) -> str:
    judged = [row for row in agreement.rows if row.verdict not in _NO_ANSWER]
    if not judged:
        return (
            f"unresolved: nothing was compared, {'every backend refused' if agreement.rows else 'no backend was asked'}"
        )
    if unsure := [row for row in judged if row.verdict == "unresolved"]:
        operators, notes = listed(_unique(row.operator for row in unsure)), _unique(row.note for row in unsure)
        return f"unresolved: nobody can say who is right about {operators}{f' ({notes[0]})' if notes[0] else ''}"
    kind = agreement.point.kind if agreement.point else "smooth"
    legal = [row for row in judged if row.verdict in _LEGAL]
    if kind in _SAID and legal:
        every = _unique(row.backend for row in agreement.rows)
        able = _unique(row.backend for row in judged if row.operator != "value")
        said = _SAID[kind] if len(every) == len(able) else f"{_SAID[kind]} ({listed(able)})"
        return f"{_KINDS.get(kind, kind)} at {_at(agreement)}: {said}"
    return _agree(agreement, judged)


_KINDS = {"infinite": "infinite derivative"}
_SAID = {
    "kink": "every engine made a legal choice",
    "jump": "every engine gave the derivative beside it, or nan",
    "infinite": "every engine gave a legal answer",
    "undefined": "the function has no value here, and no answer is wrong",
}


def _agree(agreement: Agreement, judged: Sequence[Row]) -> str:
    names, operators = _unique(r.backend for r in judged), _unique(r.operator for r in judged)
    said = f"{', '.join(names)} {'agree' if len(names) > 1 else 'agrees with the referee'}: {', '.join(operators)}"
    worst = max(judged, key=lambda row: -1.0 if np.isnan(row.error_ulp) else row.error_ulp)
    if agreement.method != "arb" or np.isnan(worst.error_ulp):
        return said
    return f"{said}; worst {ulp(worst.error_ulp)} ({worst.backend}, {worst.operator})"


def _at(agreement: Agreement) -> str:
    """The point: ``x = [0, 0, 0]``."""
    named = zip(_parameters(agreement), agreement.args, strict=True)
    return ", ".join(f"{name} = {tree(arg)}" for name, arg in named)


def _parameters(agreement: Agreement) -> list[str]:
    count = len(agreement.args)
    try:
        names = list(inspect.signature(agreement.fun).parameters)[:count]
    except (TypeError, ValueError):
        names = []
    return names if len(names) == count else [f"args[{i}]" for i in range(count)]


# Tables.


def _table(rows: Sequence[Row], cell: Callable[[Row], str]) -> str:
    """A row per backend, a column per operator."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    operators = _unique(row.operator for row in rows)
    table.add_column("", no_wrap=True)
    for operator in operators:
        table.add_column(operator)
    for backend in _unique(row.backend for row in rows):
        mine = {row.operator: row for row in rows if row.backend == backend}
        table.add_row(Text(backend), *(Text(cell(mine[op])) if op in mine else "" for op in operators))
    out = io.StringIO()
    Console(file=out, width=WIDTH, color_system=None, force_terminal=False, legacy_windows=False).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _cell_of(agreement: Agreement) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        # Beside differences the error is what their bar does not cover, and no measure of the engine.
        known = row.verdict in ("agree", "wrong") and agreement.method == "arb" and np.isfinite(row.error_ulp)
        return f"{row.verdict} {ulp(row.error_ulp)}" if known else row.verdict

    return cell


def _choices(agreement: Agreement) -> str:
    """Each engine's answer where several are legal."""
    operators = _unique(row.operator for row in agreement.rows if row.verdict in _LEGAL)
    chosen = [row for row in agreement.rows if row.operator in operators and row.result is not None]
    return "each engine's answer:\n" + _table(chosen, _answer) if chosen else ""


def _answer(row: Row) -> str:
    whole = row.result
    if row.operator in ("grad", "vjp", "hvp") and isinstance(whole, tuple) and len(whole) == 1:
        whole = whole[0]
    size = whole.size if isinstance(whole, np.ndarray) else 0
    return f"{row.entry}: {value(row.got)}" if size > _SHOWN and row.got is not None else tree(whole)


# What the tables do not say.


def _details(agreement: Agreement) -> str:
    """A line for each row that is wrong, and for each reason of the others that need one."""
    lines = [f"{row.backend}: {_fault(row)}{_noted(row)}" for row in agreement.rows if row.verdict == "wrong"]
    reasons: dict[tuple[str, str, str], list[str]] = {}  # (backend, verdict, note) -> operators
    for row in agreement.rows:
        if row.note and row.size + len(row.verdict) > len("agree") and row.verdict not in ("wrong", *_LEGAL):
            reasons.setdefault((row.backend, row.verdict, _brief(row)), []).append(row.operator)
    shared: dict[tuple[str, str, str], list[str]] = {}  # (operators, verdict, note) -> backends
    for (backend, verdict, note), operators in reasons.items():
        shared.setdefault((", ".join(operators), verdict, note), []).append(backend)
    for (which, verdict, note), backends in shared.items():
        said = "" if verdict in ("agree", "error") else f"{verdict}, "
        lines.append(f"{', '.join(backends)}: {which} {said}{note}")
    return "\n".join(map(filled, lines))


def _brief(row: Row) -> str:
    """The note; of an exception that many words explain, its name (the frame has the words)."""
    return re.sub(r" \((\w+): .*\)$", r" (\1)", row.note) if row.verdict == "unsupported" else row.note


def _noted(row: Row) -> str:
    said = row.got is None or row.note.startswith("no subgradient")
    return f" ({row.note})" if row.note and not said else ""


def _footer(agreement: Agreement) -> str:
    point, lines = agreement.point, []
    if point is not None:
        where = f" at {_at(agreement)}" if point.kind == "smooth" else ""
        how = "Arb arithmetic" if agreement.method == "arb" else f"differences, because {agreement.why[:160]}"
        lines.append(f"referee: {point}{where}; by {how}")
    elif agreement.why:
        lines.append(agreement.why)
    for reason in _unique(agreement.left_out.values()):
        names = [name for name, why in agreement.left_out.items() if why == reason]
        lines.append(f"left out: {', '.join(names)} ({reason})")
    return "\n".join(map(filled, lines))


# Words and numbers.


def tree(whole: PyTree) -> str:
    """An array with few entries in full, a larger one by its dtype and shape; containers of them."""
    if isinstance(whole, dict):
        return "{" + ", ".join(f"{key!r}: {tree(part)}" for key, part in whole.items()) + "}"
    if type(whole) in (tuple, list):
        return f"({', '.join(map(tree, whole))})" if isinstance(whole, tuple) else f"[{', '.join(map(tree, whole))}]"
    if not isinstance(whole, np.ndarray) or whole.dtype.kind not in "biufc":
        return value(whole)
    if whole.size > _SHOWN or not whole.size:
        return f"{whole.dtype}[{','.join(map(str, whole.shape))}]"
    return _nested(whole)


def _nested(array: Any) -> str:
    return value(array[()]) if array.ndim == 0 else f"[{', '.join(map(_nested, array))}]"


def value(number: object) -> str:
    """Up to ten digits of a number; other things as they are."""
    if isinstance(number, (complex, np.complexfloating)):
        return f"{complex(number):.10g}"
    return f"{float(number):.10g}" if isinstance(number, (float, np.floating)) else str(number)


def ulp(error: float) -> str:
    """``2.1 ulp``."""
    return f"{error:.1f} ulp" if error < 1000 else f"{error:.0e} ulp"


def filled(line: str) -> str:
    """A line, broken where it is longer than `WIDTH`."""
    return "\n".join(textwrap.wrap(line, WIDTH, subsequent_indent="    ", break_long_words=False)) or line


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _unique(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))
