"""Tiny models with random weights, saved to a folder and loaded from there as any model is."""

import json

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PegasusConfig,
    T5Config,
)

from capkit.assets.cache import location
from capkit.errors import UsageError
from capkit.llm.asker import Asker
from capkit.llm.base import ChatModel, Picture, Question
from capkit.llm.cache import question_key
from capkit.llm.choosing import KeyedDraw, RepetitionPenalty
from capkit.llm.huggingface import HFChat, _reader, found_revision, loaded
from capkit.llm.json_replies import JSONField
from capkit.llm.rated import RatedReply, can_rate
from capkit.llm.rated_huggingface import RatedHFChat
from capkit.llm.replies import Text
from capkit.text.tokenizers import word_tokenizer
from capkit.utils import rng

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
    loaded.cache_clear()
    _reader.cache_clear()


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


def words(answer):
    return answer.said if answer.text is None else answer.text


def raw_tokens(folder, prompt, count):
    """What plain transformers says greedily to a prompt."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(f"user: {prompt} answer:", return_tensors="pt").input_ids
    return tokenizer, model.generate(ids, max_new_tokens=count, do_sample=False, eos_token_id=None)[0, ids.shape[1] :]


def test_an_answer_that_does_not_end_is_a_failure(text_folder):
    lm = HFChat(str(text_folder), max_tokens=6)
    (answer,) = asked(lm, ["what is it"])
    tokenizer, said = raw_tokens(text_folder, "what is it", 6)
    assert tokenizer.eos_token_id not in said.tolist()
    assert answer.text is None and "max_tokens=6" in answer.failure
    assert answer.said == tokenizer.decode(said, skip_special_tokens=True)


def test_an_answer_ends_where_the_model_ends_it(text_folder):
    tokenizer, said = raw_tokens(text_folder, "a red circle", 8)
    end = next(i for i in range(1, 8) if said[i] not in said[:i])
    ends_at(text_folder, said[end])
    (answer,) = asked(HFChat(str(text_folder), max_tokens=8), ["a red circle"])
    assert answer.text == tokenizer.decode(said[:end], skip_special_tokens=True)


def test_prompts_of_other_lengths_in_one_batch_change_no_answer(text_folder):
    prompts = ["a", "a red circle and blue square what is it", "what is it", "blue"]
    alone = asked(HFChat(str(text_folder), max_tokens=5, batch_size=1), prompts)
    assert asked(HFChat(str(text_folder), max_tokens=5, batch_size=3), prompts) == alone
    assert len({answer.said for answer in alone}) > 1


def test_they_are_models_and_load_when_they_are_asked(text_folder, vision_folder):
    lm, vision = HFChat(str(text_folder)), HFChat(str(vision_folder))
    assert isinstance(lm, ChatModel) and isinstance(vision, ChatModel)
    lm.about(), vision.about()
    assert loaded.cache_info().currsize == 0


def test_two_steps_that_name_one_model_share_its_weights(text_folder):
    for _ in range(2):
        asked(HFChat(str(text_folder), max_tokens=2), ["a"])
    assert loaded.cache_info().misses == 1


def test_the_vision_model_reads_its_picture(vision_folder):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)]
    pictures = [Picture(np.full((20 + 9 * i, 30, 3), colour, np.uint8)) for i, colour in enumerate(colours)]
    prompts = ["what is it", "a red circle and blue square", "what is it", "what is it", "a"]
    alone = asked(HFChat(str(vision_folder), max_tokens=6, batch_size=1), prompts, pictures)
    assert asked(HFChat(str(vision_folder), max_tokens=6, batch_size=3), prompts, pictures) == alone
    same_prompt = {alone[i].said for i in (0, 2, 3)}
    assert len(same_prompt) > 1 and all(answer.failure for answer in alone)


def test_a_model_that_sees_can_be_asked_without_a_picture(vision_folder):
    model = HFChat(str(vision_folder), max_tokens=6)
    (blind,) = asked(model, ["what is it"])
    (sees,) = asked(model, ["what is it"], [Picture(np.zeros((28, 28, 3), np.uint8))])
    assert blind.said != sees.said and sees.tokens_in == blind.tokens_in + 4  # patches
    assert model.takes_pictures is None


def test_a_language_model_takes_no_pictures(text_folder):
    assert HFChat(str(text_folder)).takes_pictures is False


def test_samples_differ_and_each_comes_again_and_nothing_else_is_drawn(vision_folder):
    pictures, prompts = [Picture(np.zeros((28, 28, 3), np.uint8))], ["what is it"]
    model = HFChat(str(vision_folder), max_tokens=6, temperature=5.0)
    before = torch.random.get_rng_state()
    said = [asked(model, prompts, pictures, number) for number in (0, 1, 2, 1)]
    assert said[1] == said[3] and len({words(answer) for (answer,) in said}) == 3
    assert torch.equal(torch.random.get_rng_state(), before)
    assert model.draws and not HFChat(str(vision_folder)).draws


def test_sampled_answers_do_not_depend_on_batch_or_order(text_folder):
    """The control is another seed. A draw by the batch, as torch's own, differs already in the second batch."""
    questions = [Question(text, sample=n) for text in ("a", "a red circle and blue square", "what") for n in range(5)]
    settings = {"max_tokens": 5, "temperature": 2.0, "top_p": 0.95}
    alone = [HFChat(str(text_folder), batch_size=1, **settings).ask([question])[0] for question in questions]
    for size in (2, 4, 15):
        model = HFChat(str(text_folder), batch_size=size, **settings)
        assert model.ask(questions) == alone
        assert model.ask(questions[::-1]) == alone[::-1]
    assert len({words(answer) for answer in alone}) > 10
    assert HFChat(str(text_folder), seed=1, **settings).ask(questions) != alone


