"""Ids of captions put together from words that were met before are the tokenizer's own."""

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import CLIPTokenizer, PreTrainedTokenizerFast

from capkit.text.caption_ids import CaptionIds
from capkit.text.tokenizers import tokenize_as_text, word_tokenizer

TEXTS = [
    "a red circle", "A  red\tcircle.", " it 's the dog's bowl, isn't it?", "", " ", "naïve café Ångström",
    "<|endoftext|> a dog </s> <eos>", "3.5 x 10,000 red-haired dogs…", "emoji 🙂🙂 and\u00a0a no-break space",
    "a\u0301 b \u0301c", "日本 語", "one two three four five six seven eight nine ten eleven twelve", "x" * 90,
]  # fmt: skip


def clip():
    """CLIP's tokenizer with bytes and a few merges as its vocabulary."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("r", "e"), ("re", "d</w>"), ("d", "o"), ("do", "g</w>"), ("a", "n")]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, merges=merges)


def bert():
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *"abcdefghinorst",
        *(f"##{x}" for x in "abcdefghinorst"),
        "red",
        "dog",
    ]
    core = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]"))
    core.normalizer, core.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    core.post_processor = TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]")


def words():
    return word_tokenizer(TEXTS)


def byte_level():
    """GPT-2's way: a space belongs to the word behind it."""
    core = Tokenizer(models.BPE({x: n for n, x in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="!")


@pytest.mark.parametrize("max_length", [5, 77])
@pytest.mark.parametrize(("build", "at_spaces"), [(clip, True), (bert, True), (words, True), (byte_level, False)])
def test_ids_are_the_tokenizers_own(build, at_spaces, max_length):
    ids = CaptionIds(build())
    assert ids.splits_at_spaces == at_spaces
    wanted = tokenize_as_text(build(), TEXTS, truncation=True, max_length=max_length)["input_ids"]
    for _ in range(2):  # new words, and known ones
        assert ids(TEXTS, max_length) == wanted
    assert ids(TEXTS[::-1], max_length) == wanted[::-1]


def test_known_words_are_not_tokenised_again():
    tokenizer, asked = words(), []

    class Counting:
        def __getattr__(self, name):
            return getattr(tokenizer, name)

        def __call__(self, texts, **settings):
            asked.append(texts)
            return tokenizer(texts, **settings)

    ids = CaptionIds(Counting())
    ids(["a red circle", "a red dog"], 9)
    ids(["a dog", "circle dog"], 9)
    assert asked[-1] == ["a", "red", "circle", "dog"]


def test_a_tokenizer_with_added_words_is_asked_itself():
    """An added token may hold a space, or eat one."""
    tokenizer = words()
    tokenizer.add_tokens(["red circle"])
    ids = CaptionIds(tokenizer)
    assert not ids.splits_at_spaces
    assert ids(["a red circle"], 9) == tokenizer(["a red circle"], split_special_tokens=True)["input_ids"]
