"""`adbridge check`: who is right, from the shell, with files for CI systems."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adbridge import shell
from adbridge.errors import AdbridgeError, CapabilityError, UsageError

if TYPE_CHECKING:
    from adbridge.protocol import Backend
    from adbridge.report.checks import Checked


@dataclass(frozen=True)
class Request:
    """What was asked for: the options of the command."""

    target: str
    args: tuple[Any, ...]
    backends: list[str] | None
    dtype: str
    device: str


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("target", default="quick", metavar="[SUITE | MODULE:FUNCTION]")
@click.option("--args", "said", is_flag=True, help="What follows are the arguments: numbers, or lists as [1,2].")
@click.argument("args", nargs=-1, type=click.UNPROCESSED, callback=shell.values, metavar="[NUMBER]...")
@click.option("--backends", "names", callback=shell.names, metavar="A,B", help="Backends; default: all installed.")
@click.option("--dtype", default="float64", show_default=True, type=click.Choice(["float64", "float32"]))
@click.option("--device", default="cpu", show_default=True, help="Device of every backend.")
@click.option("--junit", callback=shell.writable, type=click.Path(path_type=Path), help="Write JUnit XML, too.")
@click.option("--json", "out", callback=shell.writable, type=click.Path(path_type=Path), help="Write JSON, too.")
def check(
    target: str,
    said: bool,
    args: tuple[Any, ...],
    names: list[str] | None,
    dtype: str,
    device: str,
    junit: Path | None,
    out: Path | None,
) -> None:
    """Judge derivatives, without timing them, and say who is wrong.

    SUITE (default: quick): every backend against the known answer of each problem; conventions: what each engine
    makes of kinks, ties and other special points. MODULE:FUNCTION, at the arguments: every backend against the
    referee; a custom rule, too, against the function that it is of.

    For example: adbridge check mymodule:f --args 1.0 [2.0,3.0] --junit check.xml
    """
    from adbridge.report.checks import write_json
    from adbridge.report.junit import write_junit

    if junit is not None and junit == out:
        raise click.UsageError("give --junit and --json two files, not one")
    checked = _checked(Request(target, args, names, dtype, device))
    for path, write in ((junit, write_junit), (out, write_json)):
        if path is not None:
            write(checked, path)
    if isinstance(checked.text, str):
        click.echo(checked.text, err=checked.kind == "failed")
    else:
        shell.console().print(checked.text)
    sys.exit(checked.exit_code)


def _checked(request: Request) -> Checked:
    """The outcome; a check that fails is one, too, so that it reaches the files. Wrong usage raises."""
    started = time.perf_counter()
    try:
        found = _checker(request)(request)
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        sys.exit(shell.FAILED)
    except shell.USAGE_ERRORS:
        raise
    except Exception as exc:
        found = _failed(request, exc)
    return replace(found, seconds=time.perf_counter() - started)


def _failed(request: Request, exc: Exception) -> Checked:
    from adbridge.report.checks import Checked

    if not isinstance(exc, AdbridgeError):
        traceback.print_exception(exc)
    note = str(exc) if isinstance(exc, AdbridgeError) else shell.raised(exc)
    record = {"backend": "", "operator": "", "verdict": "error", "note": note}
    return Checked(request.target, "failed", "error", [record], f"error: {note}")


def _checker(request: Request) -> Callable[[Request], Checked]:
    """What checks a target of this kind."""
    from adbridge.bench.problem import Suite, get_suite, suite_table
    from adbridge.rules import CustomRule

    named = ":" not in request.target or request.target in suite_table()
    found = get_suite(request.target) if named else shell.find(request.target)
    if isinstance(found, Suite):
        _refuse_arguments(request)
        return _check_special_points if all(problem.special for problem in found.problems) else _check_suite
    return _check_rule if isinstance(found, CustomRule) else _check_function


def _refuse_arguments(request: Request) -> None:
    if request.args:
        raise UsageError(f"{request.target} is a suite, whose problems bring their arguments; leave --args out")


def _backends(request: Request) -> tuple[Sequence[str | Backend] | None, list[dict[str, Any]]]:
    """The backends to check (None: as is usual), and a record for each that lacks the device."""
    from adbridge.registry import default_names, entry_of, get_backend

    for name in request.backends or ():
        entry_of(name)
    if request.device == "cpu":
        return request.backends, []
    found: list[Backend] = []
    lacking = []
    for name in request.backends or default_names():
        try:
            found.append(get_backend(name, device=request.device))
        except CapabilityError as exc:
            lacking.append(_unsupported(name, str(exc)))
    if not found or (request.backends and lacking):
        raise CapabilityError("; ".join(record["note"] for record in lacking))
    return found, lacking


def _record(row: object, **more: Any) -> dict[str, Any]:
    """A report's row; without whole results, of which it has the entry that counts."""
    return {name: value for name, value in vars(row).items() if name not in ("result", "value")} | more


