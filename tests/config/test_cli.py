"""The command line: what it prints, where, and with which exit status."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

import capkit
from capkit import cli
from capkit.config.locations import config_dir, groups
from capkit.errors import UsageError, usage_error_behind
from capkit.utils import console

ROOT = Path(__file__).parents[2]

PROBE = """
import json, os, sys, time
from pathlib import Path
from capkit.errors import UsageError
from omegaconf import OmegaConf

class Part:
    def __init__(self, size: int = 1):
        if size < 0:
            raise UsageError(f"size must be 0 or more; got {size}")

def show(cfg):
    print("config " + json.dumps(OmegaConf.to_container(cfg)), flush=True)

def build(cfg):
    from hydra.utils import instantiate
    instantiate(cfg.part)

def fail(cfg):
    raise RuntimeError("a defect of ours")

def wait(cfg):
    print("waiting", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def probe(tmp_path, monkeypatch):
    """Tasks of our own, from a folder outside the package: `--config-dir` and their module's place."""
    (tmp_path / "probe_tasks.py").write_text(PROBE)
    folder = tmp_path / "my configs" / "task"
    folder.mkdir(parents=True)
    for name in ("show", "build", "fail", "wait"):
        (folder / f"{name}.yaml").write_text(
            "# @package _global_\npart: {_target_: probe_tasks.Part}\n"
            f"task: {{_target_: probe_tasks.{name}, of_run: {{init_from: [decoding]}}}}\n"
        )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return ["--config-dir", "my configs"]


def start(*words, program=(sys.executable, str(ROOT / "train.py")), **options):
    return subprocess.Popen([*program, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def run(*words, **options):
    process = start(*words, **options)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def configs(out):
    return [json.loads(line.removeprefix("config ")) for line in out.splitlines() if line.startswith("config ")]


def test_help_lists_every_task_and_group(capsys):
    assert cli.main(["--help"]) == 0
    page = capsys.readouterr().out
    found = groups([config_dir()])
    assert [word for word in [*found, *found["task"]] if f"  {word} " not in page and word != "task"] == []


def printed(capsys, *words):
    assert cli.main(list(words)) == 0
    return capsys.readouterr().out


def test_the_bare_command_prints_a_short_help_and_help_the_long_one(capsys):
    assert "capkit TASK --help" in printed(capsys)
    assert printed(capsys, "help") == printed(capsys, "--help")


@pytest.mark.parametrize("words", [["caption", "--help"], ["--help", "task=caption"], ["help", "caption"]])
def test_the_help_of_a_task_lists_its_keys_with_types_values_and_meaning(capsys, words):
    page = " ".join(printed(capsys, *words).split())
    assert "Captions a folder of images" in page
    assert "images str or null; must be given # a folder, or one image" in page
    assert "seed an integer of at least 0; 0 # everything random follows from it" in page


def test_the_help_of_a_part_lists_its_arguments_with_ranges_and_defaults(capsys):
    page = " ".join(printed(capsys, "--help", "model=encoder_decoder", "callback=[watchdog]").split())
    assert "An image encoder and a transformer decoder" in page
    assert "model.num_heads an integer of at least 1; 4" in page
    assert "model.image_encoder.width" in page
    assert "callback.watchdog.timeout_s a finite number greater than 0; 120.0" in page


def test_list_says_what_there_is_to_choose_from(capsys):
    page = printed(capsys, "list", "optimizer", "task")
    assert "adamw  AdamW" in page and "  fit_rl " in page and "scheduler:" not in page
    assert {f"{group}:" for group in groups([config_dir()])} <= set(printed(capsys, "list").splitlines())
    assert cli.main(["list", "modle"]) == 2
    assert "did you mean 'model'?" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["list"], ["--cfg", "experiment=clip_reward_sceneworld"]])
def test_a_reader_that_closes_early_ends_a_page_quietly(words):
    read, write = os.pipe()
    os.close(read)
    program = [sys.executable, str(ROOT / "train.py"), *words]
    process = subprocess.Popen(program, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert process.communicate(timeout=120)[1] == "" and process.returncode == 0


def test_version_is_the_package_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"capkit {capkit.__version__}\n"


def test_cfg_prints_the_config_and_runs_nothing(capsys):
    assert cli.main(["--cfg", "seed=7"]) == 0
    assert "seed: 7\n" in capsys.readouterr().out


def test_a_wrong_key_ends_with_status_2_and_one_message_on_stderr(capsys):
    assert cli.main(["sede=1"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: unknown key 'sede'") and captured.err.count("\n") == 1


def test_paths_arrive_as_typed_in_a_shell(probe, capsys):
    odd = "my photos (1) [a]=b, 'c' $HOME"
    Path(odd).mkdir()
    Path(odd, "about.json").touch()  # as in a folder of exported weights
    assert cli.main(["show", *probe, f"init_from={odd}", f"run_dir=runs/{odd}"]) == 0
    (config,) = configs(capsys.readouterr().out)
    assert (config["init_from"], config["run_dir"]) == (odd, f"runs/{odd}")


def test_a_constructors_usage_error_is_told_without_a_traceback(probe, capsys):
    assert cli.main(["build", *probe, "part.size=-1"]) == 2
    assert capsys.readouterr().err == "error: size must be 0 or more; got -1\n"


def test_a_defect_of_ours_shows_its_traceback(probe):
    with pytest.raises(RuntimeError, match="a defect of ours"):
        cli.main(["fail", *probe])


def test_a_usage_error_is_found_behind_others():
    try:
        try:
            raise UsageError("inner")
        except UsageError as error:
            raise RuntimeError("outer") from error
    except RuntimeError as error:
        assert str(usage_error_behind(error)) == "inner"
    assert usage_error_behind(RuntimeError("alone")) is None


def test_checking_a_config_imports_no_torch():
    code = (
        "import sys; from capkit import cli; status = cli.main(['objective.labl_smoothing=1']);"
        "heavy = {'torch', 'lightning', 'transformers', 'numpy'} & set(sys.modules); print(status, sorted(heavy))"
    )
    status, out, err = run(program=(sys.executable, "-c", code))
    assert (status, out) == (0, "2 []\n"), err
    assert "did you mean 'objective.label_smoothing'" in err


def test_train_py_and_the_console_command_are_the_same(probe):
    words = ["show", *probe, "seed=3", "name=two words"]
    results = [run(*words), run(*words, program=(str(Path(sys.executable).with_name("capkit")),))]
    assert results[0][:2] == results[1][:2]  # on standard error a slow start is told
    assert configs(results[0][1])[0]["name"] == "two words"


@pytest.mark.integration
def test_a_sweep_runs_each_value_in_its_own_folder(probe, tmp_path):
    (tmp_path / "earlier/checkpoints/step-00000001.ckpt").mkdir(parents=True)
    (tmp_path / "earlier/config.yaml").write_text("decoding: {_target_: capkit.decoding.config.Decoding, seed: 9}\n")
    words = ["part.size=4", "init_from=earlier", f"run_dir={tmp_path}/a sweep (1)"]
    status, out, err = run("-m", *probe, "show", "seed=1,2", *words)
    assert status == 0, err
    found = [(config["seed"], config["run_dir"], config["part"]["size"]) for config in configs(out)]
    assert found == [(seed, f"{tmp_path}/a sweep (1)/{seed - 1}", 4) for seed in (1, 2)]
    assert [config["decoding"]["seed"] for config in configs(out)] == [9, 9]  # as a single run takes it
    assert sorted(path.name for path in (tmp_path / "a sweep (1)").iterdir()) == [
        "0", "1", "multirun.yaml", "results.csv",
    ]  # fmt: skip


def test_a_sweep_with_a_wrong_value_starts_no_run(probe):
    status, out, err = run("-m", *probe, "show", "seed=1,two")
    assert (status, configs(out)) == (2, []) and "'two'" in err and "Traceback" not in err


def test_a_run_leaves_no_files_of_hydra_behind(probe, tmp_path):
    before = sorted(tmp_path.rglob("*.*"))
    assert cli.main(["show", *probe]) == 0
    assert [path for path in sorted(tmp_path.rglob("*.*")) if path not in before and path.suffix != ".pyc"] == []


def test_ctrl_c_ends_with_a_word_and_status_130(probe):
    # A shell's background job ignores Ctrl-C, and so would the process: heeded again for it, wherever the tests run.
    process = start(
        "wait", *probe, env=dict(os.environ), preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    )
    assert process.stdout is not None and process.stdout.readline() == "waiting\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "stopped by Ctrl-C\n")
    assert "Traceback" not in err


@pytest.mark.parametrize(("rank", "waits"), [("0", []), ("1", [cli.OTHER_RANKS_WAIT_S])])
def test_of_ranks_that_a_launcher_started_the_first_tells_what_all_have_met(rank, waits, monkeypatch, capsys):
    slept = []
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(cli.time, "sleep", slept.append)
    assert cli.main(["optimizer.lerning_rate=1"]) == 2
    assert slept == waits  # the launcher ends the others within this time
    assert "unknown key 'optimizer.lerning_rate'" in capsys.readouterr().err


def test_verbose_says_where_an_error_was_raised_and_both_flags_are_refused(capsys, monkeypatch):
    monkeypatch.setattr(console, "_loudness", "")
    assert cli.main(["--verbose", "sed=1"]) == 2
    told = capsys.readouterr().err
    assert "Traceback" in told and told.rstrip().splitlines()[-1].startswith("error: unknown key 'sed'")
    assert cli.main(["-q", "-v", "seed=1"]) == 2
    assert "expected --quiet or --verbose, got both" in capsys.readouterr().err
    assert cli.main(["sed=1"]) == 2
