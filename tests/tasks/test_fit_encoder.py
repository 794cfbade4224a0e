"""task=fit_encoder from the command line: what a run leaves, how it resumes, what its checkpoint is good for."""

import json

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast

from capkit.checkpoint.loading import checkpoint_extras, load_dual_encoder, load_ensemble, read_checkpoint
from capkit.cli import main
from capkit.config.instantiate import build
from capkit.errors import UsageError
from capkit.metrics.clip_score import ClipScore
from capkit.models.captioners.encoder_decoder import EncoderDecoder
from capkit.models.encoders.image import SmallCNN
from capkit.models.tuning.policy import Tuning
from capkit.run.folder import RunFolder
from capkit.testing.models import tokenizer
from capkit.train.dual_encoder_module import DualEncoderModule

pytestmark = pytest.mark.integration

SMALL = [
    "fit_encoder", "trainer=cpu", "trainer.devices=1", "data.train.count=40", "data.val.count=8", "data.test.count=12",
    "data.batch_size=8", "data.train.size=32", "model.image_tower.image_size=32", "model.image_tower.width=16",
    "model.embed_dim=16", "model.text_tower.config.hidden_size=16", "model.text_tower.config.intermediate_size=16",
    "val_every=3", "callback.recorder.every_steps=1", "callback.checkpoints.every_steps=3",
]  # fmt: skip
HF = [
    *SMALL[:8], "val_every=3", "model=clip_vit_b32", "model.tokenizer=word", "model.max_length=40",
    "model.config={model_type:clip,projection_dim:8,"
    "text_config:{hidden_size:16,intermediate_size:16,num_hidden_layers:2,num_attention_heads:2},"
    "vision_config:{hidden_size:16,intermediate_size:16,num_hidden_layers:1,num_attention_heads:2,image_size:32,"
    "patch_size:16}}",
    "model.tune_text={_target_:capkit.models.tuning.policy.Tuning,mode:lora,rank:2}",
]  # fmt: skip


def train(folder, *overrides, words=SMALL):
    assert main([*words, f"run_dir={folder}", *overrides]) == 0
    return RunFolder(folder)


