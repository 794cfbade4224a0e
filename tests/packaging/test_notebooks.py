"""The notebooks, executed in a kernel of Jupyter's, with fewer steps; and what Ctrl-C leaves there."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
nbclient = pytest.importorskip("nbclient", reason="wants nbclient and ipykernel: pip install 'capkit[dev]'")
nbformat = pytest.importorskip("nbformat")
TINY = (
    '"debug=tiny", "data.train.count=16", "data.val.count=6", "data.test.count=6", "trainer=cpu", "trainer.devices=1", '
    '"decoding.max_length=5"'
)


@pytest.fixture
def client(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))

    def client(notebook):
        return nbclient.NotebookClient(
            notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
        )

    return client


def tiny(notebook):
    """The same cells, trained for a few steps on a handful of scenes."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = re.sub(
                r"STEPS = 1800(, 60)?", lambda match: "STEPS = 3" if not match[1] else "STEPS = 3, 2", cell.source
            )
            cell.source = re.sub(r'("run_dir=[^"]+")', rf"\1, {TINY}", cell.source)
    return notebook


def test_notebooks_are_kept_without_what_a_run_printed():
    assert [path.stem for path in NOTEBOOKS] == ["caption_your_pictures", "reward_fine_tuning"]
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert all(not cell["outputs"] for cell in cells if cell["cell_type"] == "code")


@pytest.mark.nightly
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs(path, client):
    notebook = tiny(nbformat.read(path, as_version=4))
    client(notebook).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "run folder" in printed and "\x1b[" not in printed and "training: " not in printed


@pytest.mark.nightly
def test_an_interrupted_training_leaves_the_kernel_as_it_was_and_goes_on(client):
    words = f'"run_dir=runs/stopped", {TINY}, "callback.checkpoints.every_steps=1"'
    cells = [
        "import os, signal, threading\nbefore = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)",
        "threading.Timer(25, os.kill, (os.getpid(), signal.SIGINT)).start()\nimport capkit\n"
        f"try:\n    capkit.train({words}, max_steps=100000)\nexcept KeyboardInterrupt:\n    print('interrupted')",
        "import multiprocessing\nassert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before\n"
        "assert not multiprocessing.active_children()\n1 + 1",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client(notebook).execute()
    printed = "".join(output.get("text", "") for output in notebook.cells[1].outputs)
    assert "interrupted" in printed or "stopped" in printed
    assert notebook.cells[2].outputs[0]["data"]["text/plain"] == "2"
