import hashlib

import pytest
import torch
from text_tower_examples import words
from tokenizers import processors
from transformers import BertTokenizerFast

from capkit.errors import UsageError
from capkit.models.dual_encoders.text_towers.tokenize import Characters, HashedWords, Subwords
from capkit.text.tokenizers import split_words


def test_a_word_tokenizer_gives_bos_words_eos():
    tokenizer = words()
    ids = tokenizer.convert_tokens_to_ids
    tokens, mask = Subwords(tokenizer, 8)(["A red star.", "zebra"])
    assert tokens.tolist() == [[1, ids("a"), ids("red"), ids("star"), ids("."), 2], [1, 3, 2, 0, 0, 0]]
    assert mask.tolist() == [[True] * 6, [True] * 3 + [False] * 3]


def test_a_cut_text_keeps_its_eos():
    tokenize = Subwords(words(), 5)
    assert tokenize(["a red star . near"])[0][0].tolist() == [1, *tokenize(["a red star"])[0][0].tolist()[1:4], 2]
    assert tokenize.is_cut(["a red star", "a red star ."]) == [False, True]


def test_a_hub_tokenizer_keeps_its_own_special_tokens(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "star"]))
    tokenizer = BertTokenizerFast(str(tmp_path / "vocab.txt"))
    tokenize = Subwords(tokenizer, 4)
    tokens, mask = tokenize(["a red star", "star"])
    assert tokens.tolist() == [[2, 5, 6, 3], [2, 7, 3, 0]]
    assert mask.tolist() == [[True] * 4, [True] * 3 + [False]]
    assert tokenize.is_cut(["a red star", "a star"]) == [True, False]


def test_eos_counts_as_real_where_padding_has_its_id():
    tokenizer = words()
    tokenizer.pad_token = tokenizer.eos_token
    tokens, mask = Subwords(tokenizer, 8)(["a red star", "a"])
    assert tokens[1].tolist()[2:] == [2, 2, 2]
    assert mask[1].tolist() == [True, True, True, False, False]


def test_padding_to_the_full_length_counts_as_real():
    tokens, mask = Subwords(words(), 9, pad_to_max=True)(["a", "a red star"])
    assert tokens.shape == (2, 9) and mask.all()


def test_a_template_that_adds_tokens_is_used():
    tokenizer = words()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        "$A <eos>", special_tokens=[("<eos>", 2)]
    )
    assert Subwords(tokenizer, 8)(["a"])[0].tolist() == [[*tokenizer("a")["input_ids"]]]
    assert tokenizer("a")["input_ids"][-1] == 2


def test_characters_are_those_of_string_printable_and_zero_is_all_else():
    tokens, mask = Characters(10)(["0a é", "\x0c"])
    assert tokens.tolist() == [[1, 11, 95, 0], [100, 0, 0, 0]]  # "0" is the first of 100, "a" the 11th, " " the 95th
    assert mask.tolist() == [[True] * 4, [True, False, False, False]]


def test_hashed_words_are_equal_for_equal_words_and_apart_for_others():
    tokens, mask = HashedWords(10)(["A star, a moon", "star"])
    assert tokens[0, 0] == tokens[0, 3] and tokens[0, 1] == tokens[1, 0]
    assert len(set(tokens[mask].tolist())) == 4  # a, star, comma, moon
    digest = hashlib.blake2b(b"word\x1fstar", digest_size=8).digest()  # no process's own hash
    assert HashedWords(10)(["star"])[0].item() == int.from_bytes(digest, "little") >> 1


def test_words_are_cut_as_the_word_tokenizer_cuts_them():
    text = "A red-and-blue circle isn't 3.5 large, is it?"
    tokenizer = words()
    pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text.lower())
    assert split_words(text) == [piece for piece, _ in pieces]
    assert split_words("") == []


def test_too_small_a_length_is_a_usage_error():
    with pytest.raises(UsageError, match="3 or more"):
        Subwords(words(), 2)


def test_no_texts_give_no_rows():
    for tokenize in (Subwords(words(), 8), Characters(4), HashedWords(4)):
        tokens, mask = tokenize([])
        assert tokens.shape == mask.shape == (0, 1)
        assert tokens.dtype == torch.int64
