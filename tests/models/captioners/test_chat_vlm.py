"""Chat models as captioners, of every family, against transformers' own processor and model, one row at a time."""

import copy
import pickle

import pytest
import torch
from tiny_captioners import tiny_tokenizer
from tiny_chat_models import CONFIGS, SIDE, TEXT, asked, batch_for, build, config_of, one_by_one, photos, pixels
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModelForImageTextToText

import capkit
from capkit.checkpoint.exported import export
from capkit.decoding.config import Decoding
from capkit.decoding.guide import Guide
from capkit.errors import UsageError
from capkit.models.captioners.base import Captioner
from capkit.models.captioners.chat_families import FAMILIES
from capkit.models.captioners.chat_processors import load_processor
from capkit.models.captioners.chat_vlm import ChatVLM
from capkit.models.tuning.lora import adapters_off
from capkit.text.prompt_encoder import LongPrompt, stack_prompts
from capkit.text.tokenizers import tokenizer_from_json, tokenizer_to_json, word_tokenizer
from capkit.types import CaptionBatch

CLOSE = {"atol": 3e-5, "rtol": 1e-4}
# The kinds of rows: positions on a grid, more at deeper layers, attention both ways, text around the picture.
KINDS = ("qwen2_5_vl", "qwen3_vl", "paligemma", "smolvlm")
# Those that differ from one of the others by their config alone: longer versions of the same tests.
LIKE_OTHERS = ("qwen2_vl", "idefics3", "llava_onevision", "internvl")
FAMILY_CASES = [pytest.param(name, marks=[pytest.mark.nightly] * (name in LIKE_OTHERS)) for name in CONFIGS]


def logprobs(model, batch):
    return model.logprobs(model.encode(batch), batch.tokens, batch.mask)


def tiny(family="llava", **settings):
    arguments = {"config": config_of(family), "tokenizer": tiny_tokenizer(), "image_size": SIDE, "max_length": 40}
    return ChatVLM(**arguments | settings)


def padded(rows, like):
    return torch.stack([torch.nn.functional.pad(row, (0, like.shape[-1] - len(row))) for row in rows])


def test_every_family_of_the_table_is_tested():
    assert list(CONFIGS) == list(FAMILIES)


@pytest.mark.parametrize("family", CONFIGS)
def test_logprobs_and_gradients_are_those_of_transformers_one_row_at_a_time(family):
    model = build(family)
    batch = batch_for(model)
    found = logprobs(model, batch)
    rows = one_by_one(model, batch)
    torch.testing.assert_close(found.flatten(0, 1), padded(rows, found), **CLOSE)
    weights = [model._language.get_input_embeddings().weight, next(model.image_encoder.tower.parameters())]
    gradients, expected = (torch.autograd.grad(value, weights) for value in (found.sum(), torch.cat(rows).sum()))
    for some, others in zip(gradients, expected, strict=True):
        assert others.abs().max() > 1e-3
        torch.testing.assert_close(some, others, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("family", FAMILY_CASES)
def test_decoding_equals_teacher_forcing_in_any_batch_and_reads_a_picture_once(family):
    model = build(family)
    batch = batch_for(model)
    assert isinstance(model, Captioner)
    context = model.encode(batch)
    rows = []
    hook = model._language.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(kwargs["inputs_embeds"].shape[:2]), with_kwargs=True
    )
    for decoding, num_samples in (
        (Decoding("sample", max_length=7, temperature=0.8), 3),
        (Decoding("beam", num_beams=3, max_length=7), 2),
        (Decoding(max_length=7, prompt="blue star"), 1),
    ):
        rows.clear()
        whole = model.generate(context, decoding, num_samples)
        given = 2 if decoding.prompt else 0
        beams = decoding.num_beams  # transformers repeats rows before it reads anything
        assert rows[0] == (3 * beams, model.num_image_tokens + len(model._front) + len(model._behind) + given)
        assert all(length == 1 for _, length in rows[1:-1])
        forced = model.logprobs(context, whole.tokens, whole.mask, temperature=decoding.temperature)
        torch.testing.assert_close(whole.logprobs[..., given:], forced[..., given:], **CLOSE)
        alone = [model.generate(model.encode(batch[i : i + 1]), decoding, num_samples).texts[0] for i in range(3)]
        assert whole.texts == alone
    hook.remove()


