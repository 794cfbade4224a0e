"""Chats about pictures as caption files: LLaVA's JSON and messages, what is left out and what is refused."""

import json
import pickle
import warnings

import pytest

from capkit.data.sources.caption_files import read_captions
from capkit.errors import UsageError


def llava(image="a.jpg", *turns):
    spoken = turns or ("<image>\nDescribe it.", "A dog.")
    who = ("human", "gpt")
    row = {"id": "1", "conversations": [{"from": who[n % 2], "value": text} for n, text in enumerate(spoken)]}
    return row if image is None else {**row, "image": image}


def messages(images=("a.jpg",), content="<image>Describe it."):
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}]
    return {"images": list(images), "messages": [*said, {"role": "assistant", "content": "A dog."}]}


def read(tmp_path, *rows, lines=False):
    path = tmp_path / ("chats.jsonl" if lines else "chats.json")
    path.write_text("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return [
            (row.record.key, row.record.image, [(caption.text, caption.prompt) for caption in row.record.captions])
            for row in read_captions(path)
        ]


@pytest.mark.parametrize("lines", [False, True])
def test_the_first_answer_is_the_caption_and_the_question_its_prompt(tmp_path, lines):
    told = [llava(), llava("north/b.jpg", "What is it?\n<image>", "A <cat>."), messages(["c.jpg"])]
    assert read(tmp_path, *told, lines=lines) == [
        ("a.jpg", "a.jpg", [("A dog.", "Describe it.")]),
        ("north/b.jpg", "north/b.jpg", [("A <cat>.", "What is it?")]),
        ("c.jpg", "c.jpg", [("A dog.", "Describe it.")]),
    ]


def test_one_chat_alone_in_its_file_is_read_and_is_no_coco_file(tmp_path):
    (tmp_path / "one.json").write_text(json.dumps(messages()))
    assert read_captions(tmp_path / "one.json")[0].record.captions[0].text == "A dog."


def test_parts_of_a_message_are_joined_and_a_mark_alone_is_no_prompt(tmp_path):
    parts = [{"type": "image"}, {"type": "text", "text": "Describe"}, {"type": "text", "text": "it."}]
    found = read(tmp_path, messages(content=parts), llava("b.jpg", "<image>", "A cat."))
    assert [captions for *_, captions in found] == [[("A dog.", "Describe it.")], [("A cat.", None)]]


def test_chats_about_one_picture_are_captions_of_one_record(tmp_path):
    ((_, _, captions),) = read(tmp_path, llava(), llava("a.jpg", "<image>How many?", "One."))
    assert captions == [("A dog.", "Describe it."), ("One.", "How many?")]


def test_later_answers_and_chats_without_a_picture_are_left_out_with_one_warning(tmp_path):
    path = tmp_path / "chats.json"
    path.write_text(json.dumps([llava("a.jpg", "<image>?", "A dog.", "And?", "Grass."), llava(None), messages([])]))
    with pytest.warns(UserWarning, match="1 later answers.* and 2 chats without a picture") as told:
        (row,) = read_captions(path)
    assert len(told) == 1 and [caption.text for caption in row.record.captions] == ["A dog."]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (llava("a.jpg", "<image>?"), "expected a question and its answer, got asks"),
        (messages(["a.jpg", "b.jpg"]), "expected one picture, got 2"),
        ({**llava(), "conversations": [{"from": "dog", "value": "x"}]}, "got 'dog'"),
        ({**llava(), "conversations": [{"from": "human"}]}, "value"),
        ({**llava(), "image": 7}, "got 7"),
        ({**llava(), "conversations": []}, "got nothing"),
    ],
)
def test_what_is_no_chat_about_one_picture_is_refused_with_its_place(tmp_path, row, words):
    with pytest.raises(UsageError, match=words) as error:
        read(tmp_path, llava("z.jpg"), row)
    assert "item 1" in str(error.value)


class Trap:
    """A pickle that would write a file as it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["oscar_split_ViT-B_32_train.pkl", "captions.pt"])
def test_a_pickle_is_refused_unread_with_the_way_to_convert_it(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(UsageError, match=r"pickle.*data=coco.*docs/data\.md"):
        read_captions(path)
    assert not (tmp_path / "sprung").exists()


def test_a_chat_has_a_split_and_a_language_and_its_picture_may_be_a_part_of_what_is_said(tmp_path):
    inside = messages([], [{"type": "image", "image": "b.jpg"}, {"type": "text", "text": "Describe it."}])
    rows = [{**llava(), "split": "dev", "language": "pt-BR"}, {**inside, "image": None}]
    (tmp_path / "chats.json").write_text(json.dumps(rows))
    one, two = read_captions(tmp_path / "chats.json")[:2]
    assert (one.split, one.record.captions[0].language) == ("val", "pt-BR")
    assert two.split is None and two.record.image == "b.jpg" and two.record.captions[0].prompt == "Describe it."


@pytest.mark.parametrize("name", ["path", "image", "file_name"])
def test_a_picture_may_be_an_object_with_its_path(tmp_path, name):
    assert read(tmp_path, messages([{"bytes": None, name: "d.jpg"}])) == [
        ("d.jpg", "d.jpg", [("A dog.", "Describe it.")])
    ]


@pytest.mark.parametrize(
    ("picture", "told"),
    [
        ({"bytes": "aGk=", "path": "a.jpg"}, "got its bytes"),
        ({"url": "a"}, "got an object with url"),
        ({}, "with nothing"),
        ({"path": 3}, "expected text"),
    ],
)
def test_a_picture_that_names_no_file_is_refused(tmp_path, picture, told):
    with pytest.raises(UsageError, match=told):
        read(tmp_path, messages([picture]))
