"""Tiny models with random weights, saved to a folder and loaded from there as any model is."""

import json

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from capkit.assets.cache import location
from capkit.errors import UsageError
from capkit.llm.base import ChatModel, Picture, Question
from capkit.llm.huggingface import HFTextLM, HFVisionChat, _loaded, found_revision
from capkit.text.tokenizers import word_tokenizer

TEMPLATE = (
    "{% for m in messages %}user: {{ m['content'] }} {% endfor %}{% if add_generation_prompt %}answer:{% endif %}"
)
VISION_TEMPLATE = (
    "{% for m in messages %}user: {% for c in m['content'] %}{% if c['type'] == 'image' %}<image>{% else %}"
    "{{ c['text'] }}{% endif %}{% endfor %} {% endfor %}{% if add_generation_prompt %}answer:{% endif %}"
)
WORDS = ["user: answer: a red circle and blue square", "what is it"]
TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(autouse=True)
def fresh():
    yield
    _loaded.cache_clear()


def text_config(tokenizer):
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    return LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=256, **TEXT, **ids)


def never_ends(head, tokenizer):
    """A logit of 0 for EOS, below the highest of many random ones."""
    with torch.no_grad():
        head.weight[tokenizer.eos_token_id] = 0


@pytest.fixture
def text_folder(tmp_path):
    tokenizer = word_tokenizer(WORDS)
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    model = LlamaForCausalLM(text_config(tokenizer))
    never_ends(model.lm_head, tokenizer)
    model.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    return tmp_path / "lm"


@pytest.fixture
def vision_folder(tmp_path):
    tokenizer = word_tokenizer(WORDS)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    vision = CLIPVisionConfig(image_size=28, patch_size=14, **TEXT)
    torch.manual_seed(0)
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    config = LlavaConfig(
        vision_config=vision, text_config=text_config(tokenizer), image_token_id=image_token, vision_feature_layer=-1
    )
    model = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():  # fresh weights are so small that every picture looks the same
            parameter *= 10 if parameter.dim() > 1 else 1
    never_ends(model.lm_head, tokenizer)
    with torch.no_grad():
        model.lm_head.weight[image_token] = 0
    model.save_pretrained(tmp_path / "vlm")
    images = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    processor = LlavaProcessor(
        images, tokenizer, patch_size=14, vision_feature_select_strategy="default", chat_template=VISION_TEMPLATE,
        num_additional_image_tokens=1,
    )  # fmt: skip
    processor.save_pretrained(tmp_path / "vlm")
    return tmp_path / "vlm"


def ends_at(folder, token):
    """Makes a token the end of every answer."""
    file = folder / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token_id": [int(token)]}))


def asked(model, prompts, pictures=None, sample=0):
    pictures = [()] * len(prompts) if pictures is None else [(picture,) for picture in pictures]
    return model.ask([Question(*pair, sample=sample) for pair in zip(prompts, pictures, strict=True)])


