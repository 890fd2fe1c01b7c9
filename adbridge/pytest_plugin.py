"""The pytest plugin: the fixture `ad_backend`, its option, and the marker of known engine defects.

Every pytest run loads it where adbridge is installed. So it imports no engine: a test that uses the fixture does.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass

import pytest

from adbridge.errors import BackendNotFound, BackendUnavailable
from adbridge.protocol import Backend
from adbridge.registry import default_names, entry_of, get_backend

MARKER = (
    'ad_known_defect(engine, versions, thread, reason=""): in versions of the engine (PEP 440, as in '
    '">=2.0,<2.3") the test must fail with `ad_backend`, for what the upstream thread (owner/repo#123) tells; in all '
    "others it must pass."
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--adbridge-backends``."""
    parser.getgroup("adbridge").addoption(
        "--adbridge-backends",
        metavar="A,B",
        help="Backends that the fixture ad_backend goes through (default: every installed engine).",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and the fixture over the backends that were chosen. Raises pytest.UsageError."""
    config.addinivalue_line("markers", MARKER)
    config.pluginmanager.register(_fixtures(_chosen(config.getoption("--adbridge-backends"))), "adbridge-fixtures")


def _chosen(asked: str | None) -> list[str]:
    """Names of backends. One that was asked for must be there: a test that is left out is not passed."""
    if asked is None:
        return default_names()
    names = list(dict.fromkeys(word.strip() for word in asked.split(",") if word.strip()))
    try:
        for name in names:
            entry_of(name)
    except (BackendNotFound, BackendUnavailable) as exc:
        raise pytest.UsageError(f"--adbridge-backends={asked}: {exc}") from exc
    if not names:
        raise pytest.UsageError("--adbridge-backends names no backend; give names such as jax,torch, or leave it out")
    return names


def _fixtures(names: list[str]) -> object:
    class Fixtures:
        @pytest.fixture(params=names)
        def ad_backend(self, request: pytest.FixtureRequest) -> Backend:
            """Each installed backend in turn (see --adbridge-backends): ``ad.grad(f, backend=ad_backend)``."""
            backend = get_backend(request.param)
            _expect_known_defects(request, backend)
            return backend

    return Fixtures()


@dataclass(frozen=True)
class KnownDefect:
    """What a marker says: in these `versions` of the `engine`, what the `thread` tells of makes the test fail."""

    engine: str
    versions: str
    thread: str
    reason: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError: it cannot be understood, and so would never be expected."""
        from packaging.specifiers import InvalidSpecifier, SpecifierSet

        try:
            SpecifierSet(self.versions)
        except InvalidSpecifier:
            raise ValueError(f'versions {self.versions!r} are no PEP 440 specifier such as ">=2.0,<2.3"') from None
        if not re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", self.thread):
            raise ValueError(f"thread {self.thread!r} does not read owner/repo#123")
        try:
            entry_of(self.engine)
        except BackendNotFound as exc:
            raise ValueError(str(exc)) from None
        except BackendUnavailable:
            pass  # nor will the test run on it

    def is_in(self, backend: Backend) -> bool:
        """Whether the backend's engine is one that has the defect; pre-releases count by their number."""
        from packaging.specifiers import SpecifierSet

        return backend.name == self.engine and SpecifierSet(self.versions).contains(backend.engine_version, True)

    def __str__(self) -> str:
        return f"{self.thread}, known in {self.engine} {self.versions}" + (f": {self.reason}" if self.reason else "")


_EXPECTED = pytest.StashKey[tuple[KnownDefect, Backend]]()


def _expect_known_defects(request: pytest.FixtureRequest, backend: Backend) -> None:
    for mark in request.node.iter_markers("ad_known_defect"):
        if (defect := _defect(mark, request.node.name)).is_in(backend):
            request.node.stash[_EXPECTED] = (defect, backend)
            request.applymarker(pytest.mark.xfail(reason=str(defect), strict=True))


def _defect(mark: pytest.Mark, test: str) -> KnownDefect:
    try:
        return KnownDefect(*mark.args, **mark.kwargs)
    except (TypeError, ValueError) as exc:
        said = str(exc).replace("KnownDefect.__init__() ", "")
    pytest.fail(f"marker ad_known_defect on {test}: {said}; it reads {MARKER.partition(':')[0]}", pytrace=False)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Refuse markers that would never have an effect, as an error of the file that they stand in."""
    for mark in metafunc.definition.iter_markers("ad_known_defect"):
        _defect(mark, metafunc.definition.name)
    own = [mark for mark in metafunc.definition.own_markers if mark.name == "ad_known_defect"]
    if own and "ad_backend" not in metafunc.fixturenames:
        pytest.fail(
            f"marker ad_known_defect on {metafunc.definition.name}, which does not use the fixture ad_backend: "
            "let it take ad_backend as an argument",
            pytrace=False,
        )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Of a test that passes though it was to fail, say that the defect is mended."""
    report = yield
    expected = item.stash.get(_EXPECTED, None)
    if expected is not None and call.when == "call" and call.excinfo is None and report.failed:
        defect, backend = expected
        report.longrepr = (
            f"mended: this passes with {backend.name} {backend.engine_version}, where {defect}; "
            "remove the marker, or end its versions before this one"
        )
    return report
