import pickle

import pytest
import torch

from capkit.errors import UsageError
from capkit.text.prompt_encoder import LongPrompt, PromptEncoder, give_chat_template, stack_prompts
from capkit.text.tokenizers import tokenizer_from_json, tokenizer_to_json, word_tokenizer

CHAT = (
    "{% for m in messages %}<bos> {{ m['role'] }} : {{ m['content'] }} <eos>{% endfor %}"
    "{% if add_generation_prompt %} bot :{% endif %}"
)


def tokenizer_with(template=None):
    tokenizer = word_tokenizer(["a b c d e f user : bot"])
    tokenizer.chat_template = template
    return tokenizer


def words(tokenizer, ids):
    return " ".join(tokenizer.convert_ids_to_tokens(ids))


def test_a_prompt_is_what_a_chat_model_is_given_for_one_message():
    tokenizer = tokenizer_with(CHAT)
    assert words(tokenizer, PromptEncoder(tokenizer, 20)("a b")) == "<bos> user : a b <eos> bot :"
    assert words(tokenizer, PromptEncoder(tokenizer, 20)(None)) == "<bos>"


def test_without_a_template_the_message_stands_in_front_of_bos_and_the_template_that_is_given_says_the_same():
    tokenizer = tokenizer_with()
    plain = PromptEncoder(tokenizer, 20)("c a b")
    assert words(tokenizer, plain) == "c a b <bos>"
    give_chat_template(tokenizer)
    assert PromptEncoder(tokenizer, 20)("c a b") == plain
    own = tokenizer_with(CHAT)
    give_chat_template(own)
    assert own.chat_template == CHAT


def test_a_template_survives_a_checkpoint_and_a_data_worker():
    tokenizer = tokenizer_from_json(tokenizer_to_json(tokenizer_with(CHAT)))
    assert tokenizer.chat_template == CHAT
    encode = pickle.loads(pickle.dumps(PromptEncoder(tokenizer, 20)))
    assert words(tokenizer, encode("a")) == "<bos> user : a <eos> bot :"
    assert tokenizer_from_json(tokenizer_to_json(tokenizer_with())).chat_template is None


def test_a_long_prompt_is_told_or_loses_its_end_and_nothing_of_the_template():
    tokenizer = tokenizer_with(CHAT)
    assert len(PromptEncoder(tokenizer, 12)("a b c d e f")) == 12
    with pytest.raises(LongPrompt, match=r"a prompt of 12 tokens, more than 9 \(data.max_prompt_tokens\)"):
        PromptEncoder(tokenizer, 9)("a b c d e f")
    cut = PromptEncoder(tokenizer, 9, cut=True)
    assert words(tokenizer, cut("a  b\nc d e f")) == "<bos> user : a b c <eos> bot :"
    assert words(tokenizer, cut("a")) == "<bos> user : a <eos> bot :"
    with pytest.raises(UsageError, match="max_prompt_tokens=6: the chat template alone takes 6 tokens"):
        PromptEncoder(tokenizer, 6, cut=True)("a b")


def test_prompts_are_padded_on_the_left():
    tokens, mask = stack_prompts([[[1, 2, 3], [4]], [[5, 6]]], pad_token_id=0)
    assert tokens.tolist() == [[[1, 2, 3], [0, 0, 4]], [[0, 5, 6], [0, 0, 0]]]
    expected = [[[True] * 3, [False, False, True]], [[False, True, True], [False] * 3]]
    assert torch.equal(mask, torch.tensor(expected))
