"""task=export: what transformers and peft load says what the model says. Dual encoders are in test_fit_encoder."""

import json

import pytest
import torch
from omegaconf import OmegaConf
from peft import PeftModel
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    BlipForConditionalGeneration,
    GitForCausalLM,
    VisionEncoderDecoderModel,
)

from capkit.checkpoint import checkpoint_extras, model_from_checkpoint, read_checkpoint
from capkit.checkpoint_files import read_tensors, write_checkpoint
from capkit.decoding.decoding import Decoding
from capkit.errors import UsageError
from capkit.instantiate import build
from capkit.models.camu import Camu
from capkit.tasks import export
from capkit.text import encode_captions, word_tokenizer
from capkit.tiny import two_tower
from capkit.types import CaptionBatch
from capkit.weights import trainable_state

CAPTIONS = [["a red ball"], ["two green stars and a ball"]]
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
VISION = {**SIZES, "image_size": 32, "patch_size": 16}
TEXT = {**SIZES, "max_position_embeddings": 48}
GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 40}
WHOLE = {
    "vision-encoder-decoder": {"encoder": {"model_type": "vit", **VISION}, "decoder": GPT2},
    "blip": {"vision_config": VISION, "text_config": {**TEXT, "encoder_hidden_size": 16}},
    "git": {"vision_config": VISION, **TEXT},
}
CLASSES = {
    "vision-encoder-decoder": VisionEncoderDecoderModel,
    "blip": BlipForConditionalGeneration,
    "git": GitForCausalLM,
}
VIT = {"_target_": "capkit.models.image_encoders.HFImageEncoder", "config": {"model_type": "vit", **VISION}}
PREFIX = {
    "_target_": "capkit.models.clip_prefix.ClipPrefix", "lm": GPT2, "image_encoder": VIT, "prefix_length": 3,
    "lora": {"rank": 2}, "max_length": 20,
}  # fmt: skip
OWN = {
    "_target_": "capkit.models.encoder_decoder.EncoderDecoder", "width": 16, "num_layers": 1, "num_heads": 2,
    "image_encoder": {"_target_": "capkit.models.image_encoders.SmallCNN", "image_size": 32, "width": 16},
}  # fmt: skip


def tokenizer():
    return word_tokenizer([caption for captions in CAPTIONS for caption in captions])


def save(model, node, folder):
    """A run folder with one checkpoint; every weight that trains is another one than at the start."""
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    state = {f"model.{name}": value for name, value in trainable_state(model).items()}
    extras = checkpoint_extras(OmegaConf.create({"seed": 0, "model": node}), model)
    path = folder / "checkpoints" / "step-00000001.ckpt"
    write_checkpoint({"state_dict": state, "global_step": 1, "capkit": extras}, path)
    return str(folder)


def exported(node, folder):
    """The captioner as its checkpoint gives it, and the folder it was exported to."""
    torch.manual_seed(0)
    arguments = {} if "ckpt" in node else {"tokenizer": tokenizer()}
    run = save(build(OmegaConf.create(node), **arguments), node, folder / "run")
    export.run(OmegaConf.create({"ckpt": run, "out": str(folder / "out")}))
    return model_from_checkpoint(read_checkpoint(folder / "run")), folder / "out"


def batch_of(model):
    tokens, mask, prompt_length = encode_captions(model.tokenizer, CAPTIONS, model.prompt, 12)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return CaptionBatch(["a", "b"], pixels, None, tokens, mask, prompt_length)


@torch.no_grad()
def output(model):
    batch = batch_of(model)
    return model.logprobs(model.encode(batch), batch.tokens, batch.mask)


@pytest.mark.parametrize("kind", WHOLE)
def test_a_captioner_of_transformers_is_one_folder_that_it_loads(kind, tmp_path):
    node = {"_target_": "capkit.models.hf_captioner.HFCaptioner", "config": {"model_type": kind, **WHOLE[kind]}}
    ours, out = exported({**node, "max_length": 20}, tmp_path)
    theirs = CLASSES[kind].from_pretrained(out).eval()
    assert theirs.state_dict().keys() == ours.model.state_dict().keys()
    for name, value in theirs.state_dict().items():
        assert torch.equal(value, ours.model.state_dict()[name]), name
    assert AutoTokenizer.from_pretrained(out)("a red ball").input_ids == ours.tokenizer("a red ball").input_ids
    batch = batch_of(ours)
    samples = ours.generate(ours.encode(batch), Decoding(max_length=6))
    if kind == "vision-encoder-decoder":  # which says in its config how captions begin and end
        captions = theirs.generate(batch.pixels, max_new_tokens=6, do_sample=False, num_beams=1)
        assert captions.tolist() == samples.tokens[:, 0, : captions.shape[1]].tolist()


