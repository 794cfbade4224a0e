import json
import pickle

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from capkit.errors import UsageError
from capkit.text.tokenizers import (
    complete_special_tokens,
    decode_captions,
    encode_captions,
    load_tokenizer,
    prompt_ids,
    tokenize_as_text,
    tokenizer_from_json,
    tokenizer_to_json,
    word_tokenizer,
)
from capkit.upstream.transformers import decodes_by_backend

CAPTIONS = ["A red circle.", "a red square, left of a circle!", "The t-shirt's 3.5 (big) dots?"]


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_word_ids_are_specials_then_words_by_count_then_spelling():
    tokenizer = word_tokenizer(["b a.", "a c"])
    assert [tokenizer.convert_tokens_to_ids(t) for t in ("<pad>", "<bos>", "<eos>", "<unk>")] == [0, 1, 2, 3]
    assert [tokenizer.convert_tokens_to_ids(t) for t in ("a", ".", "b", "c")] == [4, 5, 6, 7]  # a twice, the rest once
    assert len(tokenizer) == 8


def test_a_caption_that_occurs_twice_counts_twice():
    vocabulary = word_tokenizer(["a", "d c", "d c"]).get_vocab()
    assert [vocabulary[word] for word in ("c", "d", "a")] == [4, 5, 6]


STRANGE = [
    "Cafe\u0301 \u0301lone  two  spaces",  # marks that compose, and one behind a space that does not
    "tab\tnewline\nno-break\u00a0wide\u3000unit\x1fseparator",
    "ΌΣΟΣ ΣΑΣ, İstanbul STRASSE ß",
    "3.5 3. 5 1,000:30 'quoted' don't t-shirt- -x",
    "一只猫。 ❤️‍🔥 emoji",
    "",
    " ",
]


def test_the_vocabulary_is_the_one_that_the_tokenizers_library_trains():
    texts, special = CAPTIONS + STRANGE + STRANGE[:3], ["<pad>", "<bos>", "<eos>", "<unk>"]
    tokenizer = word_tokenizer(texts)
    trained = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    trained.train_from_iterator(texts, trainers.WordLevelTrainer(vocab_size=2**31, special_tokens=special))
    assert tokenizer.backend_tokenizer.to_str() == trained.to_str()


def test_order_of_captions_does_not_change_ids():
    one, other = word_tokenizer(CAPTIONS), word_tokenizer(reversed(CAPTIONS))
    assert one.get_vocab() == other.get_vocab()


def test_words_below_min_count_become_unk():
    tokenizer = word_tokenizer(["a cat", "a dog"], min_count=2)
    assert ids(tokenizer, "a cat") == [tokenizer.convert_tokens_to_ids("a"), tokenizer.unk_token_id]


def test_nothing_to_learn_from_is_a_usage_error():
    with pytest.raises(UsageError, match="min_count=2"):
        word_tokenizer(["a cat"], min_count=2)


@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        ("A red circle.", "a red circle."),
        ("a red  circle , left of a square !", "a red circle, left of a square!"),
        ("don't; the boy's t-shirt", "don't; the boy's t-shirt"),
        ("3.5 m (big) [x] 10:30", "3.5 m (big) [x] 10:30"),
        ('a "stop" sign and "a b"', 'a "stop" sign and "a b"'),
        ("água, coração", "água, coração"),
        ("50% off: yes", "50% off: yes"),
        ("猫 和 狗。", "猫 和 狗 。"),
    ],
)
def test_decoding_joins_punctuation_as_written(text, decoded):
    tokenizer = word_tokenizer([text])
    assert tokenizer.decode(ids(tokenizer, text)) == decoded


def test_tokenizer_survives_json_and_pickle():
    tokenizer = word_tokenizer(CAPTIONS)
    stored = json.loads(json.dumps(tokenizer_to_json(tokenizer)))
    for copy in (tokenizer_from_json(stored), pickle.loads(pickle.dumps(tokenizer))):
        assert copy.get_vocab() == tokenizer.get_vocab()
        assert (copy.pad_token_id, copy.bos_token_id, copy.eos_token_id, copy.unk_token_id) == (0, 1, 2, 3)
        for text in CAPTIONS:
            assert ids(copy, text) == ids(tokenizer, text)
            assert copy.decode(ids(copy, text)) == tokenizer.decode(ids(tokenizer, text)) == text.lower()


