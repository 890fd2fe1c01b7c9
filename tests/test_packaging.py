"""What is packaged is what is on disk, under one name."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
LINKED = ("backends", "suites")


def packages_on_disk() -> set[str]:
    """Folders with an ``__init__.py``, named as they are imported; the links are not followed."""
    found = {f.parent for f in (ROOT / "adbridge").rglob("__init__.py")}
    own = {f for f in found if f.relative_to(ROOT / "adbridge").parts[:1] not in [(name,) for name in LINKED]}
    linked = {f.parent for name in LINKED for f in (ROOT / name).rglob("__init__.py")}
    return {".".join(f.relative_to(ROOT).parts) for f in own} | {
        ".".join(("adbridge", *f.relative_to(ROOT).parts)) for f in linked
    }


def test_every_package_is_listed() -> None:
    assert Counter(SETTINGS["packages"]) == Counter(packages_on_disk())


def test_every_folder_of_modules_is_a_package() -> None:
    for top in ("adbridge", *LINKED):
        for module in (ROOT / top).rglob("*.py"):
            assert (module.parent / "__init__.py").exists(), f"{module.parent} has modules but no __init__.py"


@pytest.mark.parametrize("name", LINKED)
def test_links(name: str) -> None:
    link = ROOT / "adbridge" / name
    assert link.is_symlink() and link.readlink() == Path("..") / name
    assert SETTINGS["package-dir"][f"adbridge.{name}"] == name


@pytest.mark.parametrize("name", LINKED)
def test_a_second_name_is_refused(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"ImportError: this package was imported as '{name}'; import it as 'adbridge.{name}'" in done.stderr


@pytest.mark.slow
def test_wheel_has_every_module_once(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    # Built from a copy: setuptools leaves its build folder behind.
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "adbridge", *LINKED):
        subprocess.run(["cp", "-R", str(ROOT / name), str(source)], check=True)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), "."]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = Counter(zipfile.ZipFile(wheel).namelist())
    assert set(names.values()) == {1}
    modules = {n for n in names if n.endswith(".py")}
    own = {f.relative_to(ROOT) for f in (ROOT / "adbridge").rglob("*.py")}
    expected = {str(f) for f in own if f.parts[1] not in LINKED}
    expected |= {str(Path("adbridge") / f.relative_to(ROOT)) for n in LINKED for f in (ROOT / n).rglob("*.py")}
    assert modules == expected
    assert "adbridge/py.typed" in names
