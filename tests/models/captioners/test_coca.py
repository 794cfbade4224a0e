"""CoCa against open_clip's own network with the same weights. Without the package only its absence is tested."""

import copy
import json
import logging
import shutil
import sys

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from tiny_captioners import COCA, HAS_OPEN_CLIP, batch_for, build, tiny_tokenizer

import capkit
from capkit.checkpoint.exported import export
from capkit.checkpoint.loading import model_from_checkpoint, read_checkpoint
from capkit.decoding.config import Decoding
from capkit.errors import UsageError
from capkit.models.captioners.coca import CoCa, own_tokenizer
from capkit.models.captioners.coca_network import CoCaNetwork, part_of
from capkit.tasks.inspect import _counter
from capkit.text.tokenizers import encode_captions, tokenizer_from_json, tokenizer_to_json
from capkit.types import CaptionBatch

needs_open_clip = pytest.mark.skipif(not HAS_OPEN_CLIP, reason="needs capkit[openclip]")
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def plain(captioner):
    """open_clip's own network with the captioner's weights."""
    import open_clip

    network = open_clip.CoCa(**copy.deepcopy(captioner.model.config))
    network.load_state_dict(captioner.model.open_clip_state())
    return network.eval()


@pytest.fixture
def ours():
    return copy.deepcopy(build("coca"))


def batch_with_padding_as_a_word(captioner):
    """Captions with the id of padding among their words, as "!(" has in CLIP's vocabulary."""
    batch = batch_for(captioner)
    batch.tokens[0, 0, 2] = batch.tokens[3, 0, 1] = batch.tokens[3, 0, 2] = 0
    return batch


def of_plain(network, batch):
    pixels = batch.pixels.repeat_interleave(batch.tokens.shape[1], 0)
    logits = network(pixels, batch.tokens.flatten(0, 1), output_labels=False)["logits"]
    return logits.unflatten(0, batch.tokens.shape[:2])


@needs_open_clip
def test_logits_are_those_of_open_clip_and_so_are_gradients(ours):
    batch = batch_with_padding_as_a_word(ours)
    theirs = plain(ours).requires_grad_()
    found, expected = ours(ours.encode(batch), batch.tokens, batch.mask), of_plain(theirs, batch)
    torch.testing.assert_close(found[batch.mask], expected[batch.mask], **CLOSE)
    for logits in (found, expected):
        losses = torch.nn.functional.cross_entropy(
            logits[:, :, :-1].flatten(0, 2), batch.tokens[..., 1:].flatten(), reduction="none"
        )
        (losses * batch.mask[..., 1:].flatten()).sum().backward()
    with torch.no_grad():  # gradients in the place of weights have open_clip's names
        for parameter in ours.model.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    gradients, trained = ours.model.open_clip_state(), 0
    for name, parameter in theirs.named_parameters():
        if parameter.grad is not None and gradients[name].any():
            torch.testing.assert_close(gradients[name], parameter.grad, atol=2e-4, rtol=1e-3)
            trained += 1
    assert trained == len(list(theirs.parameters())) - 6  # what only the contrastive loss reads


@needs_open_clip
def test_the_token_behind_the_id_of_padding_is_hidden_with_the_cache_too(ours):
    batch = batch_with_padding_as_a_word(ours)
    context, tokens = ours.encode(batch), batch.tokens[:, 0]
    cache = ours.start(context, tokens.shape[1])
    steps = [ours.step(context, tokens[:, :3], cache)]
    steps += [ours.step(context, tokens[:, t : t + 1], cache) for t in range(3, tokens.shape[1])]
    mask = batch.mask[:, 0, 2:]
    whole = ours(context, batch.tokens[:, :1], batch.mask[:, :1])[:, 0, 2:]
    torch.testing.assert_close(torch.stack(steps, 1)[mask], whole[mask], **CLOSE)
    hidden = ours.model.text(tokens, None)
    visible = build("coca").model.text
    shown = copy.deepcopy(visible)
    shown.pad_id = -1
    assert (hidden - shown(tokens, None))[0, 3:].abs().max() > 1e-3  # hiding changes something at all


