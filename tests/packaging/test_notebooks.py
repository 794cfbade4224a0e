"""The notebooks, executed in a kernel of Jupyter's, with fewer steps; and what Ctrl-C leaves there."""

import json
import re
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
nbclient = pytest.importorskip("nbclient", reason="wants nbclient and ipykernel: pip install 'capkit[dev]'")
nbformat = pytest.importorskip("nbformat")
KernelManager = pytest.importorskip("jupyter_client.manager").KernelManager
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


class Kernel:
    """A kernel of Jupyter's, whose stop button is pressed as a frontend does: for its whole process group."""

    def __init__(self, folder):
        self.folder = folder
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(cwd=str(folder))
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def reply(self, message):
        while True:
            reply = self.client.get_shell_msg(timeout=120)
            if reply["parent_header"]["msg_id"] == message:
                return reply["content"]

    def run(self, code, **expressions):
        """The kernel's answer, and the values of expressions as text."""
        content = self.reply(self.client.execute(code, user_expressions=expressions))
        values = content.get("user_expressions", {})
        return content, {name: value["data"]["text/plain"] for name, value in values.items()}

    def interrupted(self, code, rows, presses):
        """The answer to code that trains into `rows`, a metrics.jsonl, and is stopped when that has grown."""
        size = rows.stat().st_size if rows.exists() else 0
        message = self.client.execute(code)
        deadline = time.monotonic() + 120
        while not (rows.exists() and rows.stat().st_size > size) and time.monotonic() < deadline:
            time.sleep(0.1)
        for _ in range(presses):
            self.manager.interrupt_kernel()
            time.sleep(0.05)
        return self.reply(message)

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel(client, tmp_path):
    kernel = Kernel(tmp_path)
    yield kernel
    kernel.close()


STATE = (
    "(signal.getsignal(2), signal.getsignal(15), multiprocessing.active_children(), "
    "subprocess.run(['pgrep', '-P', str(os.getpid())], capture_output=True).stdout.split())"
)


@pytest.mark.nightly
def test_the_stop_button_ends_a_training_and_the_kernel_lives(kernel):
    _, before = kernel.run("import multiprocessing, os, signal, subprocess; kept = 41", state=STATE)
    every = '"callback.checkpoints.every_steps=1", "callback.recorder.every_steps=1", "data.num_workers=2"'
    words = f'"run_dir=runs/stopped", {TINY}, {every}'
    code = f"import capkit\ncapkit.train({words}, max_steps=100000)"
    for presses in (1, 2):  # the second time it goes on, and is stopped by somebody impatient
        answer = kernel.interrupted(code, kernel.folder / "runs/stopped/metrics.jsonl", presses)
        assert answer["ename"] == "KeyboardInterrupt"
        if presses == 1:  # the second may come when the run has ended by the first
            assert answer["evalue"] == "the same call with run_dir=runs/stopped goes on from there"
        _, after = kernel.run("", state=STATE, kept="kept")
        assert after == {**before, "kept": "41"}
    rows = [json.loads(row) for row in (kernel.folder / "runs/stopped/metrics.jsonl").read_text().splitlines()]
    assert {row["attempt"] for row in rows} == {1, 2} and any("resumed_from" in row for row in rows)
    assert list((kernel.folder / "runs/stopped/checkpoints").glob("step-*.ckpt"))
    _, found = kernel.run(
        f'run = capkit.train("run_dir=runs/next", {TINY}, max_steps=2)', steps="run.numbers['train/steps']"
    )
    assert float(found["steps"]) == 2


@pytest.mark.nightly
def test_a_function_of_a_cell_rewards_and_wrong_input_is_told_in_a_few_lines(kernel):
    kernel.run(f'import capkit\nfirst = capkit.train("run_dir=runs/first", {TINY}, max_steps=2)')
    kernel.run("def short(images, texts):\n    return [1 / (1 + len(text.split())) for text in texts]")
    words = f'"fit_rl", "init_from=runs/first", "reward=[custom]", "reward.custom.function=__main__.short", {TINY}'
    _, found = kernel.run(
        f'run = capkit.train({words}, run_dir="runs/rl", max_steps=1)', steps="run.numbers['train/steps']"
    )
    assert float(found["steps"]) == 1
    answer, _ = kernel.run(f'capkit.train({words}, "trainer.devices=2", run_dir="runs/two", max_steps=1)')
    assert answer["ename"] == "UsageError" and "__main__.short: expected a function that each of 2" in answer["evalue"]
    assert len("\n".join(answer["traceback"]).splitlines()) < 6
