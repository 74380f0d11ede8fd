"""What `pip install` takes, what a commit is checked for, what CI runs, and in which order."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from sr_var import __version__
from tests.layering import packages
from tests.tiny import ROOT

PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def _recipe(target: str) -> list[str]:
    """The commands of a target of the Makefile."""
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert found is not None, target
    return [line.strip().replace("$(PY)", ".venv/bin/python") for line in found[1].splitlines()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """What pip builds of a copy of the project, tests and records included."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("wheel")
    for name in [*packages(ROOT), "tests", "benchmarks", "docs"]:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in [*ROOT.glob("*.py"), *ROOT.glob("requirements*.txt"), ROOT / "pyproject.toml"]:
        shutil.copy(path, folder)
    build = "from setuptools.build_meta import build_wheel; build_wheel('built')"
    outcome = subprocess.run(
        [sys.executable, "-W", "error", "-c", build],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert outcome.returncode == 0, outcome.stderr
    return zipfile.ZipFile(next(folder.glob("built/*.whl")))


def test_the_wheel_holds_every_file_of_the_packages_and_no_other(wheel: zipfile.ZipFile) -> None:
    own = (path for package in packages(ROOT) for path in (ROOT / package).rglob("*"))
    files = [path for path in own if path.is_file() and "__pycache__" not in path.parts]
    found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert found == {str(path.relative_to(ROOT)) for path in files}
    assert found >= {f"{package}/py.typed" for package in packages(ROOT)}


def test_the_wheel_needs_what_setup_installs(wheel: zipfile.ZipFile) -> None:
    metadata = next(name for name in wheel.namelist() if name.endswith("METADATA"))
    text = wheel.read(metadata).decode()
    listed = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    names = re.findall(r"^([\w-]+)", listed, re.MULTILINE)
    assert "torch" in names
    needed = re.findall(r"^Requires-Dist: ([\w-]+)(.*)$", text, re.MULTILINE)
    assert [name for name, rest in needed if "extra ==" not in rest] == names
    extras = {"tiff": ["tifffile"], "export": ["onnx", "onnxscript", "onnxruntime"]}
    for extra, packages_of_extra in extras.items():
        of_extra = [name for name, rest in needed if f'extra == "{extra}"' in rest]
        assert of_extra == packages_of_extra
        assert f"Provides-Extra: {extra}\n" in text
    assert len([rest for _, rest in needed if "extra ==" in rest]) == sum(map(len, extras.values()))
    assert re.findall(r"^Version: (.*)$", text, re.MULTILINE) == [__version__]


def test_the_version_is_told_once_and_cited() -> None:
    assert re.search(r"^version = ", PYPROJECT.partition("[tool.")[0], re.MULTILINE) is None
    assert f"version: {__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_mypy_checks_every_package() -> None:
    listed = re.search(r"^files = \[(.*)\]$", PYPROJECT, re.MULTILINE)
    assert listed is not None
    assert sorted(re.findall(r'"(\w+)"', listed[1])) == packages(ROOT)


def test_every_folder_of_modules_is_a_package() -> None:
    """A room without `__init__.py` has no docstring and no page."""
    folders = {path.parent for name in packages(ROOT) for path in (ROOT / name).rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_a_commit_is_checked_by_what_make_lint_types_runs() -> None:
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    entries = re.findall(r"^ *entry: (.*)$", hooks, re.MULTILINE)
    assert entries == _recipe("lint") + _recipe("types")
    assert hooks.count("language: system") == hooks.count("pass_filenames: false") == len(entries)


def test_ci_ends_with_the_whole_suite_and_begins_with_what_is_short() -> None:
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    runs = re.findall(r"^(?:RELIABILITY=full )?make .*$", text, re.MULTILINE)
    assert runs[0] == "make check" and runs[-1] == "RELIABILITY=full make test"
    others = {"make demo QUICK=1", "make test-browser", "make test-app", "make test-slurm"}
    assert others == set(runs[1:-1])
