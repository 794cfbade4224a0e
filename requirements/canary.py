"""What `make canary` installed against what capkit is tested with, and whether each package can be imported.

Prints the packages whose version differs from requirements/constraints.txt. Ends with status 1 where a dependency of
capkit, or a module of capkit itself, cannot be imported, naming the package, its version and the tested one.
"""

import importlib
import importlib.metadata
import pkgutil
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def canonical(name: str) -> str:
    return name.lower().replace("_", "-")


def tested() -> dict[str, str]:
    lines = (ROOT / "requirements" / "constraints.txt").read_text().splitlines()
    return dict(canonical(line).split("==") for line in lines if not line.startswith("#"))


def main() -> int:
    from packaging.requirements import Requirement

    versions = tested()
    installed = {
        canonical(distribution.metadata["Name"]): distribution.version
        for distribution in importlib.metadata.distributions()
    }
    for name in sorted(versions):
        if installed.get(name) != versions[name]:
            print(f"{name}: {installed.get(name, 'not installed')} here, {versions[name]} tested")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    asked = {canonical(Requirement(line).name) for line in lines} - {"capkit"}
    failures = []
    for module, names in sorted(importlib.metadata.packages_distributions().items()):
        for name in asked & set(map(canonical, names)):
            if not module.startswith("_") and (failure := failure_of(module)):
                failures.append(f"{name} {installed[name]} ({versions.get(name)} tested): {failure}")
    import capkit

    for module in pkgutil.walk_packages(capkit.__path__, "capkit."):
        if failure := failure_of(module.name):
            failures.append(f"{module.name}: {failure}")
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 1 if failures else 0


def failure_of(module: str) -> str | None:
    try:
        importlib.import_module(module)
    except Exception as error:  # whatever a package raises on its import is what is to be told
        return f"import {module} ended in {type(error).__name__}: {error}"
    return None


if __name__ == "__main__":
    sys.exit(main())
