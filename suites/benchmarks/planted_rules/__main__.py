"""The table of planted errors: what `ad.check_rule` finds, beside other gradient checkers.

Run as ``python -m adbridge.suites.benchmarks.planted_rules``, with ``--peers`` for the others. Exit codes: 0 every
planted error was found and no right rule was flagged (by adbridge); 1 otherwise; 2 wrong usage.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from adbridge.registry import is_installed
from adbridge.report.tables import seconds as show_seconds

from .answers import RULE_OF, SUBJECTS, Answers, measure
from .mutants import KINDS, MUTANTS
from .peers import CANNOT, CRASHED, FOUND, PASSED, PEERS
from .rules import RULES


def table(answers: Answers, names: Sequence[str]) -> Table:
    """A row per class; then all, false alarms, what could not be run, and times."""
    shown = Table(title="planted errors found", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1))
    shown.add_column("class")
    shown.add_column("errors", justify="right")
    for checker in answers.checkers:
        shown.add_column(checker, justify="right")
    wrong = [mutant for mutant in MUTANTS if mutant.name in set(names)]
    for kind in KINDS:
        if mine := [m.name for m in wrong if m.kind == kind]:
            shown.add_row(kind, str(len(mine)), *(_found(answers, c, mine) for c in answers.checkers))
    shown.add_section()
    everything = [m.name for m in wrong]
    shown.add_row("all", str(len(wrong)), *(_percent_found(answers, c, everything) for c in answers.checkers))
    shown.add_row("", "", *(_found(answers, c, everything) for c in answers.checkers))
    right = [name for name in names if name in RULES]
    shown.add_row("right rules flagged", str(len(right)), *(_false_alarms(answers, c) for c in answers.checkers))
    shown.add_row("right rules not run", "", *(str(len(answers.right(c, CANNOT))) for c in answers.checkers))
    shown.add_row("time of a check, median", "", *(_time(answers, c, 0.5) for c in answers.checkers))
    shown.add_row("time of a check, longest", "", *(_time(answers, c, 1.0) for c in answers.checkers))
    return shown


def _found(answers: Answers, checker: str, names: Sequence[str]) -> str:
    """Found, of those that its engine can run."""
    found, missed = answers.counts(checker, names)
    text = f"{found} of {found + missed}" if found + missed < len(names) else str(found)
    return text if missed == 0 else f"[yellow]{text}[/yellow]"


def _percent_found(answers: Answers, checker: str, names: Sequence[str]) -> str:
    found, missed = answers.counts(checker, names)
    return _percent(found, found + missed)


def _false_alarms(answers: Answers, checker: str) -> str:
    flagged, passed = (len(answers.right(checker, outcome)) for outcome in (FOUND, PASSED))
    return f"{flagged} ({_percent(flagged, flagged + passed)})"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f}%" if whole else "-"


def _time(answers: Answers, checker: str, share: float) -> str:
    times = answers.seconds(checker)
    return show_seconds(times[round(share * (len(times) - 1))]) if times else "-"


def misses(answers: Answers, checker: str, names: Sequence[str]) -> list[str]:
    """A line for each planted error that a checker passed, and each right rule that it flagged, with its words."""
    wrong = [name for name in names if name in RULE_OF]
    odd = {
        "not found": answers.wrong(checker, wrong, PASSED),
        "flagged though right": answers.right(checker, FOUND),
        "crashed": [*answers.wrong(checker, wrong, CRASHED), *answers.right(checker, CRASHED)],
    }
    said = {name: answers.of(checker, name) for found in odd.values() for name in found}
    return [f"{what}: {name} {(a.why if (a := said[name]) else '')}" for what, found in odd.items() for name in found]


@click.command()
@click.option("--peers", is_flag=True, help="Run the gradient checkers of PyTorch, JAX and autograd too.")
@click.option("--backends", default=None, help="Those on which adbridge checks, separated by commas.")
@click.option("--only", default="", help="Rules, errors and classes whose name has this in it.")
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, help="Processes.")
def main(peers: bool, backends: str | None, only: str, jobs: int) -> None:
    """Check rules with planted errors, and right ones, and print what is found."""
    names = [name for name in SUBJECTS if only in name]
    if not names:
        raise click.UsageError(f"no rule or error has {only!r} in its name")
    others = [p.name for p in PEERS if peers and is_installed(p.engine)]
    chosen = tuple(backends.split(",")) if backends else None
    answers = measure(names, ["adbridge", *others], chosen, jobs)
    console = Console(width=None if sys.stdout.isatty() else 160)  # a log has no width of its own
    console.print(table(answers, names))
    missed = misses(answers, "adbridge", names)
    for line in missed:
        console.print(escape(line))
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
