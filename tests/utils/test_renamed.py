"""Old names: importable with a warning, mended in configs and in files that are rewritten."""

import importlib
import inspect
import subprocess
import sys
import warnings

import pytest

from capkit.config.arguments import Command, parse
from capkit.config.compose import compose_config
from capkit.testing.models import two_tower
from capkit.utils.old_modules import MODULES
from capkit.utils.old_names import ARGUMENTS, CALLBACKS, NAMES
from capkit.utils.renamed import main, new_key, new_name, renamed_config, renamed_state, rewritten


def test_every_name_of_today_exists():
    for module in set(MODULES.values()):
        importlib.import_module(module)
    for name in NAMES.values():
        module, _, leaf = name.rpartition(".")
        assert hasattr(importlib.import_module(module), leaf), name


@pytest.mark.parametrize("name", ARGUMENTS)
def test_constructors_take_their_old_arguments_with_a_warning(name, tmp_path):
    module, _, leaf = name.rpartition(".")
    made = getattr(importlib.import_module(module), leaf)
    (tmp_path / "sets.json").write_text('{"set": {"0": "a caption"}}')
    more = {"file": str(tmp_path / "sets.json")} if leaf == "ImageCode" else {}
    encoder = two_tower()
    for old, new in ARGUMENTS[name].items():
        with pytest.warns(FutureWarning, match=rf"\({old}=...\) is now \w+\({new}=...\)"):
            assert getattr(made(**{old: encoder}, **more), new) is encoder
        with pytest.raises(TypeError, match=f"got {new} and its old name {old}"):
            made(**{old: encoder, new: encoder}, **more)
        assert old not in inspect.signature(made).parameters


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_every_old_name_is_importable():
    for name in NAMES:
        module, _, leaf = name.rpartition(".")
        assert hasattr(importlib.import_module(module), leaf), name


OLD_IMPORTS = """
from capkit.keyed import stable_hash
import capkit.scenes.world
from capkit.text import word_tokenizer
from capkit.distributed import zero_partitions
from capkit.types import Scorer
from capkit.objectives.policy import PolicyObjective
"""


@pytest.mark.integration
def test_old_names_are_imported_with_a_warning_at_the_line_that_says_them(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(OLD_IMPORTS)
    done = subprocess.run([sys.executable, "-W", "always", script], capture_output=True, text=True, check=True)
    told = [line for line in done.stderr.splitlines() if "FutureWarning" in line]
    for line, old in ((2, "keyed"), (3, "scenes.world"), (4, "text.word_tokenizer"), (6, "types.Scorer")):
        assert any(f"mine.py:{line}" in said and f"capkit.{old} is now capkit." in said for said in told), (old, told)
    assert not any("mine.py:5" in said for said in told), "a module of today that lies in a folder with an old name"


def test_names_that_never_were_are_not_found():
    with pytest.raises(ImportError), warnings.catch_warnings(action="ignore"):
        importlib.import_module("capkit.scenes.no_such")
    with pytest.raises(ImportError), warnings.catch_warnings(action="ignore"):
        exec("from capkit.optim import no_such")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("capkit.keyed", "capkit.utils.rng"),
        ("capkit.optim.AdamW", "capkit.optim.optimizers.AdamW"),
        ("capkit.optim.lamb.LAMB", "capkit.optim.lamb.LAMB"),
        ("capkit.text.ptb.tokenizer", "capkit.text.ptb.tokenizer"),
        ("capkit.data.manifest.Record", "capkit.data.records.Record"),
        ("capkit.data.manifest.Manifest", "capkit.data.sources.manifest.Manifest"),
        ("capkit.curation.caption_answers.JSONField", "capkit.llm.json_replies.JSONField"),
        ("torch.optim.AdamW", "torch.optim.AdamW"),
    ],
)
def test_the_name_of_today(old, new):
    assert new_name(old) == new and new_name(new) == new


def test_a_config_of_the_users_with_an_old_target_is_run_with_a_warning(tmp_path):
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer/mine.yaml").write_text("_target_: capkit.optim.AdamW\nlr: 1.0e-3\n")
    with pytest.warns(FutureWarning, match=r"capkit\.optim\.AdamW is now capkit\.optim\.optimizers\.AdamW"):
        composed = compose_config(Command(["optimizer=mine"], config_dirs=[tmp_path]))
    assert composed.config.optimizer._target_ == "capkit.optim.optimizers.AdamW"