@pytest.fixture
def generating(monkeypatch):
    """open_clip 3.3 refuses to generate beside transformers 5, for a class that only its beam search needs."""
    import transformers
    from open_clip import coca_model

    names = ("LogitsProcessorList", "MinLengthLogitsProcessor", "RepetitionPenaltyLogitsProcessor")
    for name in (*names, "MaxLengthCriteria", "StoppingCriteriaList"):
        monkeypatch.setattr(coca_model, name, getattr(transformers, name), raising=False)
    monkeypatch.setattr(coca_model, "_has_transformers", True)
    monkeypatch.setitem(coca_model.GENERATION_TYPES, "top_k", transformers.TopKLogitsWarper)


@needs_open_clip
def test_greedy_captions_are_those_of_open_clips_generate(ours, generating):
    batch, tokenizer = batch_for(ours), ours.tokenizer
    samples = ours.generate(ours.encode(batch), Decoding(max_length=11))
    theirs = plain(ours).generate(
        batch.pixels, seq_len=13, generation_type="top_k", top_k=1, min_seq_len=0, pad_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id, sot_token_id=tokenizer.bos_token_id,
    )  # fmt: skip
    length = samples.tokens.shape[-1]
    assert (theirs[:, :length] == samples.tokens[:, 0])[samples.mask[:, 0]].all()
    assert len({text for (text,) in samples.texts}) > 3


@needs_open_clip
def test_beams_are_scored_by_what_open_clip_gives_their_tokens(ours):
    batch = batch_for(ours)
    samples = ours.generate(ours.encode(batch), Decoding("beam", num_beams=3, max_length=9), num_samples=2)
    told = CaptionBatch(batch.keys, batch.pixels, None, samples.tokens, samples.mask)
    logits = of_plain(plain(ours), told)[:, :, :-1]
    expected = logits.log_softmax(-1).gather(-1, samples.tokens[..., 1:, None]).squeeze(-1)
    torch.testing.assert_close(samples.logprobs, expected.masked_fill(~samples.mask[..., 1:], 0), **CLOSE)


@needs_open_clip
def test_the_tokenizer_is_open_clips():
    from open_clip import SimpleTokenizer

    simple, ours = SimpleTokenizer(), own_tokenizer(None, {})
    assert len(ours) == 49408
    for tokenizer in (ours, tokenizer_from_json(tokenizer_to_json(ours))):
        for text in ("A dog's ball, isn't it? wow!", "wow!! (yes) !( 100 cats - naïve café", "日本 🙂 x"):
            tokens, mask, _ = encode_captions(tokenizer, [[text]], "", 60)
            ids = simple.encode(text)
            assert tokens[mask].tolist() == [simple.sot_token_id, *ids, simple.eot_token_id]
            assert tokenizer.decode(ids) == tokenizer.backend_tokenizer.decode(ids) == simple.decode(ids)


@needs_open_clip
def test_inspection_counts_the_tokens_of_the_named_model():
    cfg = OmegaConf.create(
        {"tokenizer": None, "model": {"_target_": f"{CoCa.__module__}.CoCa", "name": "coca_ViT-B-32"}}
    )
    count, name = _counter(cfg)
    assert (count(["wow!! (yes)"]).tolist(), name) == ([2 + 5], "coca_ViT-B-32")


@needs_open_clip
def test_folders_and_files_of_weights_are_loaded(ours, tmp_path):
    import open_clip

    ours.model.save_pretrained(tmp_path, {"mean": [0.4] * 3, "std": [0.2] * 3, "resize": "crop"}, has_clips_words=False)
    ours.tokenizer.save_pretrained(tmp_path)
    loaded = CoCa(name=str(tmp_path), max_length=24).eval()
    batch = batch_for(ours)
    expected = ours.logprobs(ours.encode(batch), batch.tokens, batch.mask)
    assert torch.equal(loaded.logprobs(loaded.encode(batch), batch.tokens, batch.mask), expected)
    assert tokenizer_to_json(loaded.tokenizer)["backend"] == tokenizer_to_json(ours.tokenizer)["backend"]
    fresh = CoCa(name=str(tmp_path), max_length=24, pretrained=False)
    assert not torch.equal(fresh.model.head.weight, ours.model.head.weight)
    # A file, for a name that open_clip knows; its own list is of models too large for here.
    (tmp_path / "tiny_coca.json").write_text(json.dumps({**ours.model.config, "custom_text": True}))
    open_clip.add_model_config(tmp_path / "tiny_coca.json")
    file = tmp_path / "weights.pt"
    torch.save({"state_dict": {f"module.{name}": value for name, value in ours.model.open_clip_state().items()}}, file)
    named = CoCa(name="tiny_coca", weights=str(file), tokenizer=ours.tokenizer, max_length=24).eval()
    assert torch.equal(named.logprobs(named.encode(batch), batch.tokens, batch.mask), expected)