@pytest.mark.parametrize("family", KINDS)
def test_a_caption_answers_its_own_prompt_whatever_the_padding(family):
    model = build(family)
    batch = batch_for(model)
    questions = [["red", "a red circle is left of"], ["small", "a a a"], ["one star", "the blue square near one"]]
    encode = model.prompt_encoder(20, cut=False)
    prompts = [[encode(question) for question in of_image] for of_image in questions]
    batch.prompts, batch.prompts_mask = stack_prompts(prompts, model.tokenizer.pad_token_id)
    found = logprobs(model, batch)
    torch.testing.assert_close(found.flatten(0, 1), padded(one_by_one(model, batch, questions), found), **CLOSE)
    wider = copy.copy(batch)
    wider.prompts = torch.nn.functional.pad(batch.prompts, (4, 0), value=7)
    wider.prompts_mask = torch.nn.functional.pad(batch.prompts_mask, (4, 0))
    torch.testing.assert_close(logprobs(model, wider), found, **CLOSE)
    longer = copy.copy(batch)
    longer.tokens = torch.nn.functional.pad(batch.tokens, (0, 3), value=9)
    longer.mask = torch.nn.functional.pad(batch.mask, (0, 3))
    torch.testing.assert_close(logprobs(model, longer)[..., :-3], found, **CLOSE)
    samples = model.generate(model.encode(batch), Decoding("sample", max_length=6), 2)
    forced = model.logprobs(model.encode(batch), samples.tokens, samples.mask)
    torch.testing.assert_close(samples.logprobs, forced, **CLOSE)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "smolvlm"])
def test_what_stands_in_front_of_the_picture_moves_its_positions(family):
    """A system message, as the published templates write one: the other tests' template begins with the picture."""
    plain = build(family)
    template = "a red star . " + plain.tokenizer.chat_template
    model = build(family, chat_template=template)
    assert len(model._front) == len(plain._front) + 4
    batch, questions = batch_for(model), [["red", "a red circle is left of"], ["small", "a a"], ["one star", "blue"]]
    prompts = [[model.prompt_encoder(20, cut=False)(question) for question in of_image] for of_image in questions]
    batch.prompts, batch.prompts_mask = stack_prompts(prompts, model.tokenizer.pad_token_id)
    found = logprobs(model, batch)
    torch.testing.assert_close(found.flatten(0, 1), padded(one_by_one(model, batch, questions), found), **CLOSE)
    samples = model.generate(model.encode(batch), Decoding("sample", max_length=6), 2)
    forced = model.logprobs(model.encode(batch), samples.tokens, samples.mask)
    torch.testing.assert_close(samples.logprobs, forced, **CLOSE)


def test_prompts_are_encoded_in_workers_and_without_one_it_is_the_question():
    model = build("smolvlm")
    encode = pickle.loads(pickle.dumps(model.prompt_encoder(9, cut=False)))
    assert encode(None) == encode(model.question) == model._behind
    with pytest.raises(LongPrompt, match="more than 9"):
        encode("a red circle is left of the blue square")
    ids = asked(model, photos(1)[0], "red star")["input_ids"][0].tolist()
    assert ids[-len(encode("red star")) :] == encode("red star")


@pytest.mark.parametrize("family", KINDS)
def test_a_missing_picture_and_features_that_were_kept(family):
    model = build(family, freeze=("vision", "projector"))
    batch = batch_for(model)
    context, null = model.encode(batch), model.null_context(3, "cpu")
    assert null.states.shape == context.states.shape
    losses = model.token_losses(null, batch.tokens, batch.mask, 0.1)
    losses.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    guided = [model.generate(context, Decoding(max_length=6, guide=guide)).texts for guide in (None, Guide(1.0))]
    assert guided[0] == guided[1]
    assert (model.logprobs(null, batch.tokens, batch.mask) - logprobs(model, batch)).abs().max() > 1e-2
    kept = CaptionBatch(batch.keys, None, model.image_encoder(batch.pixels), batch.tokens, batch.mask)
    torch.testing.assert_close(logprobs(model, kept), logprobs(model, batch), **CLOSE)


