"""The wheel works alone: built, installed into another environment, run away from the checkout."""

import os
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import capkit

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("capkit-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A second environment that holds the wheel; its dependencies are this environment's, by a path file."""
    root = tmp_path_factory.mktemp("second")
    venv.create(root, with_pip=True)
    python = root / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)], check=True)
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    # A plain path entry brings the packages, but not the path files that would lead back into the checkout.
    Path(site, "dependencies.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    return root


def run(installed, folder, *words, program="capkit"):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CAPKIT"))}
    return subprocess.run(
        [installed / "bin" / program, *words], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.mark.slow
def test_the_wheel_holds_every_config_and_the_licence(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {f"capkit/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.yaml")}
    assert shipped <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "train.py"))]


@pytest.mark.slow
def test_the_console_command_runs_away_from_the_checkout(installed, tmp_path):
    where = run(installed, tmp_path, "-c", "import capkit; print(capkit.__file__)", program="python")
    assert Path(where.stdout.strip()).is_relative_to(installed), where.stderr
    assert run(installed, tmp_path, "--version").stdout == f"capkit {capkit.__version__}\n"
    refused = run(installed, tmp_path, "objective.labl_smoothing=1")
    assert (refused.returncode, refused.stdout) == (2, "") and "'label_smoothing'" in refused.stderr


@pytest.mark.slow
def test_the_installed_command_composes_the_same_configs_as_the_checkout(installed, tmp_path):
    here = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "--cfg", "seed=5"], cwd=tmp_path, capture_output=True, text=True
    )
    there = run(installed, tmp_path, "--cfg", "seed=5")
    assert there.returncode == here.returncode == 0, there.stderr
    assert there.stdout == here.stdout


@pytest.mark.slow
def test_a_dry_run_of_the_installed_default_says_what_would_run(installed, tmp_path):
    result = run(installed, tmp_path, "dry_run=true")
    assert result.returncode == 0, result.stderr
    assert "parameters" in result.stdout and "steps" in result.stdout
    assert not (tmp_path / "runs").exists()


def test_versions_for_ci_satisfy_what_the_project_asks_for():
    from packaging.requirements import Requirement

    lines = (ROOT / "requirements" / "ci.txt").read_text().splitlines()
    locked = dict(line.lower().replace("_", "-").split("==") for line in lines if not line.startswith("#"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    for requirement in map(Requirement, asked):
        if requirement.name != "capkit":
            name = requirement.name.lower().replace("_", "-")
            assert name in locked, f"{name} is not locked"
            assert requirement.specifier.contains(locked[name]), f"{name} {locked[name]} does not fit {requirement}"


def test_the_citation_names_the_version():
    assert f"version: {capkit.__version__}\n" in (ROOT / "CITATION.cff").read_text()
