"""Finding, choosing and lazily loading backends."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import numpy as np

from adbridge.backends import BUILTIN, Entry
from adbridge.errors import BackendNotFound, BackendUnavailable, MixedBackends
from adbridge.protocol import Backend

if TYPE_CHECKING:
    import pandas as pd

BackendLike = str | Backend


@dataclass(frozen=True)
class _Ambient:
    """The backend in force: asked for by the user, or only that of the operator that is running."""

    backend: Backend
    asked: bool


_ambient: ContextVar[_Ambient | None] = ContextVar("adbridge_backend", default=None)


@cache
def table() -> dict[str, Entry]:
    """Every known backend: the built-in ones, then plug-ins (entry points ``adbridge.backends``)."""
    plugins = {
        point.name: Entry(point.module, point.attr, summary=f"plug-in {point.value}")
        for point in entry_points(group="adbridge.backends")
    }
    return {**plugins, **BUILTIN}


def is_installed(name: str) -> bool:
    """Whether the backend's engine can be found (it is not imported)."""
    engine = table()[name].engine
    return engine is None or engine in sys.modules or importlib.util.find_spec(engine) is not None


def default_names() -> list[str]:
    """The backends that a run uses when none is named: the installed engines."""
    return [name for name, entry in table().items() if entry.default and is_installed(name)]


def get_backend(name: BackendLike, **options: Any) -> Backend:
    """The backend called `name`, made with `options` (``device="cuda"``, ...); one object per set of options.

    Raises:
        BackendNotFound: no backend has this name.
        BackendUnavailable: its engine is not installed, or fails to import.
        CapabilityError: it lacks the device asked for.

    >>> get_backend("reference")
    <backend 'reference' on cpu>
    """
    if isinstance(name, Backend):
        return name
    return _load(name, tuple(sorted(options.items())))


@cache
def _load(name: str, options: tuple[tuple[str, Any], ...]) -> Backend:
    backend_class = _import(name)
    return backend_class(**dict(options))


def _import(name: str) -> type[Backend]:
    known = table()
    if name not in known:
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise BackendNotFound(f"no backend is called {name!r}; {hint}known: {', '.join(known)}")
    entry = known[name]
    if not is_installed(name):
        raise BackendUnavailable(
            f"backend {name!r} needs the package {entry.engine!r}, which is not installed; "
            f"run: {install_command(name)}"
        )
    try:
        backend_class = getattr(importlib.import_module(entry.module), entry.attribute)
    except ImportError as exc:
        raise BackendUnavailable(
            f"backend {name!r} is installed but failed to import: {exc}; try: {install_command(name)}"
        ) from exc
    assert isinstance(backend_class, type) and issubclass(backend_class, Backend)
    return backend_class


def install_command(name: str) -> str:
    """The shell command that installs the backend's engine."""
    extra = table()[name].extra
    return f"pip install 'adbridge[{extra}]'" if extra else f"reinstall the package that provides {name!r}"


@contextmanager
def use_backend(backend: BackendLike) -> Iterator[Backend]:
    """Within this context, calls without ``backend=`` use `backend`. Holds for this thread or task only.

    >>> with use_backend("reference") as b:
    ...     b.name
    'reference'
    """
    chosen = get_backend(backend)
    token = _ambient.set(_Ambient(chosen, asked=True))
    try:
        yield chosen
    finally:
        _ambient.reset(token)


@contextmanager
def inside(backend: Backend) -> Iterator[None]:
    """Marks that an operator of `backend` is running the user's function."""
    token = _ambient.set(_Ambient(backend, asked=False))
    try:
        yield
    finally:
        _ambient.reset(token)


def enclosing() -> Backend | None:
    """The backend of the operator that is running the calling function, if any."""
    ambient = _ambient.get()
    return None if ambient is None or ambient.asked else ambient.backend


def choose(explicit: BackendLike | None, leaves: Iterable[object]) -> tuple[Backend, bool]:
    """``(backend, whether any leaf is an engine's own array)``.

    Order: `explicit`, `use_backend`, type of the inputs, the enclosing operator, ``ADBRIDGE_BACKEND``,
    ``"reference"``.

    Raises:
        MixedBackends: the leaves belong to two engines, or to another than the backend asked for.
    """
    owners = owners_of(leaves)
    if len(owners) > 1:
        raise MixedBackends(
            f"arrays of {' and '.join(sorted(owners))} in one call; convert them to one engine (or to NumPy) first"
        )
    owner = next(iter(owners), None)
    ambient = _ambient.get()
    if explicit is None and ambient is not None and (ambient.asked or owner is None):
        chosen = ambient.backend
    elif explicit is not None or owner is None:
        chosen = get_backend(explicit or os.environ.get("ADBRIDGE_BACKEND") or "reference")
    else:
        chosen = get_backend(owner)
    if owner is not None and not any(chosen.owns(leaf) for leaf in leaves):
        raise MixedBackends(
            f"backend {chosen.name!r} was given arrays of {owner!r}; pass backend={owner!r}, "
            "or NumPy arrays, which every backend takes"
        )
    return chosen, owner is not None


def owners_of(leaves: Iterable[object]) -> set[str]:
    """Names of the backends that own the arrays among `leaves`."""
    owners = {_owner(leaf) for leaf in leaves if not isinstance(leaf, _NEUTRAL)}
    return {owner for owner in owners if owner is not None}


_NEUTRAL = (np.ndarray, np.generic, float, int, complex, str, bytes, type(None))
_owner_of_type: dict[type, str | None] = {}


def _owner(leaf: object) -> str | None:
    kind = type(leaf)
    if kind not in _owner_of_type:
        # An array cannot exist before its engine is imported, so only imported engines are asked.
        candidates = [n for n, e in table().items() if (e.engine or e.module) in sys.modules]
        found = next((n for n in candidates if _import(n) and get_backend(n).owns(leaf)), None)
        if found is None and hasattr(leaf, "shape"):
            return None  # an engine imported later may own it: do not remember
        _owner_of_type[kind] = found
    return _owner_of_type[kind]


def array_namespace(*arrays: Any) -> Any:
    """The array API namespace of the arrays or tracers among `arrays` (NumPy's where there is none else).

    Raises:
        MixedBackends: they belong to two engines.

    >>> array_namespace(3.0).__name__
    'numpy'
    """
    owners = owners_of(arrays)
    if not owners:
        return np
    return choose(next(iter(owners)) if len(owners) == 1 else None, arrays)[0].namespace


def backends() -> pd.DataFrame:
    """Every known backend, a row each. Imports the installed engines to ask them.

    Columns: ``name, engine_version, devices, capabilities, available, why_not``; `devices` and
    `capabilities` are text, `why_not` is empty where available.
    """
    import pandas as pd

    return pd.DataFrame([_describe(name) for name in table()])


def _describe(name: str) -> dict[str, object]:
    row: dict[str, object] = {"name": name, "engine_version": "", "devices": "", "capabilities": ""}
    try:
        backend = get_backend(name)
    except BackendUnavailable as exc:
        return {**row, "available": False, "why_not": str(exc)}
    can = backend.capabilities
    words = [*can.modes, *(word for word in ("batching", "compile") if getattr(can, word)), *can.dtypes]
    row |= {"engine_version": backend.engine_version, "devices": ", ".join(can.devices)}
    return {**row, "capabilities": ", ".join(words), "available": True, "why_not": ""}