@needs_open_clip
def test_an_export_of_a_named_model_needs_neither_its_name_nor_its_weights(ours, tmp_path):
    ours.model.save_pretrained(tmp_path / "first", has_clips_words=False)
    ours.tokenizer.save_pretrained(tmp_path / "first")
    node = {"_target_": f"{CoCa.__module__}.CoCa", "name": str(tmp_path / "first"), "max_length": 24}
    node |= {"weights": None, "freeze": ["image_tower"], "lora": {"rank": 2}}
    model = CoCa(**{name: value for name, value in node.items() if name != "_target_"})
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    export(model, tmp_path / "out", node)
    shutil.rmtree(tmp_path / "first")
    again, batch = model_from_checkpoint(read_checkpoint(tmp_path / "out")), batch_for(ours)
    expected = model.eval().logprobs(model.encode(batch), batch.tokens, batch.mask)
    found = again.logprobs(again.encode(batch), batch.tokens, batch.mask)
    torch.testing.assert_close(found, expected, **CLOSE)
    assert (found - ours.logprobs(ours.encode(batch), batch.tokens, batch.mask)).abs().max() > 0.01


@needs_open_clip
def test_under_autocast_captions_are_scored_as_they_were_written(ours):
    batch = batch_for(ours)
    with torch.autocast("cpu", torch.bfloat16):
        samples = ours.generate(ours.encode(batch), Decoding("sample", max_length=9), num_samples=2)
        forced = ours.logprobs(ours.encode(batch), samples.tokens, samples.mask)
    torch.testing.assert_close(samples.logprobs, forced, atol=0.1, rtol=0.05)


@needs_open_clip
def test_the_python_api_loads_a_folder_of_open_clip_and_reads_pictures_as_it_does(ours, tmp_path):
    import open_clip

    ours.model.save_pretrained(tmp_path, {"mean": [0.4] * 3, "std": [0.2] * 3, "resize": "crop"}, has_clips_words=False)
    ours.tokenizer.save_pretrained(tmp_path)
    pictures = [np.random.default_rng(i).integers(0, 256, (40, 60, 3), dtype=np.uint8) for i in range(3)]
    network, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    reads = network.visual.preprocess_cfg
    assert (list(reads["mean"]), list(reads["std"]), reads["resize_mode"]) == ([0.4] * 3, [0.2] * 3, "shortest")
    pixels = torch.stack([transform(Image.fromarray(picture)) for picture in pictures])
    samples = ours.generate(ours.encode(CaptionBatch(["0", "1", "2"], pixels)), Decoding(max_length=8))
    captions = capkit.load(tmp_path).caption(pictures, decoding=Decoding(max_length=8))
    assert captions == [text for (text,) in samples.texts] and len(set(captions)) > 1
    assert network.state_dict().keys() == ours.model.open_clip_state().keys()


@needs_open_clip
def test_adapters_of_torchs_own_attention_are_refused(ours):
    """Its output layer's weight is read and the layer never called: an adapter there would do nothing."""
    with pytest.raises(UsageError, match=r"lora.targets=\['out_proj'\].*match nothing"):
        CoCa(config=COCA, tokenizer=tiny_tokenizer(), max_length=24, lora={"targets": ["out_proj"]})
    from capkit.models.tuning.lora import LoRA

    with pytest.raises(UsageError, match="match nothing"):
        LoRA(targets=["out_proj"]).add_to(ours.model.image_encoder)


