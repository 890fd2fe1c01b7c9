"""What the commands share: reading their arguments, finding functions by name, the console."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adbridge.errors import (
    BackendNotFound,
    BackendUnavailable,
    CapabilityError,
    DataError,
    NotDifferentiable,
    RunError,
    SignatureMismatch,
    SuiteNotFound,
    UsageError,
)

if TYPE_CHECKING:
    from rich.console import Console

USAGE, FAILED = 2, 3
"""Exit codes."""
USAGE_ERRORS = (
    BackendNotFound,
    BackendUnavailable,
    CapabilityError,
    DataError,
    NotDifferentiable,
    SignatureMismatch,
    SuiteNotFound,
    UsageError,
)


def names(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str] | None:
    """``a,b``: words."""
    return None if value is None else [word.strip() for word in value.split(",") if word.strip()]


def values(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[Any, ...]:
    """``1 [2,3]`` or ``1,[[2,3],[4,5]]``: numbers as floats, lists as arrays."""
    return tuple(_value(word) for words in value for word in _split(words))


def seeds(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[Any, ...] | None:
    """``1,0`` or ``[1,0],2``: one value per argument."""
    return None if value is None else values(ctx, param, (value,))


def _split(words: str) -> list[str]:
    """At the commas that are not inside of a list."""
    parts, depth = [""], 0
    for letter in words:
        depth += (letter == "[") - (letter == "]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _value(word: str) -> Any:
    import numpy as np

    try:
        return np.array(json.loads(word), float) if word.lstrip().startswith("[") else float(word)
    except (ValueError, TypeError):
        raise click.BadParameter(
            f"{word!r} is neither a number such as 2.0 nor a list such as [1.0,2.0] or [[1,2],[3,4]]"
        ) from None


def find(name: str) -> Any:
    """What stands at MODULE:NAME.

    Raises:
        UsageError: nothing does. RunError: the module raised as it was imported.
    """
    module, _, attribute = name.partition(":")
    hint = "give it as MODULE:FUNCTION"
    if not module or module.startswith("."):
        raise UsageError(f"no function at {name!r}: it names no module; {hint}")
    try:
        found = importlib.import_module(module)
    except ImportError as exc:
        raise UsageError(f"no function at {name!r}: {exc}; {hint}") from exc
    except Exception as exc:
        raise RunError(f"importing {module!r} raised {raised(exc)}") from exc
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError as exc:
        raise UsageError(f"no function at {name!r}: {exc}; {hint}") from exc
    return found


def function(name: str, args: tuple[Any, ...]) -> Callable[..., Any]:
    """The function at MODULE:FUNCTION. Raises as `find`; UsageError, too: no function, or it takes other arguments."""
    found: Callable[..., Any] = find(name)
    if not callable(found):
        raise UsageError(f"{name!r} is of type {type(found).__name__}, not a function; give one as MODULE:FUNCTION")
    try:
        inspect.signature(found).bind(*args)
    except TypeError as exc:
        raise UsageError(f"{name}{inspect.signature(found)}: {exc}; give its arguments after --args") from exc
    except ValueError:
        pass  # a builtin that does not tell
    return found


def raised(exc: Exception) -> str:
    """``ValueError: no (file.py, line 3)``: an exception in one line, and where it was raised."""
    frames = traceback.extract_tb(exc.__traceback__)
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(exc).__name__}: {exc}{place}"


def console() -> Console:
    """Standard output for tables. A log or a pipe has no width of its own: there, 160 columns."""
    from rich.console import Console

    made = Console()
    return made if made.is_terminal or "COLUMNS" in os.environ else Console(width=160)


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int, str, Path], None]]:
    """A line on standard error that says how far a run has come, where that is a terminal."""
    from rich.console import Console

    with Console(stderr=True).status(what) as line:
        yield lambda done, total, case, folder: line.update(f"{what}: {done}/{total} {case}")


def writable(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """A file that can be written, found out before the work starts. Nothing is left where nothing was."""
    if value is None:
        return None
    existed = value.exists()
    try:
        value.open("a").close()
    except OSError as exc:
        raise click.BadParameter(f"cannot write {value}: {exc.strerror or exc}") from exc
    if not existed:
        value.unlink()
    return value