def test_an_even_grey_picture_is_a_picture():
    """Idefics3's own code takes one whose normalised pixels are all 0 for padding."""
    model = build("idefics3")
    batch = batch_for(model)
    batch.pixels = batch.pixels * 0
    assert logprobs(model, batch).isfinite().all()


FROZEN = {
    "vision": ("vision",),
    "projector": ("projector",),
    "language": ("language",),
    "towers": ("vision", "projector"),
    "nothing": (),
}


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "llava", "llava_onevision", "smolvlm"])
@pytest.mark.parametrize("frozen", FROZEN)
def test_parts_that_are_not_frozen_get_gradients_and_no_other(family, frozen):
    model = copy.deepcopy(build(family, freeze=FROZEN[frozen])).train()
    batch = batch_for(model)
    model.token_losses(model.encode(batch), batch.tokens, batch.mask, 0.0).sum().backward()
    parts = {"vision": set(), "projector": set(), "language": set()}
    for name, parameter in model.model.model.named_parameters():
        parts[model._family.part_of(name)].add(parameter.grad is not None and bool(parameter.grad.any()))
        assert parameter.requires_grad == (parameter.grad is not None), name
    assert {part for part, found in parts.items() if True in found} == set(parts) - set(FROZEN[frozen])
    assert model.model.lm_head.weight.requires_grad == ("language" not in FROZEN[frozen])
    if "vision" in FROZEN[frozen]:
        inner = model.model.model.named_modules()
        tower = [module for name, module in inner if model._family.part_of(f"{name}.") == "vision"]
        assert not any(module.training for module in tower if next(module.parameters(recurse=False), None) is not None)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava"])
def test_adapters_are_of_the_parts_that_are_not_frozen_and_begin_as_nothing(family):
    plain, tower = build(family), build(family, freeze=("projector", "language"), lora=(("rank", 2), *TOWER[family]))
    language = build(family, freeze=("vision", "projector"), lora=(("rank", 2),))
    batch = batch_for(plain)
    for model, part in ((language, "language"), (tower, "vision")):
        trained = [name for name, parameter in model.model.model.named_parameters() if parameter.requires_grad]
        assert trained and all("lora_" in name and model._family.part_of(name) == part for name in trained)
        torch.testing.assert_close(logprobs(model, batch), logprobs(plain, batch), **CLOSE)
    model = copy.deepcopy(language)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.5)
    assert (logprobs(model, batch) - logprobs(plain, batch)).abs().max() > 1e-2
    with adapters_off(model):
        torch.testing.assert_close(logprobs(model, batch), logprobs(plain, batch), **CLOSE)


TOWER = {"qwen2_5_vl": [("targets", ("qkv",))], "llava": []}