def of_part(name, **settings):
    return {"config": COCA | {name: COCA[name] | settings}}


@needs_open_clip
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "a name or a config"),
        ({"name": "coca_ViT-B-32"}, "expected model.weights=TAG or FILE, got None; open_clip's tags: laion2b"),
        ({"name": "coca_ViT-B-32", "weights": "other"}, "open_clip could not load 'coca_ViT-B-32'.*'other'"),
        ({"name": "ViT-B-32", "weights": "openai"}, "a model without a text decoder"),
        ({"name": "coca_ViT-Z"}, "a name that it does not know"),
        ({"config": COCA | {"embed_dim": 16}}, "of one width.*'image tokens': 16"),
        (
            {"config": COCA | {"depth": 3}},
            "open_clip could not build model.config: .*'depth'; give open_clip's embed_dim",
        ),
        (
            {"config": COCA, "weights": "laion2b"},
            "expected null beside model.config, whose weights are random, got 'lai",
        ),
        (of_part("vision_cfg", output_tokens=False), "give vision_cfg.output_tokens=true"),
        (of_part("vision_cfg", attentional_pool="cascade"), "give vision_cfg.attentional_pool=true"),
        (of_part("text_cfg", embed_cls=False), "give text_cfg.embed_cls=true"),
        (of_part("text_cfg", no_causal_mask=True), "expected plain causal text layers"),
        (
            of_part("text_cfg", heads=5),
            "open_clip could not build model.config: AssertionError: embed_dim must be divis",
        ),
        (
            {"config": COCA, "lora": {}, "freeze": ["text_tower", "decoder"]},
            "model.lora: expected a text tower or a dec",
        ),
        ({"config": COCA, "freeze": ["text"]}, "expected some of image_tower, pooler, text_tower, decoder, got 'text'"),
        ({"config": COCA, "max_length": 49}, "at most the text parts' 48 positions"),
    ],
)
def test_wrong_settings_are_told(wrong, message):
    with pytest.raises(UsageError, match=message):
        CoCa(tokenizer=tiny_tokenizer(), **{"max_length": 24, **wrong})


@needs_open_clip
def test_without_a_network_the_hub_is_not_asked_and_open_clip_logs_nothing(monkeypatch, capfd):
    """The hub's client would try again for most of a minute."""
    import huggingface_hub

    from capkit.models import open_clip

    def refuse(*args, **settings):
        raise AssertionError("asked")

    monkeypatch.setattr(open_clip, "hub_reachable", lambda: False)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    before = huggingface_hub.constants.HF_HUB_OFFLINE, list(logging.root.handlers), list(logging.root.filters)
    for settings in ({"name": "coca_ViT-B-32", "weights": "laion2b_s13b_b90k"}, {"name": "hf-hub:nobody/nothing"}):
        with pytest.raises(UsageError, match=r"Failed to download.*; give a") as told:
            CoCa(tokenizer=tiny_tokenizer(), **settings)
        assert "asked" not in str(told.value)
    assert capfd.readouterr() == ("", "")
    after = huggingface_hub.constants.HF_HUB_OFFLINE, list(logging.root.handlers), list(logging.root.filters)
    assert after == before


@needs_open_clip
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not weights", "UnpicklingError"),
        (b"", "EOFError"),
        ({"other": torch.zeros(2)}, 'Missing key.*"logit_scale"'),
        ([1, 2], "AttributeError: 'list'"),
    ],
)
def test_files_that_are_no_weights_of_it_are_told(ours, tmp_path, monkeypatch, content, message):
    import open_clip

    config = {**ours.model.config, "custom_text": True}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny_coca", config)
    file = tmp_path / "weights.pt"
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
    with pytest.raises(UsageError, match=f"could not load 'tiny_coca' with the weights '{file}': .*{message}"):
        CoCa(name="tiny_coca", weights=str(file), tokenizer=tiny_tokenizer())


