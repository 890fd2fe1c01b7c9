"""The README keeps its promises (its Python session runs as a doctest)."""

from __future__ import annotations

import re
from pathlib import Path

from adbridge import backends
from adbridge.backends import BUILTIN
from adbridge.registry import install_command
from adbridge.suites import BUILTIN as SUITES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def commands(marker: str) -> list[str]:
    (block,) = re.findall(rf"<!-- {marker} -->\n```sh\n(.*?)```", README, re.DOTALL)
    return list(block.splitlines())


def test_one_command_runs_and_one_tests() -> None:
    (run,), (tests,) = commands("run"), commands("tests")
    assert run.endswith("/adbridge run")
    assert "/pytest" in tests
    assert run.startswith("python3 -m venv") and tests.startswith("python3 -m venv")


def test_ci_runs_the_readmes_command() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "<!-- tests -->" in script
    assert "pytest" not in script


def test_backend_table_is_the_registry() -> None:
    rows = re.findall(r"^\| `(\w[\w-]*)` \| (.*?) \| (.*?) \|$", README, re.MULTILINE)
    expected = [
        (name, entry.summary, f"`{install_command(name)}`" if entry.extra else "built in")
        for name, entry in BUILTIN.items()
    ]
    assert rows == expected


def test_suite_table_names_every_suite() -> None:
    listed = re.findall(r"^\| `([\w-]+)` \| [^|]+ \|$", README, re.MULTILINE)
    assert sorted(listed) == sorted(SUITES)


def test_map_names_what_exists() -> None:
    (section,) = re.findall(r"## The map\n(.*?)\n## Add to it\n", README, re.DOTALL)
    for path in re.findall(r"^\| `([\w/]+/)`", section, re.MULTILINE):
        assert (ROOT / path).is_dir(), path
    for file in re.findall(r"`(\w+\.py)`", section):
        assert (ROOT / "adbridge" / file).exists(), file


def test_map_of_the_reference_engine_is_complete() -> None:
    folder = ROOT / "backends" / "reference"
    listed = set(re.findall(r"- `(\w+(?:\.py|/))` ", (folder / "__init__.py").read_text()))
    files = {path.name for path in folder.glob("*.py")} - {"__init__.py"}
    assert listed == files | {f"{path.parent.name}/" for path in folder.glob("*/__init__.py")}


def test_backends_frame_lists_the_table() -> None:
    frame = backends()
    assert list(frame.columns) == ["name", "engine_version", "devices", "capabilities", "available", "why_not"]
    assert set(frame.name) >= set(BUILTIN)
    assert (frame.why_not[frame.available] == "").all()
    assert frame.why_not[~frame.available].str.contains("pip install").all()