@pytest.mark.parametrize("top_p", [1.0, 0.5])
def test_a_token_is_drawn_by_the_keyed_uniform_from_the_models_distribution(text_folder, top_p):
    """Against the cumulated distribution of plain transformers, in token order, first and second token."""
    from transformers import AutoModelForCausalLM

    tokenizer, _ = raw_tokens(text_folder, "what is it", 1)
    ids = tokenizer("user: what is it answer:", return_tensors="pt", add_special_tokens=False).input_ids
    reference = AutoModelForCausalLM.from_pretrained(text_folder).eval()
    model = HFChat(str(text_folder), max_tokens=2, temperature=3.0, top_p=top_p, seed=7)
    seen = set()
    for sample in range(12):
        question = Question("what is it", sample=sample)
        key, given, drawn = rng.stable_hash(7, "answer", question_key(question)), ids, []
        for position in range(2):
            with torch.no_grad():
                probabilities = (reference(given).logits[0, -1] / 3.0).softmax(-1).double().numpy()
            order = np.argsort(-probabilities, kind="stable")
            before = np.cumsum(probabilities[order]) - probabilities[order]
            probabilities[order[before >= top_p]] = 0
            uniform = rng.uniform(np.array([key]), position)[0]
            token = int(np.searchsorted(np.cumsum(probabilities), uniform * probabilities.sum(), side="right"))
            drawn.append(token)
            given = torch.cat([given, torch.tensor([[token]])], 1)
            if token == tokenizer.eos_token_id:
                break
        (answer,) = model.ask([question])
        assert words(answer) == tokenizer.decode(drawn, skip_special_tokens=True)
        seen.add(tuple(drawn))
    assert len(seen) > 4


def test_a_keyed_draw_leaves_one_token_a_row():
    scores = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
    ids = torch.tensor([3, 4])
    left = KeyedDraw(ids, 2, 1.0, 1.0)(torch.zeros(2, 3, dtype=torch.long), scores)
    # exp(0, 1, 2) / 11.107 = .090, .245, .665, cumulated .090, .335, 1; one token was said, so the position is 1.
    expected = [int(np.searchsorted([0.0900, 0.3348], u)) for u in rng.uniform(ids, 1).tolist()]
    assert left.argmax(1).tolist() == expected
    assert (left == 0).sum(1).tolist() == [1, 1] and (left == -torch.inf).sum(1).tolist() == [2, 2]


def test_the_repetition_penalty_by_hand_and_without_padding():
    """Penalty 2: token 1 is said, 2 is given and 0 is padding. 4 / 2 = 2, -3 * 2 = -6; 1 and 5 stay."""
    penalty = RepetitionPenalty(2.0, torch.tensor([[False, True]]))
    scores = torch.tensor([[1.0, 4.0, -3.0, 5.0]])
    assert penalty(torch.tensor([[0, 2, 1]]), scores).tolist() == [[1.0, 2.0, -6.0, 5.0]]
    two_beams = penalty(torch.tensor([[0, 2, 1], [0, 2, 3]]), scores.expand(2, 4))
    assert two_beams.tolist() == [[1.0, 2.0, -6.0, 5.0], [1.0, 4.0, -6.0, 2.5]]