@needs_open_clip
def test_a_folder_brings_its_own_weights_and_pictures_have_its_size(ours, tmp_path):
    ours.model.save_pretrained(tmp_path)
    with pytest.raises(
        UsageError, match=r"expected model\.weights=null, since it brings its own, got x\.pt; leave it out"
    ):
        CoCa(name=str(tmp_path), weights="x.pt", tokenizer=tiny_tokenizer())
    with pytest.raises(UsageError, match=r"32 x 32 pixels, got \(48, 48\); give data.transform.size=32"):
        ours.encode(CaptionBatch(["a"], torch.zeros(1, 3, 48, 48)))


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(UsageError, match=r"pip install 'capkit\[openclip\]'"):
        CoCa(config=COCA, tokenizer=tiny_tokenizer())


ALL = {"image_tower", "pooler", "text_tower", "decoder"}


@needs_open_clip
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ALL),
        ({"lora": {"rank": 2, "targets": None}}, {"text_tower", "decoder"}),
        ({"lora": {"rank": 2}, "freeze": ["text_tower"]}, {"decoder"}),
        ({"freeze": ["image_tower"]}, ALL - {"image_tower"}),
        ({"freeze": ["image_tower", "pooler", "text_tower"]}, {"decoder"}),
    ],
)
def test_parts_that_are_frozen_get_no_gradient_and_the_others_do(settings, expected):
    model = CoCa(config=COCA, tokenizer=tiny_tokenizer(), max_length=24, **settings).train()
    batch = batch_for(model)
    model.token_losses(model.encode(batch), batch.tokens, batch.mask, 0.1).sum().backward()
    parameters = dict(model.named_parameters())
    assert all((p.grad is not None) == p.requires_grad for p in parameters.values())
    learns = {part_of(name.removeprefix("model.")) for name, p in parameters.items() if p.grad is not None}
    assert learns == expected
    frozen = {part_of(name.removeprefix("model.")) for name, p in parameters.items() if not p.requires_grad}
    assert ALL - expected <= frozen


def test_every_weight_has_its_part():
    visual = "image_encoder.visual."
    names = [f"{visual}class_embedding", f"{visual}conv1.weight", f"{visual}attn_pool.query", f"{visual}ln_post.bias"]
    names += ["text.positional_embedding", "decoder.text_blocks.0.ln_1.weight", "head.weight", "logit_scale"]
    expected = ["image_tower", "image_tower", "pooler", "pooler", "text_tower", "decoder", "decoder", None]
    assert [part_of(name) for name in names] == expected


@needs_open_clip
def test_layers_that_run_again_in_the_backward_pass_are_all_of_them(ours):
    towers = [*ours.decoder_parts()[0], ours.image_encoder]
    from capkit.models.encoders.compile import recompute_blocks

    recompute_blocks(towers)
    again = [name for name, module in ours.named_modules() if "forward" in vars(module)]
    assert len(again) == 2 + 2 + 2 + 1  # text, decoder to text, decoder to image, image
    batch = batch_for(ours).trim()
    ours.token_losses(ours.encode(batch), batch.tokens, batch.mask, 0.0).sum().backward()
    plainly = copy.deepcopy(build("coca"))
    plainly.token_losses(plainly.encode(batch), batch.tokens, batch.mask, 0.0).sum().backward()
    for a, b in zip(ours.parameters(), plainly.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None)
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, **CLOSE)


@needs_open_clip
def test_a_network_from_a_config_has_a_head_that_was_drawn():
    """open_clip allocates the decoder's projection and never fills it."""
    heads = []
    for _ in range(2):
        torch.manual_seed(0)
        heads.append(CoCa(config=COCA, tokenizer=tiny_tokenizer(), max_length=24).model.head.weight)
    assert heads[0].std().item() == pytest.approx(24**-0.5, rel=0.15)
    assert torch.equal(*heads)


@needs_open_clip
def test_all_weights_of_open_clip_go_in_and_out_unchanged():
    import open_clip

    torch.manual_seed(0)
    config = copy.deepcopy(build("coca").model.config)
    theirs = open_clip.CoCa(**copy.deepcopy(config))
    theirs.text_decoder.text_projection.data.normal_()
    expected = copy.deepcopy(theirs.state_dict())
    found = CoCaNetwork(theirs, config, "tiny").open_clip_state()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
