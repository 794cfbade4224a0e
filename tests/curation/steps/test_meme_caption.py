import numpy as np
import pytest

from capkit.curation.steps.meme_caption import MemeCaption
from capkit.data.images import BadImage
from capkit.data.records import Caption, Record, Region
from capkit.errors import UsageError
from capkit.llm.base import Answer
from capkit.sceneworld.chat.sections import sections

SOURCE = "memecaption/meme_v1/parrot"
RECORDS = [
    Record("0", captions=[Caption("a dog", "ivl")], regions=[Region((0.1, 0.25, 0.5, 1.0), "dog")],
           metadata={"text": "so it goes", "label": 1}),
    Record("1", regions=[Region((0.0, 0.0, 1.0, 1.0), "cat"), Region((0.5, 0.5, 0.75, 0.999), "red mat")],
           metadata={"text": "hateful words", "label": 0}),
    Record("2", metadata={"label": 1}),
]  # fmt: skip


class Parrot:
    """Says what it was told; refuses hateful words."""

    def __init__(self):
        self.asked = []

    def about(self):
        return {"model": "parrot"}

    def ask(self, questions):
        prompts = [question.text for question in questions]
        pairs = [(question.text, *question.pictures) for question in questions]
        self.asked += [(sections(prompt), int(picture.pixels[0, 0, 0])) for prompt, picture in pairs]
        return [
            Answer(None, "refused", "I cannot help with that.") if "hateful" in prompt
            else Answer(f"{sections(prompt)['text']} / {sections(prompt)['boxes']}")
            for prompt in prompts
        ]  # fmt: skip


def read(key):
    return np.full((4, 4, 3), int(key), np.uint8)


def captioned(folder, chat=None, given=RECORDS, read=read, **settings):
    failures, chat = [], chat or Parrot()
    step = MemeCaption(chat, cache_dir=str(folder), **settings)
    step.attach_failures(failures.append)
    step.attach_images(read)
    return list(step(lambda: given)), failures, chat


def test_the_model_gets_the_picture_its_text_and_each_box_in_percent(tmp_path):
    _, _, chat = captioned(tmp_path)
    assert chat.asked == [
        ({"text": "so it goes", "boxes": "dog: 10 25 50 100"}, 0),
        ({"text": "hateful words", "boxes": "cat: 0 0 100 100\nred mat: 50 50 75 100"}, 1),
        ({"text": "(not known)", "boxes": "(none found)"}, 2),
    ]


def test_the_answer_is_one_more_candidate_and_the_rest_of_the_record_stays(tmp_path):
    (first, _, _), _, _ = captioned(tmp_path)
    assert first.captions == [Caption("a dog", "ivl"), Caption("so it goes / dog: 10 25 50 100", SOURCE)]
    assert first.metadata == {"text": "so it goes", "label": 1, "candidates": ["ivl", SOURCE]}
    assert first.regions == RECORDS[0].regions
    (first, _, _), _, _ = captioned(tmp_path, keep=False)
    assert first.metadata["candidates"] == [SOURCE] and len(first.captions) == 1


def test_a_refusal_is_an_empty_candidate_and_is_listed(tmp_path):
    records, failures, _ = captioned(tmp_path)
    assert [record.key for record in records] == ["0", "1", "2"]
    assert records[1].captions == [Caption("", SOURCE)]
    assert [(f.key, f.step, f.reason, f.said) for f in failures] == [
        ("1", "meme_caption", "refused", "I cannot help with that."),
    ]  # fmt: skip


def test_an_unreadable_picture_leaves_the_meme_out(tmp_path):
    def read_all_but_one(key):
        if key == "2":
            raise BadImage("no such file")
        return read(key)

    records, failures, _ = captioned(tmp_path, read=read_all_but_one)
    assert [record.key for record in records] == ["0", "1"]
    assert ("2", "picture: no such file") in [(f.key, f.reason) for f in failures]


def test_a_second_run_asks_for_what_is_missing_alone(tmp_path):
    captioned(tmp_path)
    _, _, again = captioned(tmp_path)
    assert [asked["text"] for asked, _ in again.asked] == ["hateful words"]
    moved = [Record("0", regions=[Region((0.0, 0.0, 1.0, 1.0), "dog")], metadata=RECORDS[0].metadata)]
    assert len(captioned(tmp_path, given=moved)[2].asked) == 1, "other boxes are another question"


def test_it_wants_a_model_that_sees_and_pictures(tmp_path):
    with pytest.raises(UsageError, match="vision_chat=hf, server or scene"):
        MemeCaption()
    with pytest.raises(UsageError, match="attach_images"):
        list(MemeCaption(Parrot(), cache_dir=str(tmp_path))(lambda: RECORDS))
