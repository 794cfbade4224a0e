"""Readings by a tiny Llama, against a loop that runs each prompt by itself."""

import json

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
)

from capkit.errors import UsageError
from capkit.llm.cache import AnswerStore
from capkit.llm.huggingface import loaded
from capkit.llm.prompts import Prompt
from capkit.readers.base import LETTERS, SYSTEM, ChoiceQuestion, Reader, lettered
from capkit.readers.hf import HFReader, mean_logprob
from capkit.readers.shared_reading import last_logits

TEXTS = ["a red circle", "", "a large blue square to the left of a small star, and nothing else is there to be seen"]
QUESTIONS = [
    [
        ChoiceQuestion("what color is the circle?", ("red", "blue", "light green"), None),
        ChoiceQuestion("how many?", ("one", "two")),
        ChoiceQuestion(
            "what is there to be seen in the picture?", ("a star", "none of these", "a very large circle", "x")
        ),
    ],
    [ChoiceQuestion("how many?", ("two", "one"))],
    [
        ChoiceQuestion("what color is the circle?", ("red", "blue", "light green")),
        ChoiceQuestion("is it?", ("yes", "no")),
    ],
]
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def byte_tokenizer(template=None):
    """One token for each byte, so that whatever is written counts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(["</s>", *alphabet])}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>")
    made.chat_template = template
    return made


@pytest.fixture(scope="module", params=[None, TEMPLATE], ids=["plain", "chat"])
def folder(request, tmp_path_factory):
    tokenizer, place = byte_tokenizer(request.param), tmp_path_factory.mktemp("reader")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=700, initializer_range=0.3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(place)
    tokenizer.save_pretrained(place)
    yield str(place)
    loaded.cache_clear()


def written(tokenizer, name, system, **values):
    text = Prompt(name, list(values)).fill(**values)
    if tokenizer.chat_template is None:
        return f"{system}\n\n{text}" if system else text
    chat = [{"role": "system", "content": system}] * bool(system) + [{"role": "user", "content": text}]
    return tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)


@torch.no_grad()
def naive(folder, form, text, question):
    """The probabilities of one question, each prompt run whole and alone."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    space = "" if tokenizer.chat_template else " "

    def ids(words):
        return tokenizer(words, add_special_tokens=False)["input_ids"]

    if form == "letter":
        options = lettered(question.choices)
        prompt = written(tokenizer, "read_letter_v1", SYSTEM, caption=text, question=question.text, options=options)
        if space:  # the space is a token of its own here, and letters come behind it
            pytest.skip("a byte tokenizer without template has no one token of space and letter")
        logprobs = model(torch.tensor([ids(prompt)])).logits[0, -1].log_softmax(-1)
        scores = torch.stack([logprobs[ids(letter)[0]] for letter in LETTERS[: len(question.choices)]])
    else:
        stem = written(tokenizer, "read_cloze_v1", None, caption=text, question=question.text)
        scores = []
        for choice in question.choices:
            tokens, start = ids(stem + space + choice), len(ids(stem))
            logprobs = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
            scores.append(sum(logprobs[at - 1, tokens[at]] for at in range(start, len(tokens))) / (len(tokens) - start))
        scores = torch.stack(scores)
    return scores.double().softmax(0)


@pytest.mark.parametrize("form", ["letter", "cloze"])
@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_shared_reading_gives_what_one_by_one_gives(folder, tmp_path, form, batch_size):
    expected = [[naive(folder, form, t, q) for q in asked] for t, asked in zip(TEXTS, QUESTIONS, strict=True)]
    reader = HFReader(folder, form, batch_size=batch_size, cache_dir=str(tmp_path))
    assert isinstance(reader, Reader)
    found = reader.read(TEXTS, QUESTIONS)
    for row, wanted in zip(found, expected, strict=True):
        for reading, probabilities in zip(row, wanted, strict=True):
            assert torch.tensor(reading.probabilities, dtype=torch.float64) == pytest.approx(probabilities, abs=1e-5)
            assert reading.choice == int(probabilities.argmax())


