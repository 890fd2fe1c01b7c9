"""The backends under test, and fixtures shared by all tests."""

from __future__ import annotations

import pytest
from hypothesis import settings

from adbridge.registry import is_installed, table

# The backends whose derivatives must be right: all but those that measure overhead.
NAMES = tuple(name for name, entry in table().items() if entry.default)

# Times vary when several workers share two cores; an example that fails is printed with its seed.
settings.register_profile("shared", deadline=None, print_blob=True)
settings.load_profile("shared")


def backend_params(*names: str) -> list[object]:
    """Parameters for these backends (all by default), skipped where the engine is not installed."""
    return [
        pytest.param(name, marks=pytest.mark.skipif(not is_installed(name), reason=f"{name} is not installed"))
        for name in names or NAMES
    ]


@pytest.fixture(params=backend_params())
def backend(request: pytest.FixtureRequest) -> str:
    """The name of each backend in turn."""
    return str(request.param)


@pytest.fixture(autouse=True)
def no_default_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADBRIDGE_BACKEND", raising=False)