def test_what_a_checkpoint_says_of_classes_and_callbacks_is_mended():
    old = next(iter(CALLBACKS), "Recorder")
    node = {"model": {"_target_": "capkit.models.two_tower.TwoTower", "image_tower": [{"_target_": "capkit.x.Y"}]}}
    state = renamed_state({"callbacks": {old: {"a": 1}}, "capkit": {"config": node}, "global_step": 3})
    assert state["callbacks"] == {CALLBACKS.get(old, old): {"a": 1}} and state["global_step"] == 3
    assert state["capkit"]["config"]["model"] == {
        "_target_": "capkit.models.dual_encoders.two_tower.TwoTower",
        "image_tower": [{"_target_": "capkit.x.Y"}],
    }


def test_a_users_files_are_rewritten(tmp_path):
    old = (
        "import capkit.keyed\n"
        "from capkit.data.manifest import Manifest, Record as R\n"
        "from capkit.optim.lamb import LAMB\n"
        "x = capkit.keyed.stable_hash(1)  # not_capkit.keyed\n"
    )
    new = (
        "import capkit.utils.rng\n"
        "from capkit.data.sources.manifest import Manifest\n"
        "from capkit.data.records import Record as R\n"
        "from capkit.optim.lamb import LAMB\n"
        "x = capkit.utils.rng.stable_hash(1)  # not_capkit.keyed\n"
    )
    assert rewritten(old) == new and rewritten(new) == new
    file = tmp_path / "a/mine.yaml"
    file.parent.mkdir()
    file.write_text("_target_: capkit.optim.AdamW\n")
    main([str(tmp_path)])
    assert file.read_text() == "_target_: capkit.optim.optimizers.AdamW\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("judge", "reward_encoder"),
        ("judge2", "eval_encoder"),
        ("metric.rd20.judge.ckpt", "metric.rd20.encoder.ckpt"),
        ("reward.clip_score.scorer.judge.ckpt", "reward.clip_score.scorer.encoder.ckpt"),
        ("reward.nli.scorer.judge.name", "reward.nli.scorer.judge.name"),
        ("optimizer.lr", "optimizer.lr"),
    ],
)
def test_keys_as_they_were_typed(old, new):
    assert new_key(old) == new and new_key(new) == new
    if old not in (new, "judge"):
        with pytest.warns(FutureWarning, match=f"{old} is now {new}"):
            assert parse([f"{old}=0.5"]).overrides == [f"{new}=0.5"]


def test_judge_is_a_runs_old_key_and_a_group_of_today(tmp_path, monkeypatch):
    """`judge=RUN` was a key, where a folder of that name exists; else it chooses who compares captions."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").mkdir()
    (tmp_path / "cider").mkdir()
    with pytest.warns(FutureWarning, match="judge is now reward_encoder"):
        assert parse(["judge=old"]).overrides == ["reward_encoder=old"]
    assert parse(["judge=cider", "judge.tie_below=0.5"]).overrides == ["judge=cider", "judge.tie_below=0.5"]
    assert parse(["judge=visio"]).overrides == ["judge=visio"]  # composing tells that there is none
    part = {"_target_": "capkit.sceneworld.pair_judge.ScenePairJudge"}
    assert renamed_config({"judge": part}) == {"judge": part}
    assert new_key("metric.arena.judge.tie_below") == "metric.arena.judge.tie_below"


def test_a_key_of_one_task_is_renamed_under_that_task_alone():
    with pytest.warns(FutureWarning, match="share is now utilization"):
        assert parse(["plan", "share=0.5"]).overrides == ["task=plan", "utilization=0.5"]
    assert parse(["fit", "share=0.5"]).overrides == ["task=fit", "share=0.5"]


def test_the_config_of_an_earlier_run_has_todays_keys_and_arguments():
    scorer = {"_target_": "capkit.scorers.clip_score.ClipScore", "judge": {"ckpt": "runs/a"}}
    term = {"_target_": "capkit.scorers.reward.Term", "scorer": scorer}
    contradiction = {
        "_target_": "capkit.scorers.nli.NLI",
        "judge": {"_target_": "capkit.scorers.nli_judges.SceneRules"},
    }
    assert renamed_config({"judge": "runs/a", "reward": {"a": term, "b": contradiction}}) == {
        "reward_encoder": "runs/a",
        "reward": {
            "a": {
                "_target_": "capkit.scorers.reward.RewardTerm",
                "scorer": {"_target_": "capkit.scorers.clip_score.ClipScore", "encoder": {"ckpt": "runs/a"}},
            },
            "b": {"_target_": "capkit.scorers.nli.NLI", "judge": {"_target_": "capkit.sceneworld.judges.SceneRules"}},
        },
    }