def test_tokenizer_saved_in_a_folder_loads_by_path(tmp_path):
    tokenizer = word_tokenizer(CAPTIONS)
    tokenizer.save_pretrained(tmp_path)
    assert ids(load_tokenizer(str(tmp_path)), CAPTIONS[2]) == ids(tokenizer, CAPTIONS[2])


def test_unknown_tokenizer_name_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="tokenizer=word"):
        load_tokenizer(str(tmp_path / "nothing"))


def test_missing_special_tokens_come_from_related_ones():
    tokenizer = word_tokenizer(["a"])
    tokenizer.bos_token = tokenizer.pad_token = None
    complete_special_tokens(tokenizer)
    assert tokenizer.bos_token_id == tokenizer.pad_token_id == tokenizer.eos_token_id == 2


def test_tokenizer_without_any_end_is_a_usage_error():
    tokenizer = word_tokenizer(["a"])
    tokenizer.eos_token = None
    with pytest.raises(UsageError, match="EOS"):
        complete_special_tokens(tokenizer)


def test_captions_become_bos_words_eos_padding():
    tokenizer = word_tokenizer(["a b c"])  # a 4, b 5, c 6
    tokens, mask, prompt_length = encode_captions(tokenizer, [["a b c", "b"], [""]], "", 10)
    assert prompt_length == 1
    assert tokens.tolist() == [[[1, 4, 5, 6, 2], [1, 5, 2, 0, 0]], [[1, 2, 0, 0, 0], [0, 0, 0, 0, 0]]]
    assert mask.tolist() == [
        [[True] * 5, [True, True, True, False, False]],
        [[True, True, False, False, False], [False] * 5],
    ]


def test_cut_caption_has_no_eos_and_one_that_just_fits_has():
    tokenizer = word_tokenizer(["a b c"])
    tokens, mask, _ = encode_captions(tokenizer, [["a b c", "a b"]], "", 4)
    assert tokens.tolist() == [[[1, 4, 5, 6], [1, 4, 5, 2]]]
    assert mask.all()


def test_prompt_follows_bos_and_counts_as_given():
    tokenizer = word_tokenizer(["a photo of b"])
    tokens, mask, prompt_length = encode_captions(tokenizer, [["b"]], "a photo of", 10)
    assert prompt_length == 4
    assert tokens[0, 0].tolist() == [*prompt_ids(tokenizer, "a photo of"), *ids(tokenizer, "b"), 2]
    assert mask.all()


def test_no_room_after_the_prompt_is_a_usage_error():
    tokenizer = word_tokenizer(["a photo of b"])
    with pytest.raises(UsageError, match="4 tokens"):
        encode_captions(tokenizer, [["b"]], "a photo of", 4)


def test_mask_counts_eos_where_pad_is_the_same_token():
    tokenizer = word_tokenizer(["a b c"])
    tokenizer.pad_token = tokenizer.eos_token
    tokens, mask, _ = encode_captions(tokenizer, [["a b c", "a"]], "", 10)
    assert tokens[0, 1].tolist() == [1, 4, 2, 2, 2]
    assert mask[0, 1].tolist() == [True, True, True, False, False]


def test_decoding_leaves_out_prompt_specials_and_padding():
    tokenizer = word_tokenizer(["a photo of b"])
    tokens, mask, prompt_length = encode_captions(tokenizer, [["b b", "a"], ["b"]], "a photo of", 10)
    assert decode_captions(tokenizer, tokens, mask, prompt_length) == [["b b", "a"], ["b", ""]]


