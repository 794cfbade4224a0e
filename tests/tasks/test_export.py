"""task=export: what transformers and peft load says what the model says. Dual encoders are in test_fit_encoder."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    Blip2ForConditionalGeneration,
    BlipForConditionalGeneration,
    GitForCausalLM,
    VisionEncoderDecoderModel,
    VisionTextDualEncoderModel,
    ViTConfig,
)

import capkit
from capkit.checkpoint.exported import export as export_model
from capkit.checkpoint.exported import image_processor, plain_config
from capkit.checkpoint.files import identity, read_tensors, save_tensors, saved_step, write_checkpoint
from capkit.checkpoint.loading import (
    checkpoint_extras,
    load_captioner,
    load_dual_encoder,
    load_weights,
    model_from_checkpoint,
    read_checkpoint,
)
from capkit.config.defaults import with_defaults
from capkit.config.instantiate import build, nested
from capkit.decoding.config import Decoding
from capkit.errors import UsageError
from capkit.methods.memes.model import Camu
from capkit.models.weights import trainable_state
from capkit.tasks import export
from capkit.testing.models import HF_CONFIGS, two_tower
from capkit.text.tokenizers import encode_captions, word_tokenizer
from capkit.types import CaptionBatch

CAPTIONS = [["a red ball"], ["two green stars and a ball"]]
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
VISION = {**SIZES, "image_size": 32, "patch_size": 16}
TEXT = {**SIZES, "max_position_embeddings": 48}
GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 40}
WHOLE = {
    "vision-encoder-decoder": {"encoder": {"model_type": "vit", **VISION}, "decoder": GPT2},
    "blip": {"vision_config": VISION, "text_config": {**TEXT, "encoder_hidden_size": 16}},
    "git": {"vision_config": VISION, **TEXT},
    "blip-2": {
        "vision_config": VISION,
        "qformer_config": {**SIZES, "cross_attention_frequency": 1},
        "text_config": {"model_type": "opt", "ffn_dim": 24, "word_embed_proj_dim": 16, **TEXT},
        "num_query_tokens": 2,
    },
}
CLASSES = {
    "vision-encoder-decoder": VisionEncoderDecoderModel,
    "blip": BlipForConditionalGeneration,
    "git": GitForCausalLM,
    "blip-2": Blip2ForConditionalGeneration,
}
VIT = {"_target_": "capkit.models.encoders.image.HFImageEncoder", "config": {"model_type": "vit", **VISION}}
PREFIX = {
    "_target_": "capkit.models.captioners.clip_prefix.ClipPrefix", "lm": GPT2, "image_encoder": VIT, "prefix_length": 3,
    "lora": {"rank": 2}, "max_length": 20,
}  # fmt: skip
OWN = {
    "_target_": "capkit.models.captioners.encoder_decoder.EncoderDecoder", "width": 16, "num_layers": 1, "num_heads": 2,
    "image_encoder": {"_target_": "capkit.models.encoders.image.SmallCNN", "image_size": 32, "width": 16},
}  # fmt: skip
PICTURES = {"size": 32, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "resize": "squash"}


def settings(ckpt, out, **more):
    """The keys of the task's yaml."""
    defaults = {"dtype": None, "license": None, "limits": None, "evaluated": None, "samples": 6}
    return OmegaConf.create({"ckpt": ckpt, "out": out, **defaults, "push_to": None, "public": False, **more})


def tokenizer():
    return word_tokenizer([caption for captions in CAPTIONS for caption in captions])


def save(model, node, folder):
    """A run folder with one checkpoint; every weight that trains is another one than at the start."""
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    state = {f"model.{name}": value for name, value in trainable_state(model).items()}
    data = {"transform": {"_target_": "capkit.data.transforms.ImageTransform", **PICTURES, "augment": "flip"}}
    extras = checkpoint_extras(OmegaConf.create({"seed": 0, "model": node, "data": data}), model)
    path = folder / "checkpoints" / "step-00000001.ckpt"
    write_checkpoint({"state_dict": state, "global_step": 1, "capkit": extras}, path)
    return str(folder)


def exported(node, folder):
    """The captioner as its checkpoint gives it, and the folder it was exported to."""
    torch.manual_seed(0)
    arguments = {} if "ckpt" in node else {"tokenizer": tokenizer()}
    run = save(build(OmegaConf.create(node), **arguments), node, folder / "run")
    export.run(settings(run, str(folder / "out")))
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
    node = {
        "_target_": "capkit.models.captioners.hf_captioner.HFCaptioner",
        "config": {"model_type": kind, **WHOLE[kind]},
    }
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
    if kind == "blip-2":  # which puts a token for each query in front
        captions = theirs.generate(batch.pixels, max_new_tokens=6, do_sample=False, num_beams=1)[:, 2:]
        assert captions.tolist() == samples.tokens[:, 0, : captions.shape[1]].tolist()