def test_a_repetition_penalty_changes_answers_and_not_with_the_batch(text_folder):
    """PAD is among the likely tokens here; transformers' own penalty would count the padding of a short question."""
    prompts = ["a", "a red circle and blue square what is it", "what is it", "blue"]
    settings = {"max_tokens": 6, "repetition_penalty": 3.0}
    alone = asked(HFChat(str(text_folder), batch_size=1, **settings), prompts)
    assert asked(HFChat(str(text_folder), batch_size=4, **settings), prompts) == alone
    assert asked(HFChat(str(text_folder), max_tokens=6), prompts) != alone
    own = json.loads((text_folder / "generation_config.json").read_text()) | {"repetition_penalty": 3.0}
    (text_folder / "generation_config.json").write_text(json.dumps(own))
    loaded.cache_clear()
    by_default = HFChat(str(text_folder), max_tokens=6)
    assert asked(by_default, prompts) == alone and "repetition_penalty" not in by_default.about()


def test_beams_are_those_of_transformers(text_folder):
    from transformers import AutoModelForCausalLM

    prompts = ["what is it", "a", "blue", "a red circle"]
    beams = HFChat(str(text_folder), max_tokens=5, num_beams=3)
    answers = asked(beams, prompts)
    model = AutoModelForCausalLM.from_pretrained(text_folder)
    for prompt, answer in zip(prompts, answers, strict=True):
        tokenizer, _ = raw_tokens(text_folder, prompt, 1)
        ids = tokenizer(f"user: {prompt} answer:", return_tensors="pt").input_ids
        said = model.generate(ids, max_new_tokens=5, num_beams=3, do_sample=False)[0, ids.shape[1] :]
        assert words(answer) == tokenizer.decode(said, skip_special_tokens=True)
    assert beams.about()["num_beams"] == 3
    assert answers != asked(HFChat(str(text_folder), max_tokens=5), prompts)


def test_a_question_longer_than_the_model_is_a_failure_of_its_own(text_folder):
    """256 positions, 6 of them for the answer: the template's four tokens leave 246."""
    model = HFChat(str(text_folder), max_tokens=6)
    long, short = " ".join(["red"] * 10_000), "what is it"
    failed, other, fits = asked(model, [long, short, " ".join(["red"] * 246)])
    assert failed.text is None and failed.failure == "the question has 10004 tokens, more than the model's 250"
    assert [other] == asked(model, [short]) and fits.tokens_in == 250


def test_a_system_message_comes_first(text_folder):
    (answer,) = HFChat(str(text_folder), max_tokens=4).ask([Question("what is it", system="a red circle")])
    (same,) = HFChat(str(text_folder), max_tokens=4).ask([Question("a red circle user: what is it")])
    assert answer == same, "the template of these tests writes all roles alike"
    (text_folder / "chat_template.jinja").write_text("{{ raise_exception('no system role') }}")
    _reader.cache_clear()
    with pytest.raises(UsageError, match="does not take this question: no system role"):
        HFChat(str(text_folder)).ask([Question("a", system="b")])


@pytest.mark.parametrize("kind", ["t5", "pegasus"])
def test_encoder_decoders_answer_without_a_chat_template(tmp_path, kind):
    tokenizer = word_tokenizer(WORDS)
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "vocab_size": len(tokenizer)}
    if kind == "t5":
        config = T5Config(
            d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=tokenizer.pad_token_id, **ids
        )
    else:
        sizes = {f"{part}_{name}": n for part in ("encoder", "decoder")
                 for name, n in (("layers", 2), ("ffn_dim", 32), ("attention_heads", 2))}  # fmt: skip
        config = PegasusConfig(
            d_model=16, max_position_embeddings=32, decoder_start_token_id=tokenizer.pad_token_id, init_std=0.2,
            **sizes, **ids,
        )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(config).eval()
    if kind == "t5":
        with torch.no_grad():
            for parameter in model.parameters():  # fresh weights are so small that every question looks the same
                parameter *= 8 if parameter.dim() > 1 else 1
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    model.generation_config.forced_eos_token_id = None
    prompts = ["a", "a red circle and blue square", "what is it", "blue circle"]
    alone = asked(HFChat(str(tmp_path / "model"), max_tokens=5, batch_size=1), prompts)
    for prompt, answer in zip(prompts, alone, strict=True):
        given = tokenizer(prompt, return_tensors="pt").input_ids
        said = model.generate(given, max_new_tokens=5, do_sample=False)[0, 1:]
        assert words(answer) == tokenizer.decode(said, skip_special_tokens=True)
        assert answer.tokens_in == given.shape[1]
    assert len({words(answer) for answer in alone}) > 1
    assert asked(HFChat(str(tmp_path / "model"), max_tokens=5, batch_size=3), prompts) == alone
    without_braces = HFChat(str(tmp_path / "model"))
    assert without_braces.can_write("a red circle") and not without_braces.can_write("{}")
    with pytest.raises(UsageError, match="can write JSON, got model, whose tokenizer has no braces"):
        Asker(without_braces, tmp_path / "answers", JSONField("caption", Text(9)))
    drawing = {"max_tokens": 5, "temperature": 2.0, "repetition_penalty": 2.0}
    drawn = asked(HFChat(str(tmp_path / "model"), batch_size=1, **drawing), prompts)
    assert asked(HFChat(str(tmp_path / "model"), batch_size=4, **drawing), prompts) == drawn != alone
    joined = HFChat(str(tmp_path / "model"), max_tokens=5).ask(
        [Question("blue", system="a red"), Question("a red blue")]
    )
    assert joined[0] == joined[1]
    if kind == "pegasus":
        assert all(answer.failure for answer in alone), "forced ends of the model's config do not hide what was cut"
        (long,) = asked(HFChat(str(tmp_path / "model"), max_tokens=5), [" ".join(["red"] * 40)])
        assert "more than the model's 32" in long.failure


