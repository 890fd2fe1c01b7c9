"""The command line: `adbridge backends`, `adbridge run`, `adbridge check`, `adbridge trace`.

Exit codes: 0 all agree, 1 disagreement, 2 wrong usage, 3 the run itself failed.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adbridge import __version__, shell
from adbridge.checking_cli import check
from adbridge.errors import AdbridgeError

if TYPE_CHECKING:
    from rich.console import Console


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """One grad/jvp/vjp protocol over several automatic-differentiation engines."""


cli.add_command(check)


@cli.command()
def backends() -> None:
    """List the backends: engine, version, devices, and how to install what is missing."""
    from rich.table import Table

    from adbridge.registry import backends as frame

    table = Table(title="backends")
    for column in ("name", "version", "devices", "capabilities"):
        table.add_column(column)
    rows = frame().to_dict("records")
    for row in rows:
        if row["available"]:
            table.add_row(row["name"], row["engine_version"], row["devices"], row["capabilities"])
        else:
            table.add_row(row["name"], "[yellow]not available[/]", "", "")
    console = shell.console()
    console.print(table)
    for row in rows:
        if not row["available"]:
            console.print(row["why_not"], markup=False, highlight=False)


def _sizes(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    try:
        sizes = tuple(int(float(word)) for word in value.split(","))
        if any(s < 1 or s != float(word) for s, word in zip(sizes, value.split(","), strict=True)):
            raise ValueError
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{value!r} is not a list of positive sizes such as 100,1e4") from None
    return sizes


@cli.command()
@click.argument("suites", nargs=-1, metavar="[SUITE]...")
@click.option("--backends", "names", callback=shell.names, metavar="A,B", help="Backends; default: all installed.")
@click.option("--n", callback=_sizes, metavar="N,N", help="Numbers of inputs, for problems that are free in n.")
@click.option("--m", callback=_sizes, metavar="M,M", help="Numbers of outputs, for problems that are free in m.")
@click.option("--data", type=click.Path(path_type=Path), help="File or folder of real inputs (ADBench).")
@click.option("--device", default="cpu", show_default=True, help="Device of every backend.")
@click.option("--dtype", default="float64", show_default=True, type=click.Choice(["float64", "float32"]))
@click.option("--out", default="runs", show_default=True, type=click.Path(path_type=Path), help="Folder of the runs.")
@click.option("--seconds", default=0.1, show_default=True, help="Steady-state timing per case, in seconds.")
@click.option("--timeout", default=120.0, show_default=True, help="Longest silence of a process, in seconds.")
@click.option("--memory/--no-memory", default=True, help="Measure peak memory, too.")
@click.option("--resume", "unfinished", type=click.Path(path_type=Path), help="Finish the run in this folder instead.")
def run(
    suites: tuple[str, ...],
    names: list[str] | None,
    n: tuple[int, ...] | None,
    m: tuple[int, ...] | None,
    data: Path | None,
    device: str,
    dtype: str,
    out: Path,
    seconds: float,
    timeout: float,
    memory: bool,
    unfinished: Path | None,
) -> None:
    """Check that backends agree on the problems of each SUITE (default: quick), and record time and memory.

    Suites: textbook, elementary, linalg, scaling, adbench, quick, or MODULE:SUITE.
    """
    from adbridge.bench.runner import resume
    from adbridge.bench.runner import run as run_suites
    from adbridge.report.tables import run_tables

    console = shell.console()
    with _Progress(console) as progress:
        if unfinished is not None:
            done = resume(unfinished, progress=progress)
        else:
            done = run_suites(
                suites or ("quick",),
                backends=names,
                n=n,
                m=m,
                data=data,
                device=device,
                dtype=dtype,
                out=out,
                seconds=seconds,
                timeout=timeout,
                memory=memory,
                progress=progress,
            )
    console.print(run_tables(done, console.width))
    sys.exit(done.exit_code)


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("function", metavar="MODULE:FUNCTION")
@click.option("--args", "said", is_flag=True, help="What follows are the arguments: numbers, or lists as [1,2].")
@click.argument("args", nargs=-1, type=click.UNPROCESSED, callback=shell.values, metavar="[NUMBER]...")
@click.option("--jvp", "tangents", callback=shell.seeds, metavar="T,T", help="The tangent trace; one per argument.")
@click.option("--vjp", "reverse", is_flag=True, help="The adjoint trace, of a scalar result.")
@click.option("--python", "source", is_flag=True, help="Print NumPy source instead (with --jvp or --vjp, of these).")
@click.option("--svg", type=click.Path(path_type=Path, dir_okay=False), help="Draw the computational graph, too.")
def trace(
    function: str,
    said: bool,
    args: tuple[Any, ...],
    tangents: tuple[Any, ...] | None,
    reverse: bool,
    source: bool,
    svg: Path | None,
) -> None:
    """Print how MODULE:FUNCTION is evaluated at the given arguments, step by step, as the textbooks do.

    For example: adbridge trace numpy:hypot --args 3.0 4.0 --vjp
    """
    from adbridge.tracing import trace as trace_function

    if reverse and tangents is not None:
        raise click.UsageError("give --jvp or --vjp, not both")
    program = trace_function(shell.function(function, args), *args)
    shown = program.vjp() if reverse else program.jvp(tangents) if tangents is not None else None
    if svg is not None:
        (shown or program).to_svg(svg)
    name = function.rpartition(":")[2].rpartition(".")[2]
    derived = program if shown is None else shown.program
    click.echo(derived.to_python(name if shown is None else f"derivative_of_{name}") if source else shown or program)


class _Progress:
    """A progress bar over the groups of a run; called by the runner."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        self._progress = Progress(*columns, console=console, transient=True)
        self._task = self._progress.add_task("starting", total=None)
        self._folder: Path | None = None

    def __enter__(self) -> _Progress:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        self._progress.stop()
        if kind is KeyboardInterrupt:
            again = f"; finish it with: adbridge run --resume {self._folder}" if self._folder else ""
            click.echo(f"interrupted{again}", err=True)
            sys.exit(shell.FAILED)

    def __call__(self, done: int, total: int, what: str, folder: Path) -> None:
        self._folder = folder
        self._progress.update(self._task, completed=done, total=total, description=what)


def main() -> None:
    """Entry point: every error becomes a message and an exit code."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does: MODULE:SUITE may lie here
    try:
        cli(prog_name="adbridge")
    except AdbridgeError as exc:
        click.echo(f"error: {exc}", err=True)
        sys.exit(shell.USAGE if isinstance(exc, shell.USAGE_ERRORS) else shell.FAILED)
    except Exception:
        traceback.print_exc()
        sys.exit(shell.FAILED)


if __name__ == "__main__":
    main()