def word_piece_tokenizer() -> PreTrainedTokenizerFast:
    """As BERT's: spaces in front of punctuation are cleaned up after decoding."""
    words = ["[UNK]", "[PAD]", "[SEP]", "a", "dog", "##s", ".", "!", "do", "n't"]
    backend = Tokenizer(models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece(cleanup=False)
    names = {"pad_token": "[PAD]", "eos_token": "[SEP]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=True, **names)


class Shouting(PreTrainedTokenizerFast):
    def _decode(self, *args, **kwargs):
        return super()._decode(*args, **kwargs).upper()


DECODERS = {
    "word": (lambda: word_tokenizer(['a dog , ( red ) ! "b" c']), True),
    "bytes": (lambda: byte_tokenizer(), True),  # of random bytes some are no UTF-8
    "pieces": (lambda: piece_tokenizer(), True),
    "spaces cleaned up": (word_piece_tokenizer, False),
    "its own": (lambda: Shouting(tokenizer_object=word_tokenizer(["a b c d"]).backend_tokenizer), False),
}


@pytest.mark.parametrize("kind", DECODERS)
def test_texts_are_those_that_the_tokenizer_decodes_one_by_one(kind):
    make, by_backend = DECODERS[kind]
    tokenizer = make()
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(len(tokenizer), (7, 3, 12), generator=generator)
    mask = torch.rand(tokens.shape, generator=generator) < 0.8
    mask[1, 2] = False  # no caption
    expected = [
        [
            tokenizer.decode(row[real].tolist(), skip_special_tokens=True).strip()
            for row, real in zip(*image, strict=True)
        ]
        for image in zip(tokens[..., 2:], mask[..., 2:], strict=True)
    ]
    assert decode_captions(tokenizer, tokens, mask, 2) == expected
    assert decodes_by_backend(tokenizer) is by_backend
    if not by_backend:  # the backend's own texts differ
        assert tokenizer.backend_tokenizer.decode_batch(tokens[0].tolist()) != tokenizer.batch_decode(tokens[0])


def test_no_captions_give_rows_without_real_tokens():
    tokens, mask, _ = encode_captions(word_tokenizer(["a"]), [[], []], "", 10)
    assert tokens.shape[:2] == (2, 0)
    assert not mask.any()
    assert tokens.dtype == torch.int64


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """As GPT-2's: bytes, and <|endoftext|> as an added token."""
    vocabulary = {character: n for n, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=end, eos_token=end, pad_token=end)


def piece_tokenizer() -> PreTrainedTokenizerFast:
    """As T5's: a model of pieces, of which "</s>" is one, and a call that adds it."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((c, -3.0) for c in "▁abcdefghijklmnopqrstuvwxyz</>")]
    backend = Tokenizer(models.Unigram(pieces, unk_id=2))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", special_tokens=[("</s>", 1)])
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


SPELLED = {
    "word": (lambda: word_tokenizer(["a plate <eos> on ground <pad>"]), "a plate <eos> on <pad> ground"),
    "bytes": (byte_tokenizer, "a plate <|endoftext|> one red plate"),
    "pieces": (piece_tokenizer, "a plate </s> on <pad> ground</s>"),
}


@pytest.mark.parametrize("kind", SPELLED)
def test_special_tokens_that_a_caption_spells_out_are_text(kind):
    make, text = SPELLED[kind]
    tokenizer = complete_special_tokens(make())
    tokens, mask, length = encode_captions(tokenizer, [[text]], "", max_length=100)
    inner = tokens[0, 0, length:-1].tolist()
    assert mask.all() and tokens[0, 0, -1] == tokenizer.eos_token_id
    assert not {*inner} & {*tokenizer.all_special_ids}
    (decoded,) = decode_captions(tokenizer, tokens, mask, length)[0]
    assert decoded.replace(" ", "").lower() == text.replace(" ", "").lower()
    assert tokenize_as_text(tokenizer, [decoded], add_special_tokens=False)["input_ids"] == [inner]
    if kind == "bytes":
        assert decoded == text


def test_special_tokens_of_the_call_itself_stay_and_pairs_are_read():
    tokenizer = piece_tokenizer()
    (row,) = tokenize_as_text(tokenizer, ["a </s> b"], ["</s>"])["input_ids"]
    assert [n for n, token in enumerate(row) if token == 1] == [row.index(1), len(row) - 1]
