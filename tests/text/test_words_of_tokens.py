"""Which tokens write which word: of word, WordPiece and byte-level tokenizers."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from capkit.text.tokenizers import word_tokenizer
from capkit.text.words_of_tokens import words_of_tokens


def byte_level(texts, size=300):
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet))
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")


def word_pieces():
    pieces = ["[UNK]", "[SEP]", "um", "cora", "##ção", "ver", "##mel", "##ho", ",", "guarda", "-", "chuva"]
    backend = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", eos_token="[SEP]")


def test_each_word_is_its_token_and_punctuation_none():
    tokenizer = word_tokenizer(["a red circle , left of a star ."])
    ids = tokenizer("a red circle, left of a star.")["input_ids"]
    assert words_of_tokens(tokenizer, [*ids, tokenizer.eos_token_id]) == [
        ("a", [0]), ("red", [1]), ("circle", [2]), ("left", [4]), ("of", [5]), ("a", [6]), ("star", [7]),
    ]  # fmt: skip


def test_a_word_has_all_of_its_pieces():
    tokenizer = word_pieces()
    ids = tokenizer("um coração vermelho, guarda-chuva")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids)[-3:] == ["guarda", "-", "chuva"]
    found = words_of_tokens(tokenizer, ids)
    assert found[:3] == [("um", [0]), ("coração", [1, 2]), ("vermelho", [3, 4, 5])]
    assert [places for _, places in found[3:]] in ([[7], [9]], [[7, 8, 9]])  # decoded "guarda - chuva" or joined


@pytest.mark.parametrize("text", ["um coração é vermelho", "cora\u00e7a\u0303o", "maçã"])
def test_bytes_of_one_letter_belong_to_its_word(text):
    tokenizer = byte_level(["um coração"], size=256)  # no merges: a token is a byte
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text.encode())
    found = words_of_tokens(tokenizer, ids)
    assert [word for word, _ in found] == text.split()
    begin = 0
    for word, places in found:
        assert places == list(range(begin, begin + len(word.encode())))
        begin = places[-1] + 2


def test_a_token_of_a_space_and_a_word_belongs_to_the_word_alone():
    tokenizer = byte_level(["a red circle"] * 50, size=400)
    ids = tokenizer("a red circle")["input_ids"]
    assert words_of_tokens(tokenizer, ids) == [("a", [0]), ("red", [1]), ("circle", [2])]


def test_nothing_is_no_word():
    assert words_of_tokens(word_tokenizer(["a b"]), []) == []
