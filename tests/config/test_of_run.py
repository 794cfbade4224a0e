"""A task on a run takes the run's data, transform, metrics and decoding: told from the composed config alone."""

import json
import zipfile
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from capkit.config.arguments import parse
from capkit.config.check import compose_checked
from capkit.config.described import described
from capkit.errors import UsageError

OWN = ["data=folder", "data.train.images=photos", "data.train.captions=captions.json", "data.transform.size=64"]
BEAM = ["decoding=beam", "metric=[bleu,cider]", "data.batch_size=4", "seed=3"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working folder with pictures, captions of them, and a run on them."""
    monkeypatch.chdir(tmp_path)
    for folder in ("photos", "others"):
        Path(folder).mkdir()
    Path("captions.json").write_text("{}")
    leave_run("runs/mine", *OWN, *BEAM)
    return tmp_path


def leave_run(folder, *words):
    """What is left of a run's config: the file, resolved."""
    config = OmegaConf.to_container(compose_checked(parse(list(words))).config, resolve=True)
    Path(folder, "checkpoints", "step-00000040.ckpt").mkdir(parents=True)
    Path(folder, "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return config


def compose(*words):
    return OmegaConf.to_container(compose_checked(parse(list(words))).config, resolve=True)


def refusal(*words):
    with pytest.raises(UsageError) as caught:
        compose(*words)
    return str(caught.value)


@pytest.mark.parametrize("ckpt", ["runs/mine", "runs/mine/checkpoints", "runs/mine/checkpoints/step-00000040.ckpt"])
def test_evaluation_is_of_the_runs_data_by_its_transform_metrics_and_decoding(ckpt):
    config, run = compose("evaluate", f"ckpt={ckpt}"), yaml.safe_load(Path("runs/mine/config.yaml").read_text())
    for split in ("train", "val", "test"):
        assert config["data"][split] == run["data"][split]
    assert config["data"]["transform"] == run["data"]["transform"]
    assert config["data"]["transform"]["size"] == 64 and config["data"]["transform"]["resize"] == "pad"
    assert list(config["metric"]) == ["bleu", "cider"]
    assert (config["decoding"]["method"], config["decoding"]["num_beams"]) == ("beam", 5)
    assert config["seed"] == config["data"]["seed"] == 0
    assert "of_run" not in config["task"]


def test_it_is_told_which_part_is_whose():
    lines = list(described(compose_checked(parse(["evaluate", "ckpt=runs/mine", "metric=[cider]"]))))
    assert lines[0].startswith("data:      of runs/mine: Folder(images=photos, captions=captions.json")
    assert lines[1:] == [
        "transform: of runs/mine: ImageTransform(size=64, resize=pad)",
        "metrics:   given here: cider",
        "decoding:  of runs/mine: Decoding(method=beam, num_beams=5)",
    ]


def test_the_metrics_language_is_the_runs_unless_the_command_line_says_another():
    leave_run("runs/portuguese", *OWN, *BEAM, "metric.language=pt")

    def languages(*words):
        metrics = compose("evaluate", "ckpt=runs/portuguese", *words)["metric"]
        return [metrics[name]["language"] for name in ("bleu", "cider")]

    assert languages() == ["pt", "pt"]
    assert languages("metric.language=de") == ["de", "de"]
    assert languages("metric.cider.language=de") == ["pt", "de"]


def test_values_of_the_command_line_stand_on_top_and_val_and_test_follow_train():
    config = compose("evaluate", "ckpt=runs/mine", "data.train.images=others", "decoding.num_beams=3")
    assert [config["data"][split]["images"] for split in ("train", "val", "test")] == ["others"] * 3
    assert [config["data"][split]["split"] for split in ("train", "val", "test")] == ["train", "val", "test"]
    assert config["decoding"]["num_beams"] == 3


def test_data_that_is_chosen_keeps_the_transform_that_the_model_was_built_for():
    config = compose("evaluate", "ckpt=runs/mine", "data=sceneworld", "decoding=greedy", "metric=[facts]")
    assert config["data"]["test"]["_target_"] == "capkit.sceneworld.sources.scenes.SceneWorld"
    assert config["data"]["transform"]["resize"] == "pad"
    assert "method" not in config["decoding"] and list(config["metric"]) == ["facts"]
    given = compose("evaluate", "ckpt=runs/mine", "data=sceneworld", "data.transform.size=32")["data"]["transform"]
    assert (given["size"], given["resize"]) == (32, "pad")


def test_parts_of_a_run_take_settings_and_parts_it_lacks_are_refused_by_name():
    leave_run("runs/pairs", "fit_encoder", "evaluator=[zero_shot_holdout]")
    assert compose("evaluate", "ckpt=runs/mine", "metric.bleu.language=pt")["metric"]["bleu"]["language"] == "pt"
    assert compose("evaluate", "ckpt=runs/mine", "metric=[]")["metric"] == {}
    told = refusal("evaluate", "ckpt=runs/mine", "metric.spice.language=pt")
    assert told == "unknown key 'metric.spice' on the command line; choose it first: metric=[bleu,cider,spice]"
    told = refusal("evaluate", "ckpt=runs/mine", "metric=[bleu]", "metric.cider.sigma=9")
    assert told == "unknown key 'metric.cider' on the command line; choose it first: metric=[bleu,cider]"
    told = refusal("evaluate_encoder", "ckpt=runs/pairs", "evaluator.retrieval.fold_size=9")
    fix = "choose it first: evaluator=[zero_shot_holdout,retrieval]"
    assert told == f"unknown key 'evaluator.retrieval' on the command line; {fix}"


def test_settings_without_a_part_in_an_older_runs_config_are_refused_by_name_and_can_be_dropped():
    body = leave_run("runs/pairs", "fit_encoder", "evaluator=[sts_scenes]")
    body["evaluator"]["retrieval"] = {"fold_size": 100}  # as earlier versions left it behind
    Path("runs/pairs/config.yaml").write_text(yaml.safe_dump(body))
    told = refusal("evaluate_encoder", "ckpt=runs/pairs")
    assert "evaluator.retrieval.fold_size in runs/pairs/config.yaml; add evaluator=[sts_scenes,retrieval], or" in told
    config = compose("evaluate_encoder", "ckpt=runs/pairs", "~evaluator.retrieval")
    assert list(config["evaluator"]) == ["sts_scenes"]


def test_an_experiments_settings_of_replaced_parts_go_on_a_run_too():
    leave_run("runs/pairs", "fit_encoder", "evaluator=[zero_shot_holdout]")
    words = ["evaluate_encoder", "experiment=clip_pretrain_sceneworld", "ckpt=runs/pairs"]
    assert list(compose(*words, "evaluator=[sts_scenes]")["evaluator"]) == ["sts_scenes"]


def test_an_experiments_keys_of_its_own_task_mean_nothing_to_another():
    config = compose("evaluate", "experiment=stamps_preferences", "ckpt=runs/mine", "data=folder", *OWN[1:])
    assert "reference" not in config and config["name"] == "stamps_preferences"
    told = refusal("evaluate", "experiment=stamps_preferences", "ckpt=runs/mine", *OWN, "reference=kept")
    assert "unknown key 'reference'" in told and "it belongs to task fit_preferences" in told


@pytest.mark.parametrize("word", ["model.width=3", "model=modular", "+model.conditions.length=length", "~model.prompt"])
@pytest.mark.parametrize("task", ["evaluate", "frontier", "caption"])
def test_words_on_the_model_of_a_checkpoint_are_refused(task, word):
    told = refusal(task, "ckpt=runs/mine", word)
    assert f"{word}: expected no words on the model with task={task}" in told


def test_evaluation_may_silence_a_module():
    assert compose("evaluate", "ckpt=runs/mine", "model.zero_module=attribute")["zero_module"] == "attribute"
    assert compose("evaluate", "ckpt=runs/mine", "zero_module=object")["zero_module"] == "object"
    assert "expected object or attribute" in refusal("evaluate", "ckpt=runs/mine", "model.zero_module=colour")
    assert "expected no words on the model" in refusal("caption", "ckpt=runs/mine", "model.zero_module=object")


def test_splits_that_a_task_does_not_read_may_be_left_out():
    words = ["data=manifest", "data.test.path=a.jsonl"]
    said = refusal("evaluate", "ckpt=runs/mine", *words)
    assert "add data.train.path=... data.val.path=..., or data.train=null data.val=null where nothing" in said
    assert "null" not in refusal("fit", *words)


def test_a_key_that_the_runs_data_lacks_names_the_run():
    leave_run("runs/scenes")
    message = refusal("evaluate", "ckpt=runs/scenes", "data.train.images=photos")
    assert "'data.train.images'" in message and "runs/scenes/config.yaml" in message


def test_fine_tuning_by_rewards_takes_what_the_run_saw_and_keeps_its_own_way_of_training():
    leave_run("runs/other", *OWN, *BEAM, "curriculum=shuffle", "curriculum.drop_last=true", "optimizer.lr=1e-2")
    config = compose("fit_rl", "init_from=runs/other", "reward=[cider]", "seed=7")
    assert config["data"]["train"]["images"] == "photos" and config["decoding"]["method"] == "beam"
    assert config["data"]["batch_size"] == 32 and config["optimizer"]["lr"] == 1e-5
    assert config["data"]["seed"] == 7 and "drop_last" not in config["data"]["curriculum"]


EXPERIMENTS = [
    "cider_scst_sceneworld", "cider_nsc_sceneworld", "mocha_sceneworld", "discritune_sceneworld", "ndlb_sr_sceneworld",
    "stamps_sr",
]  # fmt: skip


@pytest.mark.integration
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_on_a_run_composes_what_it_says(experiment):
    words = [f"experiment={experiment}", "reward_encoder=runs/mine", "eval_encoder=runs/mine"]
    for split in ("train", "val", "test"):
        path = Path(f"data/blended_scenes/{split}.jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    Path("without_config").mkdir()
    Path("without_config/about.json").touch()
    alone = compose(*words, "init_from=without_config")
    on_run = compose(*words, "init_from=runs/mine")
    assert on_run["data"] == alone["data"] and on_run["metric"] == alone["metric"]
    assert on_run["decoding"] == {**alone["decoding"], "method": "beam", "num_beams": 5}


def test_an_experiment_that_chooses_its_decoding_keeps_it(tmp_path):
    folder = tmp_path / "configs/experiment"
    folder.mkdir(parents=True)
    (folder / "base.yaml").write_text("# @package _global_\ndefaults: [{override /decoding: greedy}]\n")
    (folder / "mine.yaml").write_text("# @package _global_\ndefaults: [base, _self_]\ndecoding: {max_length: 9}\n")
    config = compose(f"--config-dir={tmp_path / 'configs'}", "evaluate", "experiment=mine", "ckpt=runs/mine")
    assert config["decoding"] == {"_target_": "capkit.decoding.config.Decoding", "max_length": 9, "prompt": ""}


@pytest.mark.integration
def test_captioning_mining_and_encoders_take_their_parts():
    assert compose("caption", "ckpt=runs/mine", "images=photos")["decoding"]["num_beams"] == 5
    encoder = "encoder={_target_: capkit.checkpoint.loading.load_dual_encoder, ckpt: runs/mine}"
    assert compose("mine", encoder)["data"]["train"]["images"] == "photos"
    leave_run("runs/encoder", "fit_encoder", *OWN, "evaluator=[grammar,retrieval]", "evaluator.retrieval.fold_size=9")
    for words in (
        ["evaluate_encoder", "ckpt=runs/encoder"],
        ["fit_encoder", "model=trained", "model.ckpt=runs/encoder"],
    ):
        config = compose(*words)
        assert config["evaluator"]["retrieval"]["fold_size"] == 9 and "grammar" in config["evaluator"]
        assert config["data"]["test"]["images"] == "photos"


def test_pictures_that_are_gone_are_asked_for():
    Path("photos").rename("moved")
    message = refusal("evaluate", "ckpt=runs/mine")
    assert "data.train.images=photos: no such file or folder" in message
    assert "runs/mine/config.yaml; give data.train.images=PATH, or other data: data=NAME" in message
    assert compose("evaluate", "ckpt=runs/mine", "data.train.images=moved")["data"]["test"]["images"] == "moved"


def save_state(file, config):
    torch = pytest.importorskip("torch")
    weights = torch.nn.Linear(2, 2).state_dict()
    torch.save({"state_dict": weights, "global_step": 4, "capkit": {"config": config}, "lr": torch.ones(2)}, file)


@pytest.mark.parametrize("name", ["step-00000004.ckpt/state.pt", "older.ckpt"])
def test_a_checkpoint_that_lies_alone_says_it_itself(name):
    file = Path("alone", name)
    file.parent.mkdir(parents=True)
    save_state(file, yaml.safe_load(Path("runs/mine/config.yaml").read_text()))
    for ckpt in {file.parent if file.name == "state.pt" else file, Path("alone") if "step" in name else file}:
        assert compose("evaluate", f"ckpt={ckpt}")["data"]["train"]["images"] == "photos"


def test_nothing_that_a_checkpoint_names_is_run(monkeypatch):
    class Hostile:
        def __reduce__(self):
            return Path.touch, (Path("touched"),)

    save_state("hostile.ckpt", {"data": Hostile()})
    with pytest.raises(UsageError):
        compose("evaluate", "ckpt=hostile.ckpt")
    assert not Path("touched").exists()


@pytest.mark.parametrize("content", [b"data: {a: [", b"\xff\xfe\x00", b"5", b"a: !!python/object/apply:os.getcwd []"])
def test_a_broken_config_of_a_run_names_the_file(content):
    Path("runs/mine/config.yaml").write_bytes(content)
    told = refusal("evaluate", "ckpt=runs/mine")
    assert "mine/config.yaml" in told and ": expected the config of a run, got" in told


def test_a_broken_checkpoint_is_told():
    with zipfile.ZipFile("broken.ckpt", "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02}q\x00.")
    assert "broken.ckpt: expected a checkpoint that holds its run's config" in refusal("evaluate", "ckpt=broken.ckpt")


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("data.train._target_", "os.system", "names 'os.system' at data.train"),
        ("metric.bleu._target_", "capkit.metrics.chair.Path", "names 'capkit.metrics.chair.Path' at metric.bleu"),
        ("decoding._target_", "capkit.cli.main", "names 'capkit.cli.main' at decoding"),
        ("data.train.images", "${oc.env:HOME}", "expected a value, got the reference"),
    ],
)
def test_a_run_from_elsewhere_chooses_no_code(key, value, told):
    config = OmegaConf.load("runs/mine/config.yaml")
    plain = json.loads(json.dumps(OmegaConf.to_container(config)))
    node = plain
    *words, last = key.split(".")
    for word in words:
        node = node[word]
    node[last] = value
    Path("runs/mine/config.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))
    assert told in refusal("evaluate", "ckpt=runs/mine")


def test_a_folder_without_a_config_asks_for_data():
    Path("exported").mkdir()
    Path("exported/about.json").touch()
    assert "ckpt=exported does not record what data it was trained on; give data=NAME" in refusal(
        "evaluate", "ckpt=exported"
    )
    assert compose("evaluate", "ckpt=exported", "data=sceneworld")["data"]["test"]["count"] == 500


def test_a_split_that_there_is_not_is_refused_before_anything_starts():
    assert "expected train or val or test or predict" in refusal("evaluate", "ckpt=runs/mine", "split=dev")


def test_ckpt_of_a_training_task_is_pointed_to_init_from():
    assert "init_from=RUN names the run to start from" in refusal("fit_rl", "ckpt=runs/mine", "reward=[cider]")
