import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from capkit.errors import UsageError
from capkit.llm.base import Answer, Picture, Question
from capkit.llm.cache import FLUSH_COUNT, AnswerStore, question_key
from capkit.testing.distributed import run_distributed
from capkit.utils.store import digest


@pytest.mark.parametrize("cut", range(2, 26, 4))
def test_a_line_that_a_kill_cut_off_is_lost_and_nothing_else(tmp_path, cut):
    store = AnswerStore(tmp_path, {"model": "m"})
    store.add("k1", Answer("one"))
    store.add("k2", Answer("two"))
    file = store.folder / "answers.jsonl"
    os.truncate(file, file.stat().st_size - cut)
    found = AnswerStore(tmp_path, {"model": "m"})
    assert found.read(["k1", "k2"]) == {"k1": Answer("one")}
    found.add("k3", Answer("three\nlines"))
    again = AnswerStore(tmp_path, {"model": "m"}).read(["k1", "k2", "k3"])
    assert again == {"k1": Answer("one"), "k3": Answer("three\nlines")}
    assert len(found) == 2


def test_one_process_sees_what_another_wrote(tmp_path):
    one, other = AnswerStore(tmp_path, {"model": "m"}), AnswerStore(tmp_path, {"model": "m"})
    one.add("a", Answer("1"))
    assert other.read(["a", "b"]) == {"a": Answer("1")}
    one.add("b", Answer("2", tokens_in=3, tokens_out=1))
    assert other.get("b") == Answer("2", tokens_in=3, tokens_out=1)
    assert other.read(["a", "b"]) == {"a": Answer("1"), "b": Answer("2", tokens_in=3, tokens_out=1)}


def test_a_refused_reply_is_kept_with_what_was_said(tmp_path):
    store = AnswerStore(tmp_path, {"model": "m"})
    store.add("a", refused := Answer(None, "cut off", "half a"))
    assert store.get("a") == refused and len(store) == 1
    assert AnswerStore(tmp_path, {"model": "m"}).get("a") == refused


def test_each_answer_is_written_at_once_and_on_disk_with_a_hundred_others_or_after_a_while(tmp_path, monkeypatch):
    """Written is what survives kill -9, on disk (fsync) what survives a crash of the machine."""
    on_disk = []
    store, other = AnswerStore(tmp_path, {"model": "m"}), AnswerStore(tmp_path, {"model": "m"})
    monkeypatch.setattr("capkit.llm.cache.os.fsync", lambda file: on_disk.append(len(other)))
    monkeypatch.setattr("capkit.llm.cache.FLUSH_S", 1000.0)
    for i in range(2 * FLUSH_COUNT - 1):
        store.add(str(i), Answer("x"))
        assert len(other) == i + 1
    assert on_disk == [FLUSH_COUNT]
    store.flush()
    store.flush()
    assert on_disk == [FLUSH_COUNT, 2 * FLUSH_COUNT - 1]
    monkeypatch.setattr("capkit.llm.cache.FLUSH_S", 0.01)
    store.add("one more", Answer("x"))
    store._timer.join(30)
    assert on_disk[2:] == [2 * FLUSH_COUNT]


def test_many_are_written_at_once_and_the_words_of_a_question_lie_beside_its_answer(tmp_path):
    store = AnswerStore(tmp_path, {"model": "m"})
    store.write({"a": Answer("1"), "b": Answer("2")})
    store.add("c", Answer("3"), Question("what", system="Be brief."))
    store.add("d", Answer("4"), Question("what else"))
    rows = [json.loads(line) for line in (store.folder / "answers.jsonl").read_text().splitlines()]
    assert rows == [
        {"key": "a", "text": "1"}, {"key": "b", "text": "2"},
        {"key": "c", "text": "3", "question": "what", "system": "Be brief."},
        {"key": "d", "text": "4", "question": "what else"},
    ]  # fmt: skip
    assert [store.get(key).text for key in "abcd"] == ["1", "2", "3", "4"]


def test_threads_share_a_store(tmp_path):
    store = AnswerStore(tmp_path, {"model": "m"})
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: store.add(str(i), Answer(str(i) * 50)), range(300)))
        found = list(pool.map(lambda i: store.get(str(i)), range(300)))
    assert found == [Answer(str(i) * 50) for i in range(300)]


def test_keys_tell_all_of_a_question_apart_and_are_those_of_version_0_1_where_they_can_be():
    picture, other = (Picture(np.full((2, 3, 3), value, np.uint8)) for value in (1, 2))
    questions = [
        Question("see"), Question("see", system=""), Question("see", system="Be brief."), Question("see", sample=1),
        Question("see", schema={"type": "object"}), Question("see", (picture,)), Question("see", (other,)),
        Question("see", (picture, other)), Question("see", (other, picture)), Question("see", (picture,), sample=1),
        Question("see", (Picture(picture.pixels.reshape(3, 2, 3)),)),
    ]  # fmt: skip
    assert len({question_key(question) for question in questions}) == len(questions)
    pixels = picture.pixels
    assert question_key(questions[0]) == digest(b"see").hex()
    assert question_key(questions[5]) == digest(b"see", repr(pixels.shape).encode(), pixels.tobytes()).hex()
    copy = Picture(pixels.copy(), {"anything": "else"})
    assert question_key(Question("see", (copy,))) == question_key(questions[5])


def write_many(folder):
    import torch.distributed as dist

    store = AnswerStore(folder, {"model": "m"})
    for i in range(200):
        store.add(f"{dist.get_rank()}-{i}", Answer("x" * (i + 1)))
    return len(store)


@pytest.mark.integration
def test_two_processes_write_at_once_and_nothing_is_lost(tmp_path):
    run_distributed(write_many, 2, str(tmp_path))
    found = AnswerStore(tmp_path, {"model": "m"}).read([f"{rank}-{i}" for rank in range(2) for i in range(200)])
    assert [len(answer.text) for answer in found.values()] == [*range(1, 201)] * 2


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cache_dir"):
        AnswerStore(tmp_path / "file", {"model": "m"})