def test_what_questions_share_is_run_once(folder):
    """Rows: each member's length, less what all begin with; the rest of a group's members is one pass of few tokens."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    given = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: given.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    shared = list(range(1, 41))
    groups = [[[*shared, 50, 51], [*shared, 60]], [[*shared[:-1], 70, 71, 72]], []]
    found = {(row, member): logits for row, member, logits in last_logits(model, groups, [[1, 1], [2], []], 8)}
    # 40 tokens of the first group; of a single sequence all but the two whose logits are wanted: 40 too
    assert given == [(2, 40), (3, 2)]
    with torch.no_grad():
        for (row, member), logits in found.items():
            alone = model(input_ids=torch.tensor([groups[row][member]])).logits[0, -len(logits) :]
            assert torch.allclose(logits, alone, atol=1e-5)
    assert len(found[1, 0]) == 2 and len(found) == 3


def test_what_was_read_is_kept_and_not_read_again(folder, tmp_path, monkeypatch):
    first = HFReader(folder, "cloze", cache_dir=str(tmp_path)).read(TEXTS, QUESTIONS)
    again = HFReader(folder, "cloze", cache_dir=str(tmp_path))
    monkeypatch.setattr(again, "_model", lambda: pytest.fail("read again"))
    assert again.read(TEXTS, QUESTIONS) == first
    assert len(AnswerStore(tmp_path, again.about())) == 6  # six different questions of texts; "how many?" twice


def test_equal_questions_of_a_text_are_read_once_and_a_long_prompt_is_a_failure(folder, tmp_path):
    reader = HFReader(folder, "cloze", cache_dir=str(tmp_path))
    question = ChoiceQuestion("how many?", ("one", "two"))
    (same, other), (too_long,) = reader.read(["a", "b " * 400], [[question, question], [question]])
    assert same == other and same.choice is not None
    assert too_long.choice is None and "tokens, more than the model's 700" in too_long.failure


def test_mean_logprob_by_hand():
    logits = torch.tensor([[0.0, 0.0], [0.0, torch.tensor(3.0).log()]])  # p(1) = 1/2, then 3/4
    assert mean_logprob(logits, [1, 1]) == pytest.approx((torch.tensor([0.5, 0.75]).log().mean()).item())


def test_a_form_that_the_tokenizer_cannot_do_and_a_model_that_is_no_causal_one_are_told(folder, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.chat_template is None:  # " A" are two bytes
        with pytest.raises(UsageError, match=r"form=letter needs .* one token .* has 2 for 'A'; use form=cloze"):
            HFReader(folder, "letter", cache_dir=str(tmp_path))
        with pytest.raises(UsageError, match="chat=true needs a chat template"):
            HFReader(folder, "cloze", chat=True, cache_dir=str(tmp_path))
    T5Config(vocab_size=len(tokenizer)).save_pretrained(tmp_path / "t5")
    with pytest.raises(UsageError, match=r"needs a causal language model.*is seq2seq"):
        HFReader(str(tmp_path / "t5"), cache_dir=str(tmp_path))
    BertConfig(vocab_size=len(tokenizer)).save_pretrained(tmp_path / "bert")  # loads as BertLMHeadModel all the same
    with pytest.raises(UsageError, match=r"needs a causal language model.*is encoder"):
        HFReader(str(tmp_path / "bert"), cache_dir=str(tmp_path))
    reader = HFReader(folder, "cloze", cache_dir=str(tmp_path))
    with pytest.raises(UsageError, match=r"expected 2 to 26 choices \(one letter each\), got 27"):
        reader.read(["a"], [[ChoiceQuestion("q", tuple(map(str, range(27))))]])


def test_a_number_is_quoted_with_its_form_and_prompt(folder, tmp_path):
    about = HFReader(folder, "cloze", cache_dir=str(tmp_path)).about()
    assert about["form"] == "cloze" and about["prompt"]["name"] == "read_cloze_v1" and len(about["revision"]) == 32
    assert json.dumps(about)