@pytest.fixture(scope="module", autouse=True)
def scenes(tmp_path_factory):
    """One cache of pictures for all runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("encoder runs"))
        yield


@pytest.fixture(scope="module")
def whole(scenes):
    return train("runs/whole", "max_steps=6", "micro_batch_size=3", "callback.checkpoints.keep_last=2")


def test_a_run_leaves_numbers_rows_and_a_report(whole):
    numbers = whole.metrics()
    assert numbers["train/steps"] == 6 and numbers["test/retrieval_images"] == 12
    assert {"test/retrieval_t2i_r1", "test/untrained/retrieval_t2i_r1"} <= set(numbers)
    rows = [json.loads(line) for line in (whole.predictions / "test" / "retrieval.jsonl").read_text().splitlines()]
    assert rows
    page = whole.report.read_text()
    assert "nearest caption" in page and "<svg" in page and "Traceback" not in page
    assert page.count('class="grid-row"') == 8, "captions, each with the pictures that are nearest"


def test_validation_logs_loss_and_retrieval(whole):
    names = {name for row in whole.rows() for name in row}
    assert {"val/loss", "val/t2i_r1", "val/i2t_median_rank", "train/loss", "train/grad_norm", "train/lr"} <= names


def test_micro_batches_give_the_same_losses(whole):
    once = train("runs/once", "max_steps=6")
    ours, theirs = ([row["train/loss"] for row in run.rows() if "train/loss" in row] for run in (whole, once))
    assert len(ours) == 6 and ours == pytest.approx(theirs, rel=1e-4)


def test_a_stopped_run_continues_to_the_same_weights(whole, monkeypatch):
    step = DualEncoderModule.backward_batch

    def until_step_3(self, batch, number):
        if number == 3:
            raise KeyboardInterrupt
        return step(self, batch, number)

    monkeypatch.setattr(DualEncoderModule, "backward_batch", until_step_3)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        raise SystemExit(main([*SMALL, "run_dir=runs/stopped", "max_steps=6", "micro_batch_size=3"]))
    monkeypatch.undo()
    resumed = train("runs/stopped", "max_steps=6", "micro_batch_size=3")
    ours, theirs = (read_checkpoint(run.path)["state_dict"] for run in (whole, resumed))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_trained_encoder_is_a_judge_of_captions(whole):
    judge = load_dual_encoder(str(whole.path))
    assert not any(p.requires_grad for p in judge.parameters()) and not judge.training
    metric = ClipScore(judge)
    picture = torch.randint(0, 255, (32, 32, 3), dtype=torch.uint8).numpy()
    numbers = metric.score(["a red circle"], [["a circle"]], [{"key": "x", "image": picture}])
    assert -1 <= numbers["clip_score_mean"] <= 2.5


def test_a_trained_encoder_is_tuned_further(whole):
    tuned = load_dual_encoder(str(whole.path), tune_text=Tuning("lora", rank=2), grammar_head=True)
    plain = load_dual_encoder(str(whole.path))
    assert torch.allclose(tuned.encode_text(["a red circle"]), plain.encode_text(["a red circle"]), atol=1e-6)
    trained = {name.split(".")[0] for name, p in tuned.named_parameters() if p.requires_grad}
    assert trained == {"text_tower", "text_projection", "scale", "grammar_head"}


def test_a_tuned_run_is_read_again_from_both_checkpoints(whole):
    words = [word for word in SMALL if not word.startswith("model.")]
    tuning = ["model=trained", f"model.ckpt={whole.path}", "model.tune_text={mode:last_n,n:1}"]
    tuned = train("runs/tuned", "max_steps=3", *tuning, words=words)
    again, before = load_dual_encoder(str(tuned.path)), load_dual_encoder(str(whole.path))
    texts, pixels = ["a red circle"], torch.randn(2, 3, 32, 32)
    assert not torch.allclose(again.encode_text(texts), before.encode_text(texts), atol=1e-4)
    assert torch.equal(again.encode_image(pixels), before.encode_image(pixels)), "the image side stayed frozen"


def test_a_captioner_is_refused(capsys):
    assert main([*SMALL[:8], "model=encoder_decoder", "run_dir=runs/wrong"]) == 2
    assert "task=fit_encoder trains dual encoders" in capsys.readouterr().err


def test_a_dual_encoder_writes_no_captions(whole, capsys, tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "images" / "a.png")
    for words in (["caption", f"images={tmp_path / 'images'}"], ["evaluate", "trainer=cpu", "trainer.devices=1"]):
        assert main([*words, f"ckpt={whole.path}"]) == 2
        assert "holds a dual encoder" in capsys.readouterr().err


def test_evaluating_a_checkpoint_gives_the_runs_numbers(whole):
    words = ["evaluate_encoder", f"ckpt={whole.path}", "run_dir=runs/evaluated", "data.test.count=12"]
    assert main([*words, "data.train.size=32"]) == 0
    ours, theirs = RunFolder("runs/evaluated").metrics(), whole.metrics()
    assert ours["test/retrieval_t2i_r1"] == theirs["test/retrieval_t2i_r1"]


def test_the_selected_checkpoint_is_evaluated_and_not_the_last(scenes):
    words = ["max_steps=4", "val_every=1", "optimizer.lr=0.3", "callback.checkpoints.select=min loss", "controls=0"]
    run = train("runs/selected", *words)
    losses = {row["step"]: row["val/loss"] for row in run.rows() if "val/loss" in row}
    best = min(losses, key=losses.__getitem__)
    assert run.metrics()["train/selected_step"] == best < 4, "so large a learning rate makes the last step a bad one"
    ranks = {}
    for name in ("best", "step-00000004"):
        judged = f"runs/judged {name}"
        ckpt = f"ckpt={run.checkpoints / name}.ckpt"
        assert main(["evaluate_encoder", ckpt, f"run_dir={judged}", "data.test.count=12", "data.train.size=32"]) == 0
        ranks[name] = (RunFolder(judged).predictions / "test" / "retrieval.jsonl").read_text()
    assert (run.predictions / "test" / "retrieval.jsonl").read_text() == ranks["best"] != ranks["step-00000004"]


def members_of(run):
    """The checkpoints of both saves, as paths."""
    found = sorted(run.checkpoints.glob("step-*.ckpt"))
    assert [path.name for path in found] == ["step-00000003.ckpt", "step-00000006.ckpt"]
    return list(map(str, found))


def test_several_checkpoints_of_a_run_are_evaluated_as_an_ensemble_on_its_data(whole, tmp_path):
    pairs = ("a red circle\ta circle\n", "one star\ta star\n", "a blue square\ta red square\n")
    (tmp_path / "sts.tsv").write_text("".join(f"{score}\t{pair}" for score, pair in enumerate(pairs)))
    words = [f"ckpt=[{','.join(members_of(whole))}]", "data.test.count=12", "data.train.size=32"]
    sts = f"evaluator.sts.files={{mine: {tmp_path / 'sts.tsv'}}}"
    assert main(["evaluate_encoder", *words, "run_dir=runs/together", "evaluator=[retrieval,sts]", sts]) == 0
    numbers = RunFolder("runs/together").metrics()
    encoders = [load_dual_encoder(path) for path in members_of(whole)]
    images = torch.stack([image_embeddings(encoder, whole) for encoder in encoders]).mean(0)
    captions = [row["caption"] for row in rows_of("runs/together", "retrieval") if row["way"] == "t2i"]
    texts = torch.stack([encoder.encode_text(captions) for encoder in encoders]).mean(0)
    keys = [row["key"] for row in rows_of("runs/together", "retrieval") if row["way"] == "i2t"]
    owners = [keys.index(row["key"]) for row in rows_of("runs/together", "retrieval") if row["way"] == "t2i"]
    cosines = torch.nn.functional.normalize(texts, dim=1) @ torch.nn.functional.normalize(images, dim=1).T
    hits = cosines.argmax(1) == torch.tensor(owners)
    assert numbers["test/retrieval_t2i_r1"] == pytest.approx(float(hits.float().mean()))
    first, second = (
        torch.stack([encoder.encode_text([pair.strip().split("\t")[side] for pair in pairs]) for encoder in encoders])
        for side in (0, 1)
    )
    expected = torch.nn.functional.cosine_similarity(first.mean(0), second.mean(0))
    assert [row["cosine"] for row in rows_of("runs/together", "sts")] == pytest.approx(expected.tolist(), abs=1e-5)


def rows_of(folder, name):
    lines = (RunFolder(folder).predictions / "test" / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def image_embeddings(encoder, run):
    data = build(OmegaConf.create(run.config()).data)
    return encoder.encode_image(encoder.preprocess([data.source("test").image(place) for place in range(12)]))


def test_an_ensemble_is_refused_where_its_members_are_no_snapshots_of_one_run(whole, capsys):
    first = members_of(whole)[0]
    for ckpt, message in (
        (f"[{first},{first}]", "twice"),
        (f"[{first}]", "two encoders or more"),
        (f"[{first},runs/nowhere]", "ckpt=runs/nowhere: no such file or folder"),
    ):
        assert main(["evaluate_encoder", f"ckpt={ckpt}", "run_dir=runs/refused"]) == 2
        assert message in capsys.readouterr().err
    other = train("runs/other", "max_steps=3", "seed=1", "data.train.count=16")
    with pytest.raises(UsageError, match="which differ in seed, data; give checkpoints of one run"):
        load_ensemble([first, str(other.path)])


def test_an_exported_clip_is_loaded_by_transformers_with_adapters_merged():
    words = list("abcdefghijklmnopqrstuvwxyz")
    core = Tokenizer(WordLevel({w: i for i, w in enumerate(["<pad>", "<bos>", "<unk>", "<eos>", *words])}, "<unk>"))
    core.pre_tokenizer = Split("", "isolated")
    special = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=core, **special).save_pretrained("letters")
    run = train("runs/lora", "max_steps=3", "model.tokenizer=letters", words=HF)
    assert main(["export", f"ckpt={run.path}", "out=exported"]) == 0
    ours, theirs = load_dual_encoder(str(run.path)), AutoModel.from_pretrained("exported").eval()
    tokens, mask, _ = ours.encode([["a red circle"], ["a blue square"]])
    with torch.no_grad():
        texts = theirs.get_text_features(input_ids=tokens[:, 0]).pooler_output
    expected = ours.embed_texts(tokens[:, 0], mask[:, 0])
    assert torch.allclose(torch.nn.functional.normalize(texts, dim=-1), expected, atol=1e-5)
    assert float(theirs.logit_scale.exp()) == pytest.approx(float(ours.logit_scale), rel=1e-6)
    assert not [name for name in load_file("exported/model.safetensors") if "lora" in name]
    assert "lora" in " ".join(load_file("exported/adapters/text/adapter_model.safetensors"))
    assert len(AutoTokenizer.from_pretrained("exported")) == len(ours.tokenizer)


def test_exported_towers_are_plain_and_an_old_folder_is_left_alone(whole, capsys):
    assert main(["export", f"ckpt={whole.path}", "out=towers"]) == 0
    ours, tower = load_dual_encoder(str(whole.path)), AutoModel.from_pretrained("towers/text_tower").eval()
    tokens, mask, _ = ours.encode([["a red circle"]])
    with torch.no_grad():
        states = tower(input_ids=tokens[:, 0]).last_hidden_state[:, -1]
    projection = load_file("towers/projections.safetensors")["text_projection.weight"]
    found = torch.nn.functional.normalize(states @ projection.T, dim=-1)
    assert torch.allclose(found, ours.embed_texts(tokens[:, 0], mask[:, 0]), atol=1e-5)
    capsys.readouterr()
    assert main(["export", f"ckpt={whole.path}", "out=towers"]) == 2
    assert "not empty" in capsys.readouterr().err


def test_a_checkpoint_of_a_captioner_is_no_judge(tmp_path):
    model = EncoderDecoder(tokenizer(), SmallCNN(image_size=32, width=16), width=16, num_layers=1, num_heads=2)
    node = {
        "_target_": "capkit.models.captioners.encoder_decoder.EncoderDecoder",
        "width": 16,
        "num_layers": 1,
        "num_heads": 2,
    }
    node["image_encoder"] = {"_target_": "capkit.models.encoders.image.SmallCNN", "image_size": 32, "width": 16}
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    extras = checkpoint_extras(OmegaConf.create({"model": node, "seed": 0}), model)
    torch.save({"state_dict": state, "capkit": extras}, tmp_path / "step-00000001.ckpt")
    with pytest.raises(UsageError, match="expected a dual encoder"):
        load_dual_encoder(str(tmp_path))
