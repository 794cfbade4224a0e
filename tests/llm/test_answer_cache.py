import json

import numpy as np
import pytest

from capkit.errors import UsageError
from capkit.llm.base import Answer, Picture
from capkit.llm.cache import AnswerStore, CachedModel, Unparsable, question_key
from capkit.testing.distributed import run_distributed


class Upper:
    """Answers in capitals and remembers what it was asked; `bad` prompts have no answer, `odd` ones an unusable one."""

    def __init__(self, model="upper", bad=(), odd=()):
        self.model, self.bad, self.odd, self.asked = model, set(bad), set(odd), []

    def fingerprint_fields(self):
        return {"model": self.model}

    def complete(self, prompts):
        self.asked += prompts
        return [
            Answer(None, "no answer") if p in self.bad else Answer("?" if p in self.odd else p.upper()) for p in prompts
        ]

    def answer(self, prompts, pictures):
        self.asked += [int(picture.pixels.sum()) for picture in pictures]
        return [Answer(f"{prompt} {picture.pixels.sum()}") for prompt, picture in zip(prompts, pictures, strict=True)]


def parse(text):
    if text == "?":
        raise Unparsable("it is a question mark")
    return text.lower() + "!"


def test_a_second_run_asks_nothing_and_answers_the_same(tmp_path):
    model = Upper()
    first = CachedModel(model, tmp_path, parse).ask(["a", "b", "a"])
    again = CachedModel(Upper(bad=["a", "b"]), tmp_path, parse)
    assert [answer.text for answer in first] == ["a!", "b!", "a!"]
    assert again.ask(["a", "b", "a"]) == first
    assert model.asked == ["a", "b"]
    assert again.counts == {"cached": 3, "asked": 0, "failed": 0}


def test_only_what_is_missing_is_asked_in_order(tmp_path):
    CachedModel(Upper(), tmp_path, parse).ask(["b", "d"])
    model = Upper()
    assert [a.text for a in CachedModel(model, tmp_path, parse).ask(list("abcde"))] == ["a!", "b!", "c!", "d!", "e!"]
    assert model.asked == ["a", "c", "e"]


def test_failed_and_refused_answers_are_not_kept_and_are_asked_again(tmp_path):
    cached = CachedModel(Upper(bad=["a"], odd=["b"]), tmp_path, parse)
    failed, refused, good = cached.ask(["a", "b", "c"])
    assert (failed.text, failed.failure) == (None, "no answer")
    assert (refused.text, refused.said) == (None, "?") and "question mark" in refused.failure
    assert good.text == "c!"
    assert cached.counts == {"cached": 0, "asked": 3, "failed": 2}
    mended = Upper()
    assert [a.text for a in CachedModel(mended, tmp_path, parse).ask(["a", "b", "c"])] == ["a!", "b!", "c!"]
    assert mended.asked == ["a", "b"]


def test_another_model_or_setting_is_another_cache(tmp_path):
    CachedModel(Upper(), tmp_path, parse).ask(["a"])
    other = Upper("upper, temperature 1")
    CachedModel(other, tmp_path, parse).ask(["a"])
    assert other.asked == ["a"]
    assert sorted(json.loads(p.read_text())["model"] for p in tmp_path.glob("*/about.json")) == ["upper", other.model]


def test_pictures_are_told_apart_by_their_pixels_and_shape(tmp_path):
    pictures = [Picture(np.full((2, 3, 3), value, np.uint8)) for value in (1, 2)]
    flat = Picture(np.full((3, 2, 3), 1, np.uint8))
    model = Upper()
    answers = CachedModel(model, tmp_path, str.strip).ask(["see", "see", "see"], [*pictures, flat])
    assert [a.text for a in answers] == ["see 18", "see 36", "see 18"]
    assert model.asked == [18, 36, 18]
    again = Upper()
    copy = Picture(pictures[0].pixels.copy(), {"anything": "else"})
    assert CachedModel(again, tmp_path, str.strip).ask(["see"], [copy])[0].text == "see 18"
    assert again.asked == []
    assert question_key("see") != question_key("see", flat)


@pytest.mark.parametrize("cut", range(2, 26, 4))
def test_a_line_that_a_kill_cut_off_is_lost_and_nothing_else(tmp_path, cut):
    store = AnswerStore(tmp_path, {"model": "m"})
    store.write({"k1": "one", "k2": "two"})
    file = store.folder / "answers.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    found = AnswerStore(tmp_path, {"model": "m"})
    assert found.read(["k1", "k2"]) == {"k1": "one"}
    found.write({"k3": "three\nlines"})
    assert AnswerStore(tmp_path, {"model": "m"}).read(["k1", "k2", "k3"]) == {"k1": "one", "k3": "three\nlines"}
    assert len(found) == 2


def test_one_process_sees_what_another_wrote(tmp_path):
    one, other = AnswerStore(tmp_path, {"model": "m"}), AnswerStore(tmp_path, {"model": "m"})
    one.write({"a": "1"})
    assert other.read(["a", "b"]) == {"a": "1"}
    one.write({"b": "2"})
    assert other.read(["a", "b"]) == {"a": "1", "b": "2"}


def write_many(folder):
    import torch.distributed as dist

    store = AnswerStore(folder, {"model": "m"})
    for i in range(200):
        store.write({f"{dist.get_rank()}-{i}": "x" * (i + 1)})
    return len(store)


@pytest.mark.integration
def test_two_processes_write_at_once_and_nothing_is_lost(tmp_path):
    run_distributed(write_many, 2, str(tmp_path))
    found = AnswerStore(tmp_path, {"model": "m"}).read([f"{rank}-{i}" for rank in range(2) for i in range(200)])
    assert [len(text) for text in found.values()] == [*range(1, 201)] * 2


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cache_dir"):
        AnswerStore(tmp_path / "file", {"model": "m"})
