"""What `ruff check` finds with the settings of pyproject.toml, where annotations hold jaxtyping's shapes."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHAPES = 'def f(x: Float[Tensor, " B"], y: Float[Tensor, "B L"], z: Float[Tensor, ""]) -> Tensor:\n'


def problems(source: str) -> str:
    """Of a file within the package, which is not written."""
    words = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=concise", "--stdin-filename"]
    done = subprocess.run([*words, "capkit/file.py", "-"], cwd=ROOT, input=source, stdout=subprocess.PIPE, text=True)
    return done.stdout


@pytest.mark.parametrize(
    ("imports", "found"),
    [
        ("from jaxtyping import Float\nfrom torch import Tensor\n\n\n", []),
        ("from jaxtyping import Float\n\n\n", ["F821 Undefined name `Tensor`"]),
        ("from torch import Tensor\n\n\n", ["F821 Undefined name `Float`"]),
    ],
)
def test_lost_imports_are_found_and_shapes_are_no_names(imports, found):
    told = problems(f"{imports}{SHAPES}    return x + y.sum() + z\n")
    assert [text for text in ("F821 Undefined name `Tensor`", "F821 Undefined name `Float`") if text in told] == found
    assert told.count("F821") == told.count("Undefined name `Tensor`") + told.count("Undefined name `Float`")
    assert bool(found) or "All checks passed" in told
