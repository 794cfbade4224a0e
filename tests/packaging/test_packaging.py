"""The wheel works alone: built, installed into another environment, run away from the checkout."""

import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import capkit
from capkit.utils.renamed import GONE_IN

ROOT = Path(__file__).parents[2]


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


@pytest.mark.nightly
def test_the_wheel_holds_every_config_and_the_licence(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {f"capkit/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.yaml")}
    assert shipped <= names
    assert "capkit/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "train.py"))]


@pytest.mark.nightly
def test_the_console_command_runs_away_from_the_checkout(installed, tmp_path):
    where = run(installed, tmp_path, "-c", "import capkit; print(capkit.__file__)", program="python")
    assert Path(where.stdout.strip()).is_relative_to(installed), where.stderr
    assert run(installed, tmp_path, "--version").stdout == f"capkit {capkit.__version__}\n"
    refused = run(installed, tmp_path, "objective.labl_smoothing=1")
    assert (refused.returncode, refused.stdout) == (2, "") and "'objective.label_smoothing'" in refused.stderr


@pytest.mark.nightly
def test_the_installed_command_composes_the_same_configs_as_the_checkout(installed, tmp_path):
    here = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "--cfg", "seed=5"], cwd=tmp_path, capture_output=True, text=True
    )
    there = run(installed, tmp_path, "--cfg", "seed=5")
    assert there.returncode == here.returncode == 0, there.stderr
    assert there.stdout == here.stdout


@pytest.mark.nightly
def test_a_dry_run_of_the_installed_default_says_what_would_run(installed, tmp_path):
    result = run(installed, tmp_path, "dry_run=true")
    assert result.returncode == 0, result.stderr
    assert "parameters" in result.stdout and "steps" in result.stdout
    assert not (tmp_path / "runs").exists()


def constraints() -> dict[str, Version]:
    lines = (ROOT / "requirements" / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def asked() -> list[Requirement]:
    """Every requirement of the project and its extras but itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    return [requirement for requirement in map(Requirement, lines) if requirement.name != "capkit"]


def test_the_constraints_fit_what_the_project_asks_for():
    tested = constraints()
    for requirement in asked():
        name = canonicalize_name(requirement.name)
        assert name in tested, f"{name} has no tested version"
        assert requirement.specifier.contains(tested[name]), f"{name} {tested[name]} does not fit {requirement}"


def test_the_constraints_take_the_cpu_build_where_its_index_is_given():
    """torch's own index names its builds by a local version, which the constraint admits and pip prefers."""
    for name in ("torch", "torchvision"):
        tested = constraints()[name]
        build = Version(f"{tested}+cpu")
        assert SpecifierSet(f"=={tested}").contains(build) and build > tested
        assert all(one.specifier.contains(build) for one in asked() if one.name == name)


def test_the_constraints_hold_on_every_python_that_is_supported():
    """One version for all of them: an entry with a marker or a local version would be of one machine alone."""
    lines = (ROOT / "requirements" / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.!]+", line) for line in lines if not line.startswith("#"))


@pytest.mark.nightly
def test_the_wheel_carries_the_constraints_for_the_line_that_installs_it(wheel, tmp_path):
    """docs/install.md unpacks them out of the wheel; only its last command, pip's, is left out here."""
    line = next(
        line for line in (ROOT / "docs" / "install.md").read_text().splitlines() if "zipfile -e capkit-" in line
    )
    unpack, install = line.replace("python3", sys.executable).split(" && ")
    shutil.copy(wheel, tmp_path)
    subprocess.run(["bash", "-c", unpack], cwd=tmp_path, check=True)
    words = shlex.split(install)
    given = tmp_path / words[words.index("-c") + 1]
    assert given.read_text() == (ROOT / "requirements" / "constraints.txt").read_text()
    assert words[-1] == "$(ls capkit-*.whl)[train]"


@pytest.mark.nightly
def test_the_canary_names_the_package_that_cannot_be_imported(tmp_path):
    """Shown on a package that fails as one does whose own dependency has moved: a file of its name comes first."""
    (tmp_path / "gguf.py").write_text("from numpy import that_was_moved\n")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, str(ROOT / "requirements" / "canary.py")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    (error,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    version, tested = importlib.metadata.version("gguf"), constraints()["gguf"]
    assert done.returncode == 1
    assert error.startswith(f"error: gguf {version} ({tested} tested): import gguf ended in ImportError: ")


def test_the_version_is_the_same_wherever_it_is_said():
    (heading, *_) = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert heading == capkit.__version__
    assert f"version: {heading}\n" in (ROOT / "CITATION.cff").read_text()
    minor = int(heading.split(".")[1])
    assert f"| capkit 0.{minor} |" in (ROOT / "docs" / "comparison.md").read_text()
    assert f"0.{minor + 1}" == GONE_IN, "old names work for one minor version: take them away, or say until when"