def test_what_answers_depend_on_is_in_about_and_greedy_stores_of_before_are_found(text_folder):
    revision = found_revision(str(text_folder), None)
    greedy = HFChat(str(text_folder)).about()
    assert greedy == {
        "backend": "transformers", "model": "lm", "revision": revision, "decoding": "greedy", "max_tokens": 256,
        "dtype": "float32",
    }  # fmt: skip
    changes = [
        {"temperature": 0.7}, {"temperature": 0.8}, {"temperature": 0.7, "top_p": 0.9}, {"temperature": 0.7, "seed": 1},
        {"repetition_penalty": 1.1}, {"num_beams": 2}, {"max_tokens": 9}, {"dtype": "bfloat16"},
    ]  # fmt: skip
    abouts = [HFChat(str(text_folder), **change).about() for change in changes]
    assert len({json.dumps(about) for about in [*abouts, greedy]}) == len(changes) + 1
    assert HFChat(str(text_folder), batch_size=1).about() == greedy


def test_the_revision_of_a_folder_changes_with_its_weights(text_folder):
    before = found_revision(str(text_folder), None)
    assert HFChat(str(text_folder)).about()["revision"] == before
    model = LlamaForCausalLM.from_pretrained(text_folder)
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    model.save_pretrained(text_folder)
    assert found_revision(str(text_folder), None) != before


def test_a_model_without_a_chat_template_is_refused(text_folder):
    (text_folder / "chat_template.jinja").unlink()
    with pytest.raises(UsageError, match="no chat template; use an instruction-tuned model"):
        HFChat(str(text_folder))
    assert loaded.cache_info().currsize == 0


def test_a_model_of_plain_prompts_reads_them_as_they_are(text_folder):
    """With the tokenizer's own special tokens. `count_tokens` says how many tokens the model reads, either way."""
    lm, plain = HFChat(str(text_folder), max_tokens=5), HFChat(str(text_folder), max_tokens=5, chat=False)
    tokenizer = AutoTokenizer.from_pretrained(text_folder)
    ids, template = tokenizer("what is it").input_ids, tokenizer("user: what is it answer:", add_special_tokens=False)
    (answer,) = asked(plain, ["what is it"])
    model = AutoModelForCausalLM.from_pretrained(text_folder)
    said = model.generate(torch.tensor([ids]), max_new_tokens=5, do_sample=False)
    assert words(answer) == tokenizer.decode(said[0, len(ids) :], skip_special_tokens=True)
    assert (answer.tokens_in, plain.count_tokens(Question("what is it"))) == (len(ids), len(ids))
    (templated,) = asked(lm, ["what is it"])
    assert templated.tokens_in == lm.count_tokens(Question("what is it")) == len(template.input_ids)
    assert plain.about() == {**lm.about(), "chat": False} and "chat" not in lm.about()
    (text_folder / "chat_template.jinja").unlink(missing_ok=True)
    _reader.cache_clear()
    with pytest.raises(UsageError, match=r"no chat template.*chat=false"):
        HFChat(str(text_folder))
    HFChat(str(text_folder), chat=False)


