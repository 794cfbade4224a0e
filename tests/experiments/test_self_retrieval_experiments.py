"""The paper-size recipes of self-retrieval on a small set of COCO's format: what trains, what stays, what is saved."""

import re
import shutil

import pytest
import torch
from PIL import Image
from test_experiments import SMALL, karpathy, manifest, words
from tokenizers.processors import TemplateProcessing
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from capkit.checkpoint.loading import load_captioner, load_captioner_to_tune, read_checkpoint
from capkit.cli import main
from capkit.config.instantiate import build
from capkit.data.sources.conceptual_captions import picture_name
from capkit.models.captioners.clip_prefix import ClipPrefix
from capkit.models.dual_encoders.hf_frozen import HFDualEncoder
from capkit.run.folder import RunFolder
from capkit.tasks import fit_rl
from capkit.text.tokenizers import word_tokenizer

pytestmark = pytest.mark.integration

SHORT = ["decoding.max_length=5", "decoding.num_beams=2"]
TINY = ["debug=tiny", "trainer=cpu", "trainer.devices=1", "data.num_workers=0", *SHORT]
EVERY_STEP = "callback.checkpoints.every_steps=1"
coco = pytest.fixture(scope="module")(karpathy.__wrapped__)

# No Detail Left Behind: adapters of GPT-2's attention and of CLIP's queries, keys, values and MLP; the mapper whole.
PUBLISHED = re.compile(
    r"mapper\.layers\.[02]\.(weight|bias)"
    r"|lm\.transformer\.h\.[01]\.attn\.(c_attn|c_proj)\.lora_[AB]\.default\.weight"
    r"|image_encoder\.model\.vision_model\.encoder\.layers\.0\."
    r"(self_attn\.[qkv]_proj|mlp\.fc[12])\.lora_[AB]\.default\.weight"
)
NUM_TRAINED = 4 + 2 * 2 * 2 + 5 * 2


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """A folder with a CLIP of a few thousand random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = word_tokenizer(["a dog on a beach", "two people ride horses", "a red bus", "a cat asleep on a chair"])
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    core = tokenizer.backend_tokenizer  # as CLIP's own, it never gives an empty row
    ends = [(token, tokenizer.convert_tokens_to_ids(token)) for token in (tokenizer.bos_token, tokenizer.eos_token)]
    core.post_processor = TemplateProcessing(single=f"{ends[0][0]} $A {ends[1][0]}", special_tokens=ends)
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text = {**sizes, "vocab_size": len(tokenizer), "max_position_embeddings": 20, **special}
    vision = {**sizes, "image_size": 32, "patch_size": 16}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPImageProcessor(**size).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def start(coco, tmp_path_factory):
    """A run of the likelihood stage."""
    folder = tmp_path_factory.mktemp("start")
    assert main([*words("coco_clipcap", coco, folder), *TINY, *SMALL["coco_clipcap"]]) == 0
    return folder / "run"


def boosted(coco):
    """The data of what trains on boosted captions."""
    return [f"data.{split}.path={manifest(coco)}" for split in ("train", "val", "test")]


def by_rewards(experiment, start, judge, run, *more):
    rewarded = [f"init_from={start}", f"reward.self_retrieval.scorer.encoder.model={judge}", "metric=[cider]"]
    lengths = ["objective.rollout.max_length=5", "callback.checkpoints.select=null"]
    return [f"experiment={experiment}", *TINY, *rewarded, *lengths, "optimizer.lr=0.01", *more, f"run_dir={run}"]


@pytest.fixture(scope="module")
def tuned(coco, start, judge, tmp_path_factory):
    """Two steps of experiment=ndlb_sr: (run folder, the module after them)."""
    found = []
    run = tmp_path_factory.mktemp("tuned") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_rl, "load_best", lambda this, module: found.append(module))
        assert main(by_rewards("ndlb_sr", start, judge, run, *boosted(coco), EVERY_STEP)) == 0
    return RunFolder(run), found[0]


def test_adapters_and_mapper_train_as_published_and_nothing_else_moves(start, judge, tuned):
    run, module = tuned
    lora = build(read_checkpoint(run.path)["capkit"]["config"]["model"]["lora"])
    assert {part: (one["rank"], one["alpha"]) for part, one in lora.items()} == {
        "lm": (32, 16),
        "image_encoder": (32, 16),
    }
    before = dict(load_captioner_to_tune(str(start), lora=lora).named_parameters())
    after = dict(module.model.named_parameters())
    trained = {name for name, parameter in after.items() if parameter.requires_grad}
    assert len(trained) == NUM_TRAINED and all(PUBLISHED.fullmatch(name) for name in trained)
    assert {name for name in after if not torch.equal(after[name], before[name])} == trained
    likelihood_stage = load_captioner(str(start))[0].lm
    assert torch.equal(module.model.lm.transformer.wte.weight, likelihood_stage.transformer.wte.weight)
    assert torch.equal(module.model.lm.lm_head.weight, likelihood_stage.lm_head.weight)
    listener = module.reward.terms["self_retrieval"].scorer.images.encoder.model.state_dict()
    fresh = HFDualEncoder(str(judge)).model.state_dict()
    assert all(torch.equal(listener[name], fresh[name]) for name in fresh)


def test_a_checkpoint_holds_what_trains_alone(tuned):
    run, module = tuned
    parameters = {f"model.{name}" for name, _ in module.model.named_parameters()}
    stored = parameters & set(read_checkpoint(run.path)["state_dict"])
    assert len(stored) == NUM_TRAINED and all(PUBLISHED.fullmatch(name.removeprefix("model.")) for name in stored)


def test_the_pool_is_the_global_batch_and_rollouts_are_those_of_the_paper(tuned):
    run, module = tuned
    (row,) = [row for row in run.rows() if "reward/self_retrieval_pool" in row]
    assert row["reward/self_retrieval_pool"] == 4 and row["rl/baseline"] < 0
    policy = module.objective
    assert (policy.rollout.method, policy.rollout.temperature, policy.num_samples) == ("sample", 0.3, 1)
    assert (policy.reduction, policy.learn_eos) == ("seq_mean", False)


def test_a_run_with_adapters_that_was_cut_off_ends_like_one_that_was_not(coco, start, judge, tuned, tmp_path):
    run = RunFolder(shutil.copytree(tuned[0].path, tmp_path / "run"))
    last = run.checkpoints / "step-00000002.ckpt"
    shutil.rmtree(last)
    run.report.unlink()
    assert main(by_rewards("ndlb_sr", start, judge, run.path, *boosted(coco), EVERY_STEP)) == 0
    assert [row["resumed_from"] for row in run.rows() if "resumed_from" in row] == [1] and last.exists()
    ours, expected = (read_checkpoint(folder.path)["state_dict"] for folder in (run, tuned[0]))
    assert ours.keys() == expected.keys() and all(torch.equal(ours[name], expected[name]) for name in ours)


def test_the_reproduction_writes_greedily_and_compares_plain_cosines(coco, start, judge, tmp_path):
    run = tmp_path / "run"
    data = words("discritune_whitened", coco, tmp_path)[1:3]
    assert main(by_rewards("discritune_whitened", start, judge, run, *data)) == 0
    (row,) = [row for row in RunFolder(run).rows() if "reward/self_retrieval_pool" in row]
    # log-softmax of four cosines between -1 and 1: within 2 of log(1 / 4)
    assert abs(row["reward/self_retrieval"] + 1.386) < 2 and row["train/grad_norm"] > 0
    names = read_checkpoint(run)["state_dict"]
    assert "model.lm.transformer.wte.weight" in names and not any("image_encoder" in name for name in names)


BLIP = (
    "model.config={model_type:blip,"
    "vision_config:{hidden_size:16,intermediate_size:24,num_hidden_layers:1,num_attention_heads:2,image_size:32,"
    "patch_size:16},text_config:{hidden_size:16,intermediate_size:24,num_hidden_layers:1,num_attention_heads:2,"
    "encoder_hidden_size:16}}"
)


def test_blip_trains_its_text_decoder_alone(coco, judge, tmp_path):
    data = words("discritune_blip", coco, tmp_path)[1:3]
    parts = ["model.name=null", BLIP, "model.tokenizer=word", "model.prompt=a", "data.transform.size=32"]
    more = [*data, *parts, "~decoding.num_beams", EVERY_STEP]
    assert main(by_rewards("discritune_blip", "null", judge, tmp_path / "run", *more)) == 0
    first, last = (
        read_checkpoint(tmp_path / "run" / "checkpoints" / f"step-0000000{step}.ckpt")["state_dict"] for step in (1, 2)
    )
    changed = {name for name in first if not torch.equal(first[name], last[name])}
    assert changed and all(".text_decoder." in name for name in changed)
    assert not any("vision" in name for name in first)


def test_released_weights_of_clipcap_start_training_on_conceptual_captions(judge, tmp_path):
    """Tables, pictures and a file of weights in their released forms."""
    captions = [f"a red bus number {number}." for number in range(8)]
    tables = {"train": "training", "test": "validation"}
    for folder in tables.values():
        (tmp_path / folder).mkdir()
        urls = [f"http://example.org/{folder}/{number}" for number in range(8)]
        for number, url in enumerate(urls):
            Image.new("RGB", (40, 30), (30 * number, 0, 0)).save(tmp_path / folder / picture_name(url), "PNG")
        rows = [f"{caption}\t{url}\n" for caption, url in zip(captions, urls, strict=True)]
        (tmp_path / f"{folder}.tsv").write_text("".join(rows))
    tokenizer = word_tokenizer(captions)
    lm = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2}
    clipcap = ClipPrefix(lm, tokenizer, feature_width=16)
    names = {"mapper.layers": "clip_project.model", "lm": "gpt"}
    weights = {
        new + name.removeprefix(old): value
        for name, value in clipcap.state_dict().items()
        for old, new in names.items()
        if name.startswith(f"{old}.")
    }
    torch.save(weights, tmp_path / "weights.pt")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    data = [f"data.{split}.{key}={tmp_path / folder}{end}" for split, folder in tables.items()
            for key, end in (("images", ""), ("captions", ".tsv"))]  # fmt: skip
    parts = [*SMALL["coco_clipcap"][1:], f"model.tokenizer={tmp_path / 'tokenizer'}", "data.train.val=0.2"]
    parts.append(f"model.clipcap_weights={tmp_path / 'weights.pt'}")
    run = tmp_path / "run"
    more = [*data, *parts, "optimizer.lr=1e-12"]
    assert main(by_rewards("discritune_conceptual", "null", judge, run, *more)) == 0
    trained, _ = load_captioner(str(run))
    assert trained.bos_after_prefix is False
    for name, value in trained.state_dict().items():
        if name.startswith(("mapper.", "lm.")):
            torch.testing.assert_close(value, clipcap.state_dict()[name])
    assert len(RunFolder(run).metrics()) and RunFolder(run).metrics()["train/steps"] == 2


def test_bags_are_mined_by_the_listener_and_the_mix_with_cider_learns_on_them(coco, start, judge, tmp_path):
    mine = ["by=combined", f"encoder.model={judge}", "num_neighbors=3", "duplicate_threshold=1"]
    assert main(["mine", "data=manifest", *boosted(coco), *mine, f"run_dir={tmp_path / 'mine'}"]) == 0
    assert main(["bags", f"neighbors={tmp_path / 'mine'}", "sizes=[2]", f"run_dir={tmp_path / 'bags'}"]) == 0
    folder = f"curriculum.folder={tmp_path / 'bags'}"
    published = "curriculum.stages={3: hard-2, 8: hard-2, 10: hard-2, 12: hard-2, 14: hard-2, 17: hard-2, 20: hard-2}"
    grown = [*boosted(coco), folder, published, "dry_run=true"]
    assert main(by_rewards("ndlb_bagcurri", start, judge, tmp_path / "plan", *grown)) == 0
    constant = [*boosted(coco), "curriculum=bags", folder, "curriculum.stages={20: hard-2}"]
    assert main(by_rewards("ndlb_sr_cider", start, judge, tmp_path / "run", *constant)) == 0
    (row,) = [row for row in RunFolder(tmp_path / "run").rows() if "reward/cider" in row]
    assert row["reward/total"] == pytest.approx(row["reward/self_retrieval"] + row["reward/cider"], abs=1e-5)


@pytest.mark.parametrize(("experiment", "batch", "epochs"), [("discritune", 100, 20), ("ndlb_mle", 40, 10)])
def test_a_recipe_plans_a_run_with_its_real_batch(coco, start, judge, experiment, batch, epochs, tmp_path, capsys):
    data = boosted(coco) if experiment == "ndlb_mle" else words(experiment, coco, tmp_path)[1:3]
    parts = SMALL["coco_clipcap"]
    if experiment == "discritune":
        parts = [f"init_from={start}", f"reward.self_retrieval.scorer.encoder.model={judge}"]
    cpu = ["trainer=cpu", "trainer.devices=1", "data.num_workers=0", "metric=[cider]", f"run_dir={tmp_path / 'run'}"]
    select = ["callback.checkpoints.select=null"] if experiment == "discritune" else []
    assert main([f"experiment={experiment}", *data, *parts, *cpu, *select, "dry_run=true"]) == 0
    printed = capsys.readouterr().out
    assert f" of {batch} images; {epochs}.00 epochs" in printed
