"""Every experiment of reinforcement learning that needs no hub trains two steps, from a captioner trained two steps."""

from pathlib import Path

import pytest
from test_experiments import SMALL, karpathy, words

from capkit.checkpoint.loading import read_checkpoint
from capkit.cli import main
from capkit.run.folder import RunFolder

pytestmark = pytest.mark.integration

ONE_CORE = ["trainer=cpu", "trainer.devices=1"]
COUNTS = [f"data.{split}.source.count={count}" for split, count in (("train", 16), ("val", 24), ("test", 24))]
WHOLE = ["eval_limit=24", "trainer.limit_val_batches=1.0"]  # so many pictures as retrieval among 20 wants
TINY = ["debug=tiny", *WHOLE, *COUNTS, *ONE_CORE]
SCENEWORLD = {
    "cider_scst_sceneworld": "generic_mle_sceneworld",
    "cider_nsc_sceneworld": "generic_mle_sceneworld",
    "clip_reward_sceneworld": "generic_mle_sceneworld",
    "clip_reward_grammar_sceneworld": "generic_mle_sceneworld",
    "clip_reward_shuffled_sceneworld": "generic_mle_sceneworld",
    "clip_reward_degenerate_sceneworld": "generic_mle_sceneworld",
    "clip_reward_degenerate_grammar_sceneworld": "generic_mle_sceneworld",
    "clip_reward_degenerate_shuffled_sceneworld": "generic_mle_sceneworld",
    "discritune_sceneworld": "generic_mle_sceneworld",
    "discritune_shuffled_sceneworld": "generic_mle_sceneworld",
    "discritune_whitened_sceneworld": "generic_mle_sceneworld",
}
JUDGED = ("dico_sceneworld", "feedquill_sceneworld", "feedquill_verifier_sceneworld")
MOCHA = ("mocha_sceneworld", "mocha_shuffled_sceneworld")
COCO = {
    "cider_scst": ("coco_transformer", []),
    "cider_nsc": ("coco_transformer", []),
    "clip_reward_cider": ("clip_reward_mle", ["metric=[cider,diversity]"]),  # its others ask CLIP
    "dico": (
        "clip_reward_mle",
        ["reward=[cider]", "metric=[cider]", "callback.checkpoints.select=max cider", "trainer.precision=32-true"],
    ),
}
coco = pytest.fixture(scope="module")(karpathy.__wrapped__)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folders of what the experiments start from and are judged by."""
    folder = tmp_path_factory.mktemp("starts")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in (
            "generic_mle_sceneworld",
            "hallucinating_mle_sceneworld",
            "judge_sceneworld",
            "judge_grammar_sceneworld",
        ):
            pool = ["evaluator.retrieval.fold_size=null"] if name == "judge_sceneworld" else []
            assert main([f"experiment={name}", *TINY, *pool, f"run_dir={folder / name}"]) == 0
    return folder


IN_CI = (
    "cider_scst_sceneworld",
    "clip_reward_grammar_sceneworld",
    "discritune_whitened_sceneworld",
    "mocha_sceneworld",
)


def tiered(experiments):
    """One of each family in CI; the effect tests train the others there too, or at night."""
    return [pytest.param(name, marks=[pytest.mark.nightly] * (name not in IN_CI)) for name in experiments]


@pytest.mark.parametrize("experiment", tiered(SCENEWORLD))
def test_an_experiment_on_sceneworld_trains_two_steps(experiment, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(runs)
    judges = [f"reward_encoder={runs / 'judge_sceneworld'}", f"eval_encoder={runs / 'judge_sceneworld'}"]
    if "grammar" in experiment or experiment == "clip_reward_degenerate_shuffled_sceneworld":
        judges.append(f"reward.grammar.scorer.encoder.ckpt={runs / 'judge_grammar_sceneworld'}")
    start = f"init_from={runs / SCENEWORLD[experiment]}"
    assert main([f"experiment={experiment}", *TINY, start, *judges, f"run_dir={tmp_path / 'run'}"]) == 0
    run = RunFolder(tmp_path / "run")
    numbers = run.metrics()
    assert numbers["train/steps"] == 2
    assert {"test/cider", "test/initial/cider", "test/rd20_r1", "test/clip_score_mean"} <= numbers.keys()
    page = run.report.read_text()
    assert all(row["caption"] in page for row in run.read_rows("initial"))


@pytest.mark.parametrize("experiment", tiered(MOCHA))
def test_mocha_on_sceneworld_trains_two_steps_and_is_judged_by_the_scenes(experiment, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(runs)
    start = f"init_from={runs / 'hallucinating_mle_sceneworld'}"
    run = RunFolder(tmp_path / "run")
    assert main([f"experiment={experiment}", *TINY, start, f"run_dir={run.path}"]) == 0
    numbers = run.metrics()
    assert numbers["train/steps"] == 2
    assert max(abs(row["rl/kl"]) for row in run.rows() if "rl/kl" in row) > 1e-4  # from a start that is kept
    judged = {f"test/{name}" for name in ("cider", "scene_chair_i_color", "fact_recall", "color_said", "nli_scenes")}
    assert judged <= numbers.keys()


@pytest.mark.nightly
@pytest.mark.parametrize("experiment", JUDGED)
def test_preferences_on_sceneworld_train_two_steps_by_their_rewards(experiment, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(runs)
    start, judge = runs / "hallucinating_mle_sceneworld", runs / "judge_sceneworld"
    words = [f"reward_encoder={judge}"] if experiment == "dico_sceneworld" else []
    if experiment == "feedquill_sceneworld":
        collect = ["task=collect_preferences", f"ckpt={start}", "data=sceneworld_hallucinated", COUNTS[0]]
        collect += ["reward=[true_claims,num_true_claims]", "decomposer=scene", "verifier=scene", "num_samples=8"]
        collect += ["verifier.by=picture", "margins={num_true_claims: 1}", f"out={tmp_path / 'pairs.jsonl'}"]
        assert main(collect) == 0
        for criterion in ("true_claims", "num_true_claims"):
            rater = ["experiment=feedquill_rater_sceneworld", *TINY, f"ratings={tmp_path / 'pairs.jsonl'}"]
            rater += [f"criterion={criterion}", f"model.encoder.ckpt={judge}", "held_out=0.3"]
            assert main([*rater, f"run_dir={tmp_path / criterion}"]) == 0
            words.append(f"reward.rater_{criterion}.scorer.rater.ckpt={tmp_path / criterion}")
    run = RunFolder(tmp_path / "run")
    assert main([f"experiment={experiment}", *TINY, f"init_from={start}", *words, f"run_dir={run.path}"]) == 0
    numbers = run.metrics()
    assert numbers["train/steps"] == 2 and {"test/fact_precision", "test/fact_recall"} <= numbers.keys()


def test_the_best_validation_reward_chooses_the_checkpoint(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(runs)
    words = [*TINY, f"init_from={runs / 'hallucinating_mle_sceneworld'}", "callback.checkpoints.select=max reward"]
    run = RunFolder(tmp_path / "run")
    # from step to step the mean reward of captions of other lengths differs
    rewards = ["reward=[length,fact_recall]", "reward.length.scorer.shortest=0", "optimizer.lr=0.1", "val_every=1"]
    assert main(["experiment=mocha_sceneworld", *rewards, *words, f"run_dir={run.path}"]) == 0
    validated = {row["step"]: row["val/reward"] for row in run.rows() if "val/reward" in row}
    assert len(set(validated.values())) > 1
    assert run.metrics()["train/selected_step"] == max(validated, key=validated.__getitem__)


def test_a_reward_that_compares_captions_is_refused_as_choice_of_the_checkpoint(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    words = [*TINY, f"init_from={runs / 'hallucinating_mle_sceneworld'}", "callback.checkpoints.select=max reward"]
    assert main(["experiment=mocha_shuffled_sceneworld", *words, f"run_dir={tmp_path / 'run'}"]) == 2
    told = capsys.readouterr().err
    assert "reward.nli_scenes and reward.fact_recall, which compare the captions of a batch" in told


def test_self_retrieval_on_growing_bags_trains_from_mined_neighbours(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(runs)
    judge = runs / "judge_sceneworld"
    encoder = f"encoder={{_target_: capkit.checkpoint.loading.load_dual_encoder, ckpt: {judge}}}"
    mine = ["num_neighbors=10", "duplicate_threshold=1", f"run_dir={tmp_path / 'mine'}"]
    assert main(["mine", "data=sceneworld_backgrounds", *COUNTS, encoder, *mine]) == 0
    bags = ["sizes=[2,4]", f"run_dir={tmp_path / 'bags'}"]
    assert main(["bags", f"neighbors={tmp_path / 'mine'}", *bags]) == 0
    start = [f"init_from={runs / 'generic_mle_sceneworld'}", f"reward_encoder={judge}", f"eval_encoder={judge}"]
    folder = [f"curriculum.folder={tmp_path / 'bags'}", "data.batch_size=8"]
    run = RunFolder(tmp_path / "run")
    assert main(["experiment=ndlb_bagcurri_sceneworld", *TINY, *start, *folder, f"run_dir={run.path}"]) == 0
    (row,) = [row for row in run.rows() if "reward/self_retrieval_pool" in row]
    assert run.metrics()["train/steps"] == 2 and row["reward/self_retrieval_pool"] == 8


def test_self_retrieval_after_boosted_captions_trains_adapters(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    curate = ["curate", "data=sceneworld_generic", *COUNTS, "out=data/blended_scenes"]
    assert main([*curate, "step=[blend_captions]"]) == 0
    assert main([*curate, "step=[]", "splits=[val,test]"]) == 0
    tiny = ["debug=tiny", *WHOLE, *ONE_CORE]
    assert main(["experiment=ndlb_mle_sceneworld", *tiny, "run_dir=blended"]) == 0
    judges = [f"{name}={runs / 'judge_sceneworld'}" for name in ("judge", "judge2")]
    for experiment in ("ndlb_sr_sceneworld", "ndlb_sr_cider_sceneworld"):
        assert main([f"experiment={experiment}", *tiny, "init_from=blended", *judges, f"run_dir={experiment}"]) == 0
        numbers = RunFolder(experiment).metrics()
        assert numbers["train/steps"] == 2 and {"test/rd20_r1", "test/color_recall"} <= numbers.keys()
        trained = read_checkpoint(Path(experiment))["state_dict"]
        assert all(".lora_" in name for name in trained)
        assert {name.split(".")[1] for name in trained} == {"decoder", "image_encoder"}


@pytest.mark.parametrize(
    "experiment", [pytest.param(name, marks=[pytest.mark.nightly] * (name == "dico")) for name in COCO]
)
def test_a_coco_recipe_trains_two_steps_from_its_likelihood_stage(experiment, coco, tmp_path):
    tiny = ["debug=tiny", "decoding.max_length=5", "decoding.num_beams=2"]
    stage, changes = COCO[experiment]
    assert main([*words(stage, coco, tmp_path)[:-1], *tiny, *SMALL[stage], f"run_dir={tmp_path / 'mle'}"]) == 0
    inputs = words(experiment, coco, tmp_path)
    assert main([*inputs, *tiny, *changes, "objective.rollout.max_length=5", f"init_from={tmp_path / 'mle'}"]) == 0
    numbers = RunFolder(tmp_path / "run").metrics()
    assert numbers["train/steps"] == 2 and {"test/cider", "test/initial/cider"} <= numbers.keys()


def test_a_run_by_rewards_says_what_it_lacks(tmp_path, capsys):
    run = f"run_dir={tmp_path / 'run'}"
    assert main(["task=fit_rl", "reward=[length]", *ONE_CORE, run]) != 0
    assert "init_from" in capsys.readouterr().err
    assert main(["task=fit_rl", f"init_from={tmp_path}", *ONE_CORE, run]) != 0
    assert "expected a reward, got none" in capsys.readouterr().err