WORDS = "messages[-1]['content'][1]['text']"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"config": {"model_type": "llama"}}, "expected a model_type of qwen2_vl, .*internvl; got llama"),
        ({"name": "x"}, "expected a name or a config"),
        ({"freeze": ("tower",)}, "expected vision, projector, language, got 'tower'"),
        ({"freeze": ("vision", "projector", "language")}, "got all frozen"),
        ({"image_size": 32}, "image_size=32: expected 28"),
        ({"config": config_of("qwen2_vl"), "image_size": 30}, "a multiple of 14.*give model.image_size=28"),
        ({"max_length": 90}, "must fit into the language model's 96 positions; got 16 of the picture"),
        ({"max_length": 4}, "expected room for a caption behind the question's"),
        ({"chat_template": f"{{{{ {WORDS} }}}}"}, "one place for the picture .*, got 0"),
        ({"question": "red <image>"}, "one place for the picture .*, got 2"),
        ({"chat_template": f"{{{{ {WORDS} }}}}<image>"}, "expected a token behind the picture"),
        ({"chat_template": "<image> tell"}, "model.question: expected a chat template that writes 'Describe this"),
        (
            {"chat_template": f"<image>{{{{ {WORDS} }}}}", "system": "in rhyme"},
            "model.system: expected a chat template that writes 'in rhyme'",
        ),
        (
            {"chat_template": "{% if %}"},
            "model.chat_template: expected one that writes a user message, got TemplateSyn",
        ),
        ({"four_bit": True}, "expected model.lora, model.name and model.pretrained=true"),
        (
            {"config": config_of("paligemma") | {"text_config": {"model_type": "gemma2"}}},
            "sets final_logit_softcapping",
        ),
        (
            {"config": config_of("llava") | {"attn_implementation": "flex_attention"}},
            "attn_implementation: expected sdpa or eager.*got flex_attention",
        ),
        (
            {"config": config_of("llava") | {"text_config": {**TEXT, "model_type": "mistral", "sliding_window": 30}}},
            "expected rows within the 30 places .*sliding_window",
        ),
    ],
)
def test_what_cannot_be_is_told_before_work_starts(settings, message):
    with pytest.raises(UsageError, match=message):
        tiny(**settings)


def test_layers_whose_window_holds_every_row_are_no_obstacle():
    text = {**TEXT, "model_type": "mistral", "sliding_window": 96}
    assert tiny(config=config_of("llava") | {"text_config": text}).model.config.text_config.sliding_window == 96


def test_an_export_is_greedy_whatever_settings_the_published_model_has(tmp_path):
    model = copy.deepcopy(build("qwen2_5_vl"))
    published = {"do_sample": True, "repetition_penalty": 1.5, "temperature": 0.1, "eos_token_id": [0, 1]}
    model.model.generation_config.update(**published)
    export(model, tmp_path / "out", {"_target_": "capkit.models.captioners.chat_vlm.ChatVLM", "name": None})
    settings = AutoModelForImageTextToText.from_pretrained(tmp_path / "out").generation_config
    assert (settings.do_sample, settings.repetition_penalty) in ((False, 1.0), (None, None))
    assert settings.eos_token_id == model.tokenizer.eos_token_id
    assert model.model.generation_config.repetition_penalty == 1.5


def test_the_python_api_reads_a_folder_of_transformers(tmp_path):
    model = tiny(config=config_of("llava") | {"text_config": config_of("llava")["text_config"] | LONGER}).eval()
    model.model.save_pretrained(tmp_path)
    model.processor.save_pretrained(tmp_path)
    loaded = capkit.load(tmp_path, "captioner")
    found = loaded.caption([photo.numpy() for photo in photos(2)], decoding=Decoding(max_length=6))
    expected = model.generate(model.encode(CaptionBatch(["a", "b"], pixels(2))), Decoding(max_length=6))
    assert found == [texts[0] for texts in expected.texts]


LONGER = {"max_position_embeddings": 400}


def test_another_tokenizer_than_the_models_own_is_refused(tmp_path):
    build("llava").model.save_pretrained(tmp_path)
    build("llava").processor.save_pretrained(tmp_path)
    for words in (["a cat"], [f"word{number}" for number in range(40)]):  # no such token; another word in its place
        with pytest.raises(UsageError, match=r"model\.tokenizer: expected one with <image> as token"):
            ChatVLM(str(tmp_path), tokenizer=word_tokenizer(words))


def test_sizes_are_checked_before_weights_are_read(tmp_path, monkeypatch):
    build("qwen2_vl").model.save_pretrained(tmp_path)
    build("qwen2_vl").processor.save_pretrained(tmp_path)
    monkeypatch.setattr("capkit.models.captioners.chat_vlm.load_pretrained", _configs_only)
    with pytest.raises(UsageError, match="must fit into the language model's 96 positions"):
        ChatVLM(str(tmp_path), image_size=SIDE, max_length=96)


def _configs_only(factory, name, role):
    assert factory is AutoConfig
    return factory.from_pretrained(name)