# What a user has without capkit: transformers on the exported folder, and picture files.
ALONE = """
import json, sys
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, VisionEncoderDecoderModel
folder, *pictures = sys.argv[1:]
model, processor = VisionEncoderDecoderModel.from_pretrained(folder).eval(), AutoImageProcessor.from_pretrained(folder)
pixels = processor([Image.open(picture) for picture in pictures], return_tensors="pt").pixel_values
tokens = model.generate(pixels, max_new_tokens=8, do_sample=False, num_beams=1)
captions = AutoTokenizer.from_pretrained(folder).batch_decode(tokens, skip_special_tokens=True)
print(json.dumps([[text.strip() for text in captions], "capkit" in sys.modules]))
"""


@pytest.mark.nightly
def test_a_process_without_capkit_writes_the_same_captions_of_picture_files(tmp_path):
    node = {
        "_target_": "capkit.models.captioners.hf_captioner.HFCaptioner",
        "config": {"model_type": "vision-encoder-decoder", **WHOLE["vision-encoder-decoder"]},
    }
    _, out = exported({**node, "max_length": 20}, tmp_path)
    pictures = [str(tmp_path / f"{number}.png") for number in range(3)]
    for number, path in enumerate(pictures):
        pixels = np.random.default_rng(number).integers(0, 256, (48, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    ours = capkit.load(out).caption(pictures, decoding=Decoding(max_length=8))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", ALONE, str(out), *pictures]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    theirs, has_capkit = json.loads(done.stdout.splitlines()[-1])
    assert theirs == ours and len(set(ours)) > 1 and not has_capkit


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
    assert about["folders"] == {} and about["config"] == plain_config(with_defaults(OWN))
    fresh = build(OmegaConf.create(about["config"]), tokenizer=AutoTokenizer.from_pretrained(out)).eval()
    fresh.load_state_dict(read_tensors(out / about["rest"]))
    torch.testing.assert_close(output(fresh), output(ours))


def test_adapters_of_a_tuned_captioner_are_merged_and_saved_alone(tmp_path):
    torch.manual_seed(0)
    first = save(build(OmegaConf.create(OWN), tokenizer=tokenizer()), OWN, tmp_path / "first")
    node = {
        "_target_": "capkit.checkpoint.loading.load_captioner_to_tune", "ckpt": first,
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
    export_model(model, tmp_path, {"encoder": {"embed_dim": 12}})
    about = json.loads((tmp_path / "about.json").read_text())
    assert about["folders"] == {"encoder": "encoder"}
    names = set(read_tensors(tmp_path / "rest.safetensors"))
    assert names == {name for name in model.state_dict() if not name.startswith("encoder.")}
    tower = AutoModel.from_pretrained(tmp_path / "encoder" / "text_tower")
    ours = encoder.text_tower.model.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in tower.state_dict().items())


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="not empty; give a new folder"):
        export.run(settings(str(tmp_path), str(tmp_path)))


TRANSFORM = {"_target_": "capkit.data.transforms.ImageTransform", **PICTURES}
CLIP_TEXT = {"model_type": "clip_text_model", **SIZES, "max_position_embeddings": 20}
TEXT_TOWER = {
    "_target_": "capkit.models.dual_encoders.text_towers.hf.HFTextTower",
    "config": CLIP_TEXT,
    "max_length": 16,
}
CNN = OWN["image_encoder"]
TWO = {
    "_target_": "capkit.models.dual_encoders.two_tower.TwoTower",
    "embed_dim": 12,
    "image_tower": CNN,
    "text_tower": TEXT_TOWER,
}
VISION_TEXT = {
    **TWO,
    "image_tower": {**VIT, "output": "pooled", "config": {"model_type": "clip_vision_model", **VISION}},
    "tune_text": {"_target_": "capkit.models.tuning.policy.Tuning", "mode": "lora", "rank": 2, "alpha": 4},
}
CAPTIONERS = {
    **{
        kind: {
            "_target_": "capkit.models.captioners.hf_captioner.HFCaptioner", "config": {"model_type": kind, **sizes},
            "max_length": 20,
        }
        for kind, sizes in WHOLE.items()
    },
    "encoder and decoder": {
        "_target_": "capkit.models.captioners.hf_captioner.HFCaptioner",
        **{part: WHOLE["vision-encoder-decoder"][part] for part in ("encoder", "decoder")},
        "max_length": 20,
    },
    "clip_prefix": PREFIX,
    "encoder_decoder": OWN,
    "encoder_decoder of a ViT": {**OWN, "image_encoder": VIT},
}  # fmt: skip
HF = "capkit.models.dual_encoders.hf_two_tower.HFTwoTower"
TOWERS = "capkit.models.dual_encoders.text_towers"
DUAL_ENCODERS = {
    **{
        kind: {"_target_": HF, "config": {"model_type": kind, **HF_CONFIGS[kind]}}
        for kind in HF_CONFIGS
    },
    "clip with a grammar head": {
        "_target_": HF, "config": {"model_type": "clip", **HF_CONFIGS["clip"]},
        "grammar_head": True, "prompt": "a photo of", "transform": TRANSFORM,
    },
    "two towers": TWO,
    "two towers, SigLIP's scale": {**TWO, "logit_bias": -10.0, "transform": TRANSFORM, "image_projection": "mlp"},
    "two towers of transformers, pooled by capkit": {**TWO, "image_tower": VIT},
    "two towers as transformers has them": VISION_TEXT,
    "words": {**TWO, "text_tower": {"_target_": f"{TOWERS}.bag_of_words.BagOfWords", "width": 12}},
}  # fmt: skip


def dual_encoder_output(model, texts=("a red ball", "two stars")):
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return model.encode_image(pixels), model.encode_text(list(texts)), model.logit_scale.detach()


@pytest.mark.parametrize("kind", CAPTIONERS)
def test_capkit_reads_a_captioner_that_it_exported(kind, tmp_path):
    ours, out = exported(CAPTIONERS[kind], tmp_path)
    again, checkpoint = load_captioner(str(out))
    torch.testing.assert_close(output(again), output(ours), rtol=1e-5, atol=1e-6)
    assert checkpoint["capkit"]["config"]["data"]["transform"]["mean"] == PICTURES["mean"]
    assert list(AutoImageProcessor.from_pretrained(out).image_mean) == PICTURES["mean"]
    assert saved_step(out) == 1 and identity(out) != identity(tmp_path / "run" / "checkpoints" / "step-00000001.ckpt")


def test_an_export_of_two_named_networks_needs_neither_of_them(tmp_path):
    torch.manual_seed(0)
    AutoModel.from_config(ViTConfig(**VISION)).save_pretrained(tmp_path / "image")
    sizes = {**TEXT, "vocab_size": len(tokenizer())}
    AutoModelForCausalLM.from_config(BertConfig(**sizes, is_decoder=True)).save_pretrained(tmp_path / "text")
    parts = {"encoder": str(tmp_path / "image"), "decoder": str(tmp_path / "text")}
    ours, out = exported(
        {"_target_": "capkit.models.captioners.hf_captioner.HFCaptioner", **parts, "max_length": 20}, tmp_path
    )
    for part in parts.values():
        shutil.rmtree(part)
    again, _ = load_captioner(str(out))
    torch.testing.assert_close(output(again), output(ours), rtol=1e-5, atol=1e-6)
    theirs = VisionEncoderDecoderModel.from_pretrained(out).eval()
    batch = batch_of(ours)
    captions = theirs.generate(batch.pixels, max_new_tokens=6, do_sample=False, num_beams=1)
    samples = ours.generate(ours.encode(batch), Decoding(max_length=6))
    assert captions.tolist() == samples.tokens[:, 0, : captions.shape[1]].tolist()


@pytest.mark.parametrize("kind", DUAL_ENCODERS)
def test_capkit_reads_a_dual_encoder_that_it_exported(kind, tmp_path):
    node = DUAL_ENCODERS[kind]
    torch.manual_seed(0)
    model = build(OmegaConf.create(node), **nested(TOKENIZER_OF[node["_target_"]], tokenizer()))
    for layer in (module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        layer.running_var.fill_(40.0)  # under those of an untrained one, ALIGN's random weights blow up
    run, out = save(model, node, tmp_path / "run"), tmp_path / "out"
    export.run(settings(run, str(out)))
    ours, again = load_dual_encoder(run), load_dual_encoder(str(out))
    for found, expected in zip(dual_encoder_output(again), dual_encoder_output(ours), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    picture = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
    expected = build(OmegaConf.create(TRANSFORM))
    torch.testing.assert_close(
        again.preprocess([picture]), expected.normalize(expected(picture)[None]), rtol=0, atol=0.02
    )
    if again.grammar_head is not None:
        theirs = ours.grammar_head.state_dict()
        assert all(torch.equal(value, theirs[name]) for name, value in again.grammar_head.state_dict().items())


@pytest.mark.parametrize("kind", [*HF_CONFIGS, "two towers as transformers has them"])
def test_plain_transformers_loads_a_dual_encoder_with_its_tokenizer_and_image_processor(kind, tmp_path):
    node = DUAL_ENCODERS[kind]
    torch.manual_seed(0)
    model = build(OmegaConf.create(node), **nested(TOKENIZER_OF[node["_target_"]], tokenizer()))
    for layer in (module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        layer.running_var.fill_(40.0)
    run, out = save(model, node, tmp_path / "run"), tmp_path / "out"
    export.run(settings(run, str(out)))
    ours, theirs, captions = load_dual_encoder(run), AutoModel.from_pretrained(out).eval(), ["a red ball", "two stars"]
    padding = (
        {"padding": "max_length", "max_length": ours.tokenize.max_length} if kind == "siglip" else {"padding": True}
    )
    texts = AutoTokenizer.from_pretrained(out)(captions, return_tensors="pt", **padding)
    masked = {} if kind == "siglip" else {"attention_mask": texts.attention_mask}
    picture = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
    pixels = AutoImageProcessor.from_pretrained(out)([picture], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        found = theirs.get_text_features(input_ids=texts.input_ids, **masked).pooler_output
        images = theirs.get_image_features(pixel_values=pixels).pooler_output.flatten(1)
    unit = torch.nn.functional.normalize
    torch.testing.assert_close(unit(found, dim=-1), ours.encode_text(captions), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(unit(images, dim=-1), ours.encode_image(pixels), rtol=1e-4, atol=1e-5)
    scale = 1 / theirs.temperature if hasattr(theirs, "temperature") else theirs.logit_scale.exp()
    assert float(scale) == pytest.approx(float(ours.logit_scale), rel=1e-5)


TOKENIZER_OF = {
    "capkit.models.dual_encoders.hf_two_tower.HFTwoTower": "tokenizer",
    "capkit.models.dual_encoders.two_tower.TwoTower": "text_tower.tokenizer",
}


def test_a_two_tower_of_transformers_parts_is_one_model_of_transformers(tmp_path, capsys):
    torch.manual_seed(0)
    run = save(
        build(OmegaConf.create(VISION_TEXT), text_tower={"tokenizer": tokenizer()}), VISION_TEXT, tmp_path / "run"
    )
    out = tmp_path / "out"
    export.run(settings(run, str(out)))
    assert f"transformers: VisionTextDualEncoderModel.from_pretrained('{out}')" in capsys.readouterr().out
    assert isinstance(AutoModel.from_pretrained(out), VisionTextDualEncoderModel)


@pytest.mark.parametrize("crop_from", [{}, {"crop_from": PICTURES["size"] + 7}])
@pytest.mark.parametrize(("resize", "tolerance"), [("squash", 0.02), ("crop", 0.35)])
def test_the_image_processor_reads_pictures_as_the_run_did(resize, tolerance, crop_from, tmp_path):
    pictures = {**PICTURES, "resize": resize, **crop_from}
    image_processor(pictures).save_pretrained(tmp_path)
    smooth = np.linspace(0, 255, 40 * 64 * 3).reshape(40, 64, 3).astype(np.uint8)
    found = AutoImageProcessor.from_pretrained(tmp_path)([smooth], return_tensors="pt")["pixel_values"]
    ours = build(OmegaConf.create({**TRANSFORM, **pictures}))
    torch.testing.assert_close(found, ours.normalize(ours(smooth)[None]), rtol=0, atol=tolerance)


def test_where_no_image_processor_pads_the_settings_are_written_all_the_same(tmp_path, capsys):
    node = {**TWO, "transform": {**TRANSFORM, "resize": "pad"}}
    run = save(build(OmegaConf.create(node), text_tower={"tokenizer": tokenizer()}), node, tmp_path / "run")
    export.run(settings(run, str(tmp_path / "out")))
    assert "pads with white" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "about.json").read_text())["pictures"] == {**PICTURES, "resize": "pad"}
    assert load_dual_encoder(str(tmp_path / "out")).transform.resize == "pad"


def test_a_classifier_of_memes_comes_back(tmp_path):
    encoder = {**TWO, "transform": TRANSFORM}
    torch.manual_seed(0)
    built = build(OmegaConf.create(encoder), text_tower={"tokenizer": tokenizer()})
    inner = save(built, encoder, tmp_path / "encoder")
    node = {
        "_target_": "capkit.methods.memes.model.Camu", "scorer_width": 8, "fusion_width": 8, "num_heads": 2,
        "encoder": {"_target_": "capkit.checkpoint.loading.load_dual_encoder", "ckpt": inner},
    }  # fmt: skip
    out = tmp_path / "out"
    run = save(build(OmegaConf.create(node)), node, tmp_path / "run")
    export.run(settings(run, str(out)))
    ours, again = model_from_checkpoint(read_checkpoint(tmp_path / "run")), model_from_checkpoint(read_checkpoint(out))
    assert ours.state_dict().keys() == again.state_dict().keys()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in ours.state_dict().items())


def test_an_export_is_a_start_for_another_run(tmp_path):
    ours, out = exported(OWN, tmp_path)
    module = torch.nn.Module()
    module.model = build(OmegaConf.create(OWN), tokenizer=ours.tokenizer)
    load_weights(module, read_checkpoint(out))
    torch.testing.assert_close(output(module.model.eval()), output(ours))


@pytest.mark.parametrize(("dtype", "digits"), [("float16", 11), ("bfloat16", 8)])
@pytest.mark.parametrize("node", [OWN, PREFIX], ids=["own", "language model"])
def test_weights_are_rounded_to_the_dtype_on_disk_and_read_back_as_float32(node, dtype, digits, tmp_path):
    torch.manual_seed(0)
    run = save(build(OmegaConf.create(node), tokenizer=tokenizer()), node, tmp_path / "run")
    sizes = []
    for out, kind in ((tmp_path / "half", dtype), (tmp_path / "whole", None)):
        export.run(settings(run, str(out), dtype=kind))
        sizes.append(sum(file.stat().st_size for file in out.rglob("*.safetensors")))
    assert sizes[0] < 0.65 * sizes[1]
    half, whole = (load_captioner(str(tmp_path / name))[0].state_dict() for name in ("half", "whole"))
    changed = 0
    for name, value in whole.items():
        assert half[name].dtype == value.dtype
        torch.testing.assert_close(half[name], value, rtol=2.0**-digits, atol=1e-7)
        changed += not torch.equal(half[name], value)
    assert changed > 0


@pytest.mark.parametrize(
    ("dtype", "told"), [("int8", "expected float16, bfloat16, float32 or null"), ("float16", "take dtype=bfloat16")]
)
def test_a_dtype_that_does_not_hold_the_weights_is_refused(dtype, told, tmp_path):
    model = build(OmegaConf.create(OWN), tokenizer=tokenizer())
    next(model.parameters()).data[0] = 1e5
    run = save(model, OWN, tmp_path / "run")
    with pytest.raises(UsageError, match=told):
        export.run(settings(run, str(tmp_path / "out"), dtype=dtype))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o002])
def test_files_have_the_mode_that_the_umask_gives(mask, tmp_path):
    before = os.umask(mask)
    try:
        exported(PREFIX, tmp_path)
    finally:
        os.umask(before)
    modes = {path: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    assert len(modes) > 12 and set(modes.values()) == {0o666 & ~mask}, modes


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("about.json", b"{", "not JSON"),
        ("about.json", b"[]", "expected an object"),
        ("about.json", b'{"format": 1}', "no 'folders'"),
        ("about.json", b'{"format": 99, "folders": {}}', "of a newer capkit"),
        ("rest.safetensors", b"xx", "cannot be read as an export"),
        ("rest.safetensors", None, r"is incomplete: it has no rest\.safetensors"),
        ("tokenizer.json", b"{}", "cannot be read as an export"),
    ],
)
def test_an_export_that_is_damaged_is_told(name, content, told, tmp_path):
    _, out = exported(OWN, tmp_path)
    (out / name).unlink() if content is None else (out / name).write_bytes(content)
    with pytest.raises(UsageError, match=told):
        load_captioner(str(out))


def test_weights_under_names_that_the_model_does_not_have_are_told_by_name(tmp_path):
    _, out = exported(OWN, tmp_path)
    weights = read_tensors(out / "rest.safetensors")
    weights["image_encoder.old_name"] = weights.pop("image_encoder.positions")
    save_tensors(weights, out / "rest.safetensors")
    with pytest.raises(UsageError, match=r"expected image_encoder\.positions .*got image_encoder\.old_name"):
        load_captioner(str(out))


def test_an_export_cannot_name_code_from_elsewhere(tmp_path):
    _, out = exported(OWN, tmp_path)
    about = json.loads((out / "about.json").read_text())
    about["config"]["image_encoder"] = {"_target_": "os.system", "command": "false"}
    (out / "about.json").write_text(json.dumps(about))
    with pytest.raises(UsageError, match=r"names 'os\.system' at model\.image_encoder"):
        load_captioner(str(out))