def test_a_language_model_with_a_prefix_comes_apart_and_together_again(tmp_path, capsys):
    ours, out = exported(PREFIX, tmp_path)
    about = json.loads((out / "about.json").read_text())
    assert about["folders"] == {"image_encoder.model": "image_encoder", "lm": "lm"} and about["class"] == "ClipPrefix"
    assert "ClipPrefix is capkit's own: " in capsys.readouterr().out
    expected = output(ours)
    plain = build(OmegaConf.create({**about["config"], "lora": None}), tokenizer=AutoTokenizer.from_pretrained(out))
    plain.lm.load_state_dict(AutoModelForCausalLM.from_pretrained(out / "lm").state_dict())
    plain.image_encoder.model.load_state_dict(AutoModel.from_pretrained(out / "image_encoder").state_dict())
    rest = load_file(out / about["rest"])
    assert all(name.startswith("mapper.") for name in rest)
    plain.mapper.load_state_dict({name.removeprefix("mapper."): value for name, value in rest.items()})
    torch.testing.assert_close(output(plain.eval()), expected)


def test_adapters_alone_are_loaded_by_peft_onto_the_plain_model(tmp_path):
    ours, out = exported(PREFIX, tmp_path)
    torch.manual_seed(0)
    base = build(
        OmegaConf.create({**PREFIX, "lora": None}), tokenizer=tokenizer()
    ).lm  # the weights it was adapted from
    merged = AutoModelForCausalLM.from_pretrained(out / "lm").eval()
    adapted = PeftModel.from_pretrained(base, out / "adapters" / "lm").eval()
    tokens = batch_of(ours).tokens[:, 0]
    with torch.no_grad():
        torch.testing.assert_close(adapted(tokens).logits, merged(tokens).logits)


def test_a_captioner_of_capkits_own_is_weights_and_the_config_that_builds_it(tmp_path):
    ours, out = exported(OWN, tmp_path)
    about = json.loads((out / "about.json").read_text())
    assert about["folders"] == {} and about["config"] == OWN
    fresh = build(OmegaConf.create(about["config"]), tokenizer=AutoTokenizer.from_pretrained(out)).eval()
    fresh.load_state_dict(read_tensors(out / about["rest"]))
    torch.testing.assert_close(output(fresh), output(ours))


def test_adapters_of_a_tuned_captioner_are_merged_and_saved_alone(tmp_path):
    torch.manual_seed(0)
    first = save(build(OmegaConf.create(OWN), tokenizer=tokenizer()), OWN, tmp_path / "first")
    node = {
        "_target_": "capkit.checkpoint.load_captioner_to_tune", "ckpt": first,
        "lora": {"decoder": {"rank": 2, "targets": ["query_key_value"]}},
    }  # fmt: skip
    ours, out = exported(node, tmp_path)
    fresh = build(OmegaConf.create(OWN), tokenizer=AutoTokenizer.from_pretrained(out)).eval()
    fresh.load_state_dict(read_tensors(out / "rest.safetensors"))
    torch.testing.assert_close(output(fresh), output(ours))
    alone = load_file(out / "adapters" / "decoder" / "adapter_model.safetensors")
    assert alone and all("lora_" in name for name in alone)


def test_a_classifier_of_memes_has_its_encoder_in_a_folder_of_its_own(tmp_path):
    encoder = two_tower()
    encoder.requires_grad_(False)
    model = Camu(encoder, scorer_width=8, fusion_width=8, num_heads=2)
    export.export(model, tmp_path, {"encoder": {"embed_dim": 12}})
    about = json.loads((tmp_path / "about.json").read_text())
    assert about["folders"] == {"encoder": "encoder"}
    names = set(read_tensors(tmp_path / "rest.safetensors"))
    assert names == {name for name in model.state_dict() if not name.startswith("encoder.")}
    tower = AutoModel.from_pretrained(tmp_path / "encoder" / "text_tower")
    ours = encoder.text_tower.model.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in tower.state_dict().items())


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="is not empty; give a new folder"):
        export.run(OmegaConf.create({"ckpt": str(tmp_path), "out": str(tmp_path)}))