def raw_tokens(folder, prompt, count):
    """What plain transformers says greedily to a prompt."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(f"user: {prompt} answer:", return_tensors="pt").input_ids
    return tokenizer, model.generate(ids, max_new_tokens=count, do_sample=False, eos_token_id=None)[0, ids.shape[1] :]


def test_an_answer_that_does_not_end_is_a_failure(text_folder):
    lm = HFTextLM(str(text_folder), max_tokens=6)
    (answer,) = asked(lm, ["what is it"])
    tokenizer, said = raw_tokens(text_folder, "what is it", 6)
    assert tokenizer.eos_token_id not in said.tolist()
    assert answer.text is None and "max_tokens=6" in answer.failure
    assert answer.said == tokenizer.decode(said, skip_special_tokens=True)


def test_an_answer_ends_where_the_model_ends_it(text_folder):
    tokenizer, said = raw_tokens(text_folder, "a red circle", 8)
    end = next(i for i in range(1, 8) if said[i] not in said[:i])
    ends_at(text_folder, said[end])
    (answer,) = asked(HFTextLM(str(text_folder), max_tokens=8), ["a red circle"])
    assert answer.text == tokenizer.decode(said[:end], skip_special_tokens=True)


def test_prompts_of_other_lengths_in_one_batch_change_no_answer(text_folder):
    prompts = ["a", "a red circle and blue square what is it", "what is it", "blue"]
    alone = asked(HFTextLM(str(text_folder), max_tokens=5, batch_size=1), prompts)
    assert asked(HFTextLM(str(text_folder), max_tokens=5, batch_size=3), prompts) == alone
    assert len({answer.said for answer in alone}) > 1


def test_they_are_models_and_load_when_they_are_asked(text_folder, vision_folder):
    lm, vision = HFTextLM(str(text_folder)), HFVisionChat(str(vision_folder))
    assert isinstance(lm, ChatModel) and isinstance(vision, ChatModel)
    lm.about(), vision.about()
    assert _loaded.cache_info().currsize == 0


def test_two_steps_that_name_one_model_share_its_weights(text_folder):
    for _ in range(2):
        asked(HFTextLM(str(text_folder), max_tokens=2), ["a"])
    assert _loaded.cache_info().misses == 1


def test_the_vision_model_reads_its_picture(vision_folder):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)]
    pictures = [Picture(np.full((20 + 9 * i, 30, 3), colour, np.uint8)) for i, colour in enumerate(colours)]
    prompts = ["what is it", "a red circle and blue square", "what is it", "what is it", "a"]
    alone = asked(HFVisionChat(str(vision_folder), max_tokens=6, batch_size=1), prompts, pictures)
    assert asked(HFVisionChat(str(vision_folder), max_tokens=6, batch_size=3), prompts, pictures) == alone
    same_prompt = {alone[i].said for i in (0, 2, 3)}
    assert len(same_prompt) > 1 and all(answer.failure for answer in alone)


def test_samples_of_the_vision_model_differ_and_each_comes_again(vision_folder):
    pictures, prompts = [Picture(np.zeros((28, 28, 3), np.uint8))], ["what is it"]
    model = HFVisionChat(str(vision_folder), max_tokens=6, temperature=5.0)
    before = torch.random.get_rng_state()
    said = [asked(model, prompts, pictures, number) for number in (0, 1, 2, 1)]
    assert said[1] == said[3] and len({answer.said or answer.text for (answer,) in said}) == 3
    assert torch.equal(torch.random.get_rng_state(), before)
    assert model.draws and not HFVisionChat(str(vision_folder)).draws


def test_the_revision_of_a_folder_changes_with_its_weights(text_folder):
    before = found_revision(str(text_folder), None)
    assert HFTextLM(str(text_folder)).about()["revision"] == before
    model = LlamaForCausalLM.from_pretrained(text_folder)
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    model.save_pretrained(text_folder)
    assert found_revision(str(text_folder), None) != before


def test_a_model_without_a_chat_template_is_refused(text_folder):
    (text_folder / "chat_template.jinja").unlink()
    with pytest.raises(UsageError, match="no chat template"):
        asked(HFTextLM(str(text_folder)), ["a"])


@pytest.mark.parametrize("settings", [{"dtype": "int8"}, {"max_tokens": 0}, {"batch_size": 0}])
def test_settings_that_cannot_work_are_refused_before_loading(text_folder, settings):
    with pytest.raises(UsageError):
        HFTextLM(str(text_folder), **settings)


def test_a_model_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UsageError, match="could not be loaded"):
        HFTextLM(str(tmp_path / "none"))


@pytest.mark.integration
@pytest.mark.skipif(not location("smollm2-135m").exists(), reason="wants the assets of data=stamps")
def test_a_real_chat_model_answers():
    (answer,) = asked(HFTextLM(str(location("smollm2-135m")), max_tokens=30), ["What is the capital of France?"])
    assert answer.text is not None and "Paris" in answer.text


def test_the_revision_of_a_hub_model_is_the_commit_it_was_loaded_at(tmp_path, monkeypatch):
    commit = "0123456789" * 4
    snapshot = tmp_path / "models--someone--model" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "models--someone--model" / "refs").mkdir()
    (tmp_path / "models--someone--model" / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert found_revision("someone/model", None) == found_revision("someone/model", commit) == commit
