"""Completion on the command line: what can stand at the cursor, without torch, and what a shell makes of it."""

import os
import shlex
import shutil
import subprocess
import sys

import pytest

from capkit.config.completion import completions
from capkit.config.shells import script
from capkit.errors import UsageError


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["evaluate_"], ["evaluate_encoder "]),
        (["fit", "evaluate_"], []),
        (["list", "optim"], ["optimizer "]),
        (["completion", ""], ["bash ", "fish ", "zsh "]),
        (["--mul"], ["--multirun "]),
        (["fit", "model=clip_p"], ["model=clip_prefix "]),
        (["fit", "metric=[bleu,cider"], ["metric=[bleu,cider", "metric=[bleu,cider] "]),
        (["fit", "metric=rou"], []),
        (["fit", "metric=[cider,cide"], []),
        (["fit", "optimizer.w"], ["optimizer.weight_decay="]),
        (["fit", "callback.check"], ["callback.checkpoints."]),
        (["fit", "model=clip_prefix", "model.prefix_"], ["model.prefix_length="]),
        (["fit", "model.prefix_"], []),
        (["fit", "dry_run="], ["dry_run=false ", "dry_run=true "]),
        (["fit", "++dry_run=f"], ["++dry_run=false "]),
        (["fit", "max_steps="], ["max_steps=null "]),
        (["fit", "run_dir="], []),
        (["fit", "no_such=1", "opti"], ["optimizer="]),
    ],
)  # fmt: skip
def test_what_can_stand_at_the_cursor(words, expected):
    assert completions(words) == expected


def test_an_empty_line_offers_tasks_and_groups():
    found = completions([""])
    assert {"fit ", "caption ", "list ", "model=", "model.", "seed="} <= set(found)
    assert found == sorted(found) == sorted(set(found))


def test_choices_of_a_folder_of_ones_own(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine_alone.yaml").write_text("_target_: capkit.models.captioners.clip_prefix.ClipPrefix\n")
    assert completions([f"--config-dir={tmp_path}", "model=mine"]) == ["model=mine_alone "]


def test_another_shell_is_refused():
    with pytest.raises(UsageError, match="expected bash, fish or zsh, got csh"):
        script(["csh"])
    with pytest.raises(UsageError, match="got nothing"):
        script([])


def _as_program(folder):
    """A `capkit` in `folder` that fails where answering imports something heavy."""
    program = folder / "capkit"
    program.write_text(
        f"#!{sys.executable}\n"
        "import sys\nfrom capkit.cli import main\nstatus = main()\n"
        "sys.exit(status or 50 * bool({'torch', 'transformers', 'lightning'} & set(sys.modules)))\n"
    )
    program.chmod(0o755)
    return os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_replaces_the_part_behind_the_last_sign(tmp_path):
    (tmp_path / "script").write_text(script(["bash"]))
    line = "capkit fit model=clip_prefix metric=[bleu,cider"
    commands = (
        f"compopt() {{ :; }}; source {tmp_path}/script; capkit --complete {line[7:]} || exit 1; "
        f"COMP_LINE='{line}'; COMP_POINT={len(line)}; _capkit; printf '<%s>' \"${{COMPREPLY[@]}}\""
    )
    env = _as_program(tmp_path)
    ran = subprocess.run(["bash", "-c", commands], capture_output=True, text=True, check=False, env=env)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.endswith("<[bleu,cider><[bleu,cider] >")


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
@pytest.mark.parametrize(
    ("typed", "prefix", "quote"), [(r"metric=\[ci", r"metric=\[ci", ""), ("'metric=[ci", "metric=[ci", "'")]
)
def test_zsh_reads_and_leaves_quotes_to_itself(typed, prefix, quote, tmp_path):
    (tmp_path / "script").write_text(script(["zsh"]))
    (tmp_path / "line").write_text(f"{typed}\n{prefix}\n{quote}\n")  # as zsh gives them to the function
    commands = (
        "compdef() { :; }; compadd() { shift 3; printf '<%s>' \"$@\"; }; typeset -A compstate; CURRENT=2; "
        f"{{ read -r typed; read -r PREFIX; read -r quote; }} < {tmp_path}/line; "
        f"words=(capkit $typed); compstate[quote]=$quote; source {tmp_path}/script; _capkit"
    )
    env = _as_program(tmp_path)
    ran = subprocess.run(["zsh", "-fc", commands], capture_output=True, text=True, check=False, env=env)
    assert "<metric=[cider>" in ran.stdout, ran.stderr


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [("launcher=", {"launcher=slurm"}), (r"metric=\[bleu,ci", {"metric=[bleu,cider"}), ("ckpt=", {"ckpt=runs/"})],
)
def test_fish_offers_files_only_where_there_are_no_choices(typed, offered, tmp_path):
    work = tmp_path / "work"
    (work / "runs").mkdir(parents=True)
    (tmp_path / "script").write_text(script(["fish"]))
    commands = f"source {tmp_path}/script; complete -C {shlex.quote('capkit evaluate ' + typed)}"
    env = _as_program(tmp_path)
    ran = subprocess.run(
        ["fish", "--no-config", "-c", commands], capture_output=True, text=True, check=False, env=env, cwd=work
    )
    assert set(ran.stdout.split()) == offered, ran.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_scripts_of_other_shells_can_be_read(shell, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    (tmp_path / "script").write_text(script([shell]))
    assert subprocess.run([shell, "-n", str(tmp_path / "script")], check=False).returncode == 0