def test_a_model_that_sees_cannot_do_without_its_chat_template(vision_folder):
    with pytest.raises(UsageError, match="chat=false is for causal language models"):
        HFChat(str(vision_folder), chat=False)


@pytest.mark.parametrize(
    "settings",
    [
        {"dtype": "int8"}, {"max_tokens": 0}, {"batch_size": 0}, {"top_p": 0.9}, {"temperature": 1.0, "num_beams": 2},
        {"temperature": -1.0}, {"repetition_penalty": 0.0}, {"temperature": 1.0, "top_p": 0.0},
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused_before_loading(text_folder, settings):
    with pytest.raises(UsageError):
        HFChat(str(text_folder), **settings)


def test_a_model_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UsageError, match="could not be loaded"):
        HFChat(str(tmp_path / "none"))


@pytest.mark.integration
@pytest.mark.skipif(not location("smollm2-135m").exists(), reason="wants the assets of data=stamps")
def test_a_real_chat_model_answers():
    (answer,) = asked(HFChat(str(location("smollm2-135m")), max_tokens=30), ["What is the capital of France?"])
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


# texts that are rated by the picture ---------------------------------------------------------------------------------


def naive_logprobs(folder, pieces, picture, said):
    """Log-probabilities by plain transformers, with one more token at a time."""
    from transformers import AutoProcessor

    model, processor = (
        LlavaForConditionalGeneration.from_pretrained(folder).eval(),
        AutoProcessor.from_pretrained(folder),
    )
    images = None if picture is None else [picture.pixels]
    inputs = processor(text=[pieces], images=images, return_tensors="pt")
    found = []
    for token in said:
        with torch.no_grad():
            found.append(model(**inputs).logits[0, -1].log_softmax(-1)[token].item())
        more = torch.tensor([[token]])
        inputs["input_ids"] = torch.cat([inputs["input_ids"], more], 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return found


class Recording(RatedHFChat):
    """Keeps the ids that were generated."""

    def _answer(self, asked, row, tokens_in):
        answer = super()._answer(asked, row, tokens_in)
        self.ids = row if answer.text is None else row[: answer.tokens_out - 1]
        return answer


PENALTY = {"max_tokens": 12, "repetition_penalty": 1.05}


@pytest.fixture
def picture(vision_folder):
    """One of which the model says four tokens or more before what is made the end of its answers."""
    picture = Picture(np.random.default_rng(0).integers(0, 255, (28, 28, 3), dtype=np.uint8))
    model = Recording(str(vision_folder), **PENALTY)
    asked(model, ["what is it"], [picture])
    place = next(i for i in range(4, 12) if model.ids[i] not in model.ids[:i])
    ends_at(vision_folder, model.ids[place])
    loaded.cache_clear()
    return picture


def test_a_rated_answer_has_the_gains_of_the_ids_that_were_generated(vision_folder, picture):
    model = Recording(str(vision_folder), **PENALTY)
    rated = RatedReply(100).read(asked(model, ["what is it"], [picture])[0].text)
    with_picture = naive_logprobs(vision_folder, "user: <image>what is it answer:", picture, model.ids)
    without = naive_logprobs(vision_folder, "user: what is it answer:", None, model.ids)
    gains = [gain for _, _, gain in rated.tokens]
    assert gains == pytest.approx([a - b for a, b in zip(with_picture, without, strict=True)], abs=1e-4)
    assert len(gains) >= 4 and max(map(abs, gains)) > 0.01
    assert can_rate(model) and not can_rate(HFChat(str(vision_folder)))


def test_rated_answers_do_not_depend_on_the_batch(vision_folder, picture):
    prompts = ["what is it", "what", "a red circle and blue square what is it"]
    model = RatedHFChat(str(vision_folder), batch_size=3, **PENALTY)
    whole = asked(model, prompts, [picture] * 3)
    for prompt, answer in zip(prompts, whole, strict=True):
        (alone,) = asked(model, [prompt], [picture])
        assert answer.failure == alone.failure
        if answer.text is not None:
            rated, other = (json.loads(item.text) for item in (answer, alone))
            assert rated["text"] == other["text"]
            assert np.array(rated["tokens"]) == pytest.approx(np.array(other["tokens"]), abs=1e-4)
    assert any(answer.text is not None for answer in whole)


def test_a_model_without_eyes_rates_nothing(text_folder):
    with pytest.raises(UsageError, match=r"RatedHFChat: expected a model of kind image_text.*of kind causal"):
        RatedHFChat(str(text_folder))