def _unsupported(backend: str, why: str) -> dict[str, Any]:
    return {"backend": backend, "operator": "", "verdict": "unsupported", "note": why}


def _arguments(request: Request) -> tuple[Any, ...]:
    """The numbers that were given, in the dtype; in float64, Python's floats remain."""
    import numpy as np

    if request.dtype == "float64":
        return request.args
    return tuple(np.asarray(arg, dtype=request.dtype) for arg in request.args)


def _check_function(request: Request) -> Checked:
    from adbridge.report.checks import Checked, versions_of
    from adbridge.validate.crosscheck import crosscheck

    backends, lacking = _backends(request)
    found = crosscheck(shell.function(request.target, request.args), *_arguments(request), backends=backends)
    records = [_record(row, snippet=found.snippet if row is found.culprit else "") for row in found.rows]
    records += lacking or [_unsupported(name, why) for name, why in found.left_out.items()]
    versions = versions_of(record["backend"] for record in records)
    return Checked(request.target, "function", found.verdict, records, str(found), versions)


def _check_rule(request: Request) -> Checked:
    from adbridge.report.checks import Checked, versions_of
    from adbridge.validate.check_rule import check_rule

    backends, lacking = _backends(request)
    found = check_rule(shell.function(request.target, request.args), *_arguments(request), backends=backends)
    records = [_record(row, optional=row.beside) for row in found.rows]
    versions = versions_of(record["backend"] for record in records)
    return Checked(request.target, "rule", found.verdict, [*records, *lacking], str(found), versions)


def _check_suite(request: Request) -> Checked:
    """The suite's problems, run as `adbridge run` does, as briefly as it can."""
    folder = Path(tempfile.mkdtemp(prefix="adbridge-check-"))
    keep = False
    try:
        checked = _run_suite(request, folder)
        keep = checked.exit_code == shell.FAILED  # the note names a log in there
    finally:
        if not keep:
            shutil.rmtree(folder)
    return checked


def _run_suite(request: Request, folder: Path) -> Checked:
    from adbridge.bench.runner import run
    from adbridge.report.checks import Checked, suite_records, suite_text

    with shell.progress(f"checking {request.target}") as progress:
        done = run(
            request.target,
            backends=request.backends,
            device=request.device,
            dtype=request.dtype,
            out=folder,
            seconds=0.0,
            memory=False,
            progress=progress,
        )
    versions = {r["backend"]: r["engine_version"] for r in done.records if r.get("engine_version")}
    text = suite_text(done.records, done.exit_code)
    return Checked(request.target, "suite", done.verdict, suite_records(done.records), text, versions)


def _check_special_points(request: Request) -> Checked:
    from adbridge.report.checks import Checked
    from adbridge.validate.atlas import atlas

    if request.dtype != "float64":
        raise UsageError(f"{request.target} is judged in float64; leave --dtype out")
    backends, lacking = _backends(request)
    with shell.progress(f"checking {request.target}"):
        found = atlas(request.target, backends)
    records = [_record(row, got=row.value, optional=True) for row in found.rows]
    return Checked(request.target, "atlas", found.verdict, [*records, *lacking], str(found), found.versions)
