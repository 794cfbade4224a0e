import warnings
from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from capkit.data.datamodule import CaptionDataModule
from capkit.data.records import Caption, Record
from capkit.data.transforms import ImageTransform
from capkit.sceneworld.language.captions import reference_captions
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import make_scene
from capkit.text.tokenizers import word_tokenizer
from capkit.train.sanity import (
    DataWarning,
    alike,
    cut,
    learned_by_heart,
    sampled_captions,
    unknown,
    warn_of_captions,
    without_spaces,
)
from capkit.utils.quiet import show_once

ORDINARY = [
    ["Two dogs run over a wet beach.", "Dogs playing in shallow water near some rocks"],
    ["A man in a red jacket skis down a snowy slope.", "A skier, mid-turn"],
    ["a plate of food on a wooden table", "Lunch: rice, beans and fried plantains"],
    ["Uma menina de vestido azul brinca no parque.", "Ein Mädchen mit blauem Kleid spielt im Park"],
]
CHINESE = [["盘子放在蓝色的桌子上", "桌上有一个红色的圆盘"], ["图中是一个盘子"]]
THAI = [["แมวสีดำนั่งอยู่บนโต๊ะไม้ข้างหน้าต่าง", "จานสีขาววางอยู่บนโต๊ะ"]]
JAPANESE = [["青いテーブルの上に赤い丸い皿が置いてあります。", "白い猫が窓のそばで眠っています。"]]
LONG = "a plate lies on a table beside a cup and a spoon , " * 3


def words_of(captions):
    return word_tokenizer(text for of_image in captions for text in of_image)


@pytest.fixture(scope="module")
def scenes():
    return [
        [caption.text for caption in reference_captions(make_scene(WorldOptions(), 0, "train", index), "human", None)]
        for index in range(60)
    ]


def problems(captions, max_length=32):
    tokenizer = words_of(captions)
    return [alike(captions), without_spaces(captions, tokenizer), cut(captions, tokenizer, "", max_length)]


def test_ordinary_captions_and_sceneworlds_give_no_warning(scenes):
    assert problems(ORDINARY) == problems(scenes) == [None, None, None]


def test_captions_that_are_all_one_text_are_told():
    told = alike([["A plate on a plain ground"], ["a plate on a plain ground", "a plate on a plain ground"]])
    assert told is not None and "all 3 training captions" in told and "data.train.captions" in told
    assert alike([["a plate"], ["a cup"]]) is None and alike([["a plate"], []]) is None


@pytest.mark.parametrize("captions", [CHINESE, THAI, JAPANESE, CHINESE + ORDINARY[:1]])
def test_a_sentence_without_spaces_that_is_one_word_is_told(captions):
    told = without_spaces(captions, words_of(captions))
    assert told is not None and captions[0][0][:20] in told and "model.tokenizer=" in told


def test_words_that_are_cut_apart_already_and_a_few_foreign_ones_are_fine():
    cut_apart = [["盘子 放在 蓝色 的 桌子 上", "桌 上 有 一个 红色 的 圆盘"]]
    assert without_spaces(cut_apart, words_of(cut_apart)) is None
    mixed = [*ORDINARY, ["a sign that says 盘子放在蓝色的桌子上"]]
    assert without_spaces(mixed, words_of(mixed)) is None


def test_a_tokenizer_of_subwords_reads_text_without_spaces():
    subwords = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    assert without_spaces(CHINESE, subwords) is None


def test_words_that_a_captioner_of_other_captions_cannot_say_are_told():
    tokenizer = words_of([["a dog on a beach", "a cat"]])
    told = unknown([["A dog on a sofa"], ["a sofa"]], tokenizer)
    assert told is not None and told.startswith("2 of 7 words") and "such as 'sofa'" in told and "init_from" in told
    assert unknown([["a dog on a beach with a cat"], ["a cat on a beach"], ["a dog"]], tokenizer) is None  # 1 of 15
    assert unknown([["a sofa"]], PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))) is None
    assert unknown([[]], tokenizer) is None


def test_captions_that_are_cut_are_counted_and_a_length_is_offered():
    captions = [[LONG, LONG], [LONG, "a plate"]]
    told = cut(captions, words_of(captions), "", 32)
    assert told is not None and told.startswith("3 of 4 training captions looked at are longer than data.max_length=32")
    assert "data.max_length=41 holds 95 %" in told  # BOS, 3 x 13 words and marks, EOS
    assert cut(captions, words_of(captions), "", 41) is None
    assert cut([*captions, *ORDINARY, *ORDINARY], words_of([*captions, *ORDINARY]), "", 32) is None  # 3 of 20


class Source:
    def __init__(self, captions):
        self.captions = captions

    def __len__(self):
        return len(self.captions)

    def record(self, index):
        return Record(str(index), None, [Caption(text) for text in self.captions[index]])

    def image(self, index):
        raise AssertionError("no picture is read")


def test_images_are_taken_from_the_whole_split():
    source = Source([[f"caption {index}", " "] for index in range(5000)])
    found = sampled_captions(source, 100)
    assert len(found) == 100 and found[0] == ["caption 0"] and found[-1] == ["caption 4999"]
    assert len(sampled_captions(source, 9000)) == 5000


def warned(captions, monkeypatch, rank=0, **settings):
    monkeypatch.setattr("capkit.train.sanity.rank", lambda: rank)
    data = CaptionDataModule(train=Source(captions), transform=ImageTransform(8), batch_size=1, max_length=32)
    model = SimpleNamespace(tokenizer=words_of(captions), prompt="")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_captions(data, model, **settings)
    assert all(warning.category is DataWarning for warning in caught)
    return len(caught)


def test_each_problem_is_one_warning_of_the_first_rank(monkeypatch):
    assert warned([[LONG], [LONG]], monkeypatch) == 2  # alike, and cut
    assert warned([[LONG], [LONG]], monkeypatch, rank=1) == 0
    assert warned([[LONG], [LONG]], monkeypatch, learns_likelihood=False) == 1
    assert warned(ORDINARY, monkeypatch) == 0


def test_a_warning_is_shown_once_and_as_one_line(capsys):
    for message, category in [("cut", DataWarning), ("cut", DataWarning), ("gone soon", FutureWarning)]:
        show_once(message, category, "a.py", 7)
    assert capsys.readouterr().err == "warning: cut\nFutureWarning: gone soon\n"


def test_a_validation_loss_that_rises_to_the_end_is_told_with_the_step_to_end_at():
    def told(*losses):
        return learned_by_heart([{"step": 450 * (place + 1), "val/loss": loss} for place, loss in enumerate(losses)])

    assert (
        "was 4.8 at step 450 and is 9 at step 1,350" in (message := told(4.8, 7.0, 9.0)) and "max_steps=450" in message
    )
    assert told(4.8, 4.0, 4.3) is None and told(9.0, 4.0) is None and told(4.0) is None
    assert learned_by_heart([{"step": 3, "train/loss": 1.0}]) is None
