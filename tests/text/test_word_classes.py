"""Each token of a caption gets the class of its word, whatever the tokenizer does to it."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from capkit.errors import UsageError
from capkit.text.lexicon_tagger import LexiconTagger
from capkit.text.tokenizers import CaptionEncoder, word_tokenizer
from capkit.text.word_classes import FUNCTION, MODULES, NO_CLASS, WordClasses, words

FN, OBJ, REL, ATTR = range(4)
TEXT = "A red circle is left of two small squares."
TAGS = ("DET", "ADJ", "NOUN", "AUX", "ADV", "ADP", "NUM", "ADJ", "NOUN", "PUNCT")
OF_WORDS = [OBJ, ATTR, OBJ, REL, REL, REL, ATTR, ATTR, OBJ, FN]


def byte_tokenizer():
    """Every byte is a token: each word has as many as letters, and a space in front that belongs to it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def classes(tokenizer, text=TEXT, tags=TAGS, prompt="", max_length=80, **settings):
    encode = CaptionEncoder(tokenizer, prompt, max_length)
    tokens, mask, _ = encode([[text]])
    found = WordClasses(**settings).of_tokens(encode, [[(text, tags, "en")]], tokens.shape[-1])
    return found[0, 0].tolist(), tokens[0, 0].tolist(), mask[0, 0].tolist()


def test_modules_are_in_the_order_of_the_released_programs():
    assert MODULES == ("function", "object", "relation", "attribute") and FUNCTION == 0


def test_each_word_has_the_class_of_its_tag():
    found, *_ = classes(word_tokenizer([TEXT]))
    assert found == [NO_CLASS, *OF_WORDS, FN]  # BOS, the words and the mark, EOS


def test_determiners_are_objects_as_published_and_functions_in_the_other_file():
    found, *_ = classes(word_tokenizer([TEXT]), classes="determiners_apart")
    assert found == [NO_CLASS, FN, *OF_WORDS[1:], FN]


def test_words_that_the_tokenizer_does_not_know_keep_their_places():
    known = word_tokenizer(["a circle is of squares."])
    found, tokens, _ = classes(known)
    assert tokens.count(known.unk_token_id) == 4 and found == [NO_CLASS, *OF_WORDS, FN]


def test_every_byte_of_a_word_has_its_class():
    found, tokens, _ = classes(byte_tokenizer())
    expected = [NO_CLASS]
    for place, word in enumerate(TEXT[:-1].split()):
        expected += [OF_WORDS[place]] * (len(word) + (place > 0))  # the space in front too
    assert found == [*expected, FN, FN] and len(tokens) == len(found)


def test_accents_of_several_bytes_belong_to_their_word():
    found, *_ = classes(byte_tokenizer(), "um círculo é azul", ("DET", "NOUN", "AUX", "ADJ"))
    assert found == [NO_CLASS, *[OBJ] * 2, *[OBJ] * 9, *[REL] * 3, *[ATTR] * 5, FN]


def test_a_prompt_and_padding_have_no_class_and_a_long_caption_is_cut():
    tokenizer = word_tokenizer(["picture of", TEXT])
    found, *_ = classes(tokenizer, prompt="picture of")
    assert found == [NO_CLASS] * 3 + OF_WORDS + [FN]
    found, _, mask = classes(tokenizer, max_length=6)
    assert found == [NO_CLASS, *OF_WORDS[:5]] and all(mask)
    encode = CaptionEncoder(tokenizer, "", 80)
    both = WordClasses().of_tokens(encode, [[(TEXT, TAGS, "en"), ("a circle", ("DET", "NOUN"), "en")]], 12)
    assert both[0, 1].tolist() == [NO_CLASS, OBJ, OBJ, FN] + [NO_CLASS] * 8 and both.dtype == torch.int64


def test_tags_of_no_class_are_functions_with_a_warning():
    with pytest.warns(UserWarning, match="count as functions: ODD"):
        found, *_ = classes(word_tokenizer(["red circle"]), "red circle", ("ODD", "NOUN"))
    assert found == [NO_CLASS, FN, OBJ, FN]


def test_a_tagger_tags_captions_without_tags(tmp_path):
    assert words(TEXT)[-2:] == ["squares", "."]
    file = tmp_path / "words.csv"
    file.write_text("a,DET\nred,ADJ\ncircle,NOUN\n")
    tagger = LexiconTagger(str(file))
    found, *_ = classes(word_tokenizer(["a red circle"]), "A red circle", None, tagger=tagger)
    assert found == [NO_CLASS, OBJ, ATTR, OBJ, FN]


def test_classes_that_are_kept_are_those_of_the_tokenizer_at_hand():
    known = WordClasses()
    for tokenizer in (word_tokenizer([TEXT]), byte_tokenizer()):
        encode = CaptionEncoder(tokenizer, "", 80)
        tokens, *_ = encode([[TEXT]])
        found = known.of_tokens(encode, [[(TEXT, TAGS, "en")]], tokens.shape[-1])
        assert found.equal(WordClasses().of_tokens(encode, [[(TEXT, TAGS, "en")]], tokens.shape[-1]))


def test_captions_without_tags_or_with_too_few_are_told(tmp_path):
    with pytest.raises(UsageError, match=r"expected captions with tags, got 'A red circle.*step=\[tag_words\]"):
        classes(word_tokenizer([TEXT]), tags=None)
    with pytest.raises(UsageError, match="expected a tag for each of its 10 words and marks, got 2"):
        classes(word_tokenizer([TEXT]), tags=("DET", "NOUN"))
    with pytest.raises(UsageError, match="there is no 'publishd'; did you mean 'published'"):
        WordClasses("publishd")
    (tmp_path / "mine.yaml").write_text("object: [NN]\n")
    with pytest.raises(UsageError, match="expected a list of tags for each of function, object"):
        WordClasses(str(tmp_path / "mine.yaml"))
    (tmp_path / "mine.yaml").write_text("{function: [NN], object: [NN], relation: [], attribute: []}")
    with pytest.raises(UsageError, match="expected each tag once, got 'NN' twice"):
        WordClasses(str(tmp_path / "mine.yaml"))


def test_a_lexicon_tags_by_its_file(tmp_path):
    file = tmp_path / "words.tsv"
    file.write_text("red\tADJ\nCircle,NOUN\n")
    tagger = LexiconTagger(str(file))
    assert tagger.tag(["Red", "circle", "blue"], "en") == ["ADJ", "NOUN", "X"]
    with pytest.raises(UsageError, match="expected language=en, got 'pt'"):
        tagger.tag(["red"], "pt")
    file.write_text("red\tADJ\nred\tNOUN\n")
    with pytest.raises(UsageError, match=r"line 2: expected one tag of each word, got 'ADJ' and 'NOUN' of 'red'"):
        LexiconTagger(str(file))
    file.write_text("red ADJ\n")
    with pytest.raises(UsageError, match="line 1: expected a word, a tab or a comma, and its tag"):
        LexiconTagger(str(file))