def test_no_second_bos_by_a_tokenizer_that_adds_one():
    """Gemma's and Llama's do; PaliGemma's processor turns that off, and its template writes BOS behind the picture."""
    tokenizer = tiny_tokenizer()
    bos = tokenizer.bos_token
    one = TemplateProcessing(f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)])
    tokenizer.backend_tokenizer.post_processor = one
    for family, front in (("paligemma", []), ("llava", [tokenizer.bos_token_id])):
        model = tiny(family, tokenizer=copy.deepcopy(tokenizer), question="near the star")
        ids = asked(model, photos(1)[0])["input_ids"][0].tolist()
        assert model._front == front == ids[: len(front)]
        assert ids[-len(model._behind) - 1 :] == [model.model.config.image_token_id, *model._behind]


def test_a_caption_ends_where_the_template_ends_an_answer():
    """Idefics3's tokenizer has Llama's end of text as EOS, and its template ends a turn by another token."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<end_of_utterance>"], special_tokens=True)
    turns = "{% for m in messages %}{% for part in m['content'] %}{{ part.get('text', '<image>') }}{% endfor %}"
    model = tiny(tokenizer=tokenizer, chat_template=turns + "<end_of_utterance>{% endfor %}")
    assert model.tokenizer.eos_token == "<end_of_utterance>"
    assert tiny(tokenizer=tiny_tokenizer()).tokenizer.eos_token == tiny_tokenizer().eos_token


def test_four_bits_need_bitsandbytes_and_a_gpu(monkeypatch):
    monkeypatch.setattr("capkit.models.quantized.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs bitsandbytes, which is not installed"):
        ChatVLM("anything", four_bit=True, lora={"rank": 2})
    monkeypatch.setattr("capkit.models.quantized.find_spec", lambda name: "found")
    monkeypatch.setattr("capkit.models.quantized.has_gpu", lambda: False)
    with pytest.raises(UsageError, match="trains on a GPU"):
        ChatVLM("anything", four_bit=True, lora={"rank": 2})


def test_a_folder_needs_its_processor(tmp_path):
    build("llava").model.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="expected a processor beside the weights"):
        ChatVLM(str(tmp_path))


@pytest.mark.parametrize("family", [pytest.param(x, marks=[pytest.mark.nightly] * (x != "internvl")) for x in CONFIGS])
def test_the_processor_of_a_run_on_a_folder_is_read_again(family, tmp_path):
    """A run's checkpoint keeps the tokenizer as plain data, without the names that a processor gave to tokens.

    Beside torchvision 0.26 transformers reads Idefics3's with Pillow, since that torchvision has no Lanczos: it rounds
    otherwise, by 6e-8.
    """
    model = build(family)
    model.model.save_pretrained(tmp_path / "hub")
    model.processor.save_pretrained(tmp_path / "hub")
    kept = tokenizer_from_json(tokenizer_to_json(model.tokenizer))
    of_run = ChatVLM(str(tmp_path / "hub"), question=model.question, image_size=SIDE, max_length=40, tokenizer=kept)
    of_run.processor.save_pretrained(tmp_path / "exported")
    read = copy.copy(of_run)
    read._read_processor = load_processor(str(tmp_path / "exported"))
    found, expected = (dict(asked(one, photos(1)[0])) for one in (read, model))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", FAMILY_CASES)
def test_a_folder_of_transformers_is_read_with_its_processor(family, tmp_path):
    model, batch = build(family), batch_for(build(family))
    model.model.save_pretrained(tmp_path)
    model.processor.save_pretrained(tmp_path)
    settings = {"question": model.question, "image_size": SIDE, "max_length": 40}
    read = ChatVLM(str(tmp_path), **settings).eval()
    assert (read._front, read._behind) == (model._front, model._behind)
    torch.testing.assert_close(logprobs(read, batch), logprobs(model, batch), **CLOSE)
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    inputs = asked(read, photos(1)[0])
    out = plain.generate(**inputs, max_new_tokens=7, do_sample=False)
    text = read.tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    written = read.generate(read.encode(CaptionBatch(["a"], pixels(1))), Decoding(max_length=7))
    assert written.texts == [[text.strip()]]
