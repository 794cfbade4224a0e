import json
import os

import pytest

from capkit.errors import UsageError
from capkit.utils.text_files import (
    existing_file,
    file_name,
    member,
    parse_json,
    read_json,
    read_json_or_lines,
    read_text,
    split_name,
)


def test_byte_order_mark_and_line_ends_of_any_system_are_read(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffé\r\nb\rc\n".encode())
    assert read_text(tmp_path / "a.txt", "captions") == "é\nb\nc\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\nb caf\xe9\n", "line 2: not UTF-8, got byte 0xe9; save the file as UTF-8"),
        ("a\n".encode("utf-16"), "line 1: not UTF-8, got UTF-16"),
    ],
)
def test_text_that_is_not_utf8_is_told_with_its_line(tmp_path, content, message):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_text(tmp_path / "a.txt", "captions")
    assert f"{tmp_path / 'a.txt'} {message}" in str(caught.value)


@pytest.mark.parametrize("name", ["none.json", ".", "a\0b", "x" * 300])
def test_what_is_no_regular_file_is_never_opened(tmp_path, name):
    with pytest.raises(UsageError, match=r"captions: (no file|expected a regular file)"):
        read_text(str(tmp_path) + "/" + name, "captions")


def test_a_pipe_is_refused_and_not_waited_on(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="expected a regular file"):
        existing_file(tmp_path / "pipe", "captions")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "b": 2, "a": 3}', "f.json: the key 'a' stands twice in one object; keep one"),
        ('[{"x": {"id": 1, "id": 1}}]', "f.json: the key 'id' stands twice"),
        ("[" * 100_000 + "]" * 100_000, "f.json: lists or objects are nested too deep"),
        ('{"a": ' * 100_000 + "1" + "}" * 100_000, "f.json: lists or objects are nested too deep"),
        ("[1" + "0" * 5000 + "]", "f.json: a whole number of more than 4,300 digits"),
        ('{\n"a" 1}', "f.json line 2: not JSON (Expecting ':' delimiter at column 5)"),
        ("{'a': 1}", "f.json: not JSON (Expecting property name"),
        (" \n", "f.json line 2: not JSON (it is empty)"),
    ],
    ids=["key twice", "key twice inside", "deep lists", "deep objects", "digits", "not JSON", "Python", "empty"],
)
def test_json_that_cannot_be_read_faithfully_is_a_usage_error(text, message):
    with pytest.raises(UsageError) as caught:
        parse_json(text, "f.json")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", ["c.json", "c.jsonl", "predictions"])
def test_content_and_not_the_name_decides_between_json_and_lines(tmp_path, name):
    file = tmp_path / name
    file.write_text('{"a": 1}\n\n{"a": 2}\n', encoding="utf-8-sig")
    assert read_json_or_lines(file, "captions") == [(f"{file} line 1", {"a": 1}), (f"{file} line 3", {"a": 2})]
    for text in ('{"a": [1,\n 2]}', '[\n{"a": 1}\n]', "[1]\n"):
        if name != "c.jsonl":
            file.write_text(text)
            assert read_json_or_lines(file, "captions") == [(str(file), json.loads(text))]
    file.write_text("[1]\n")
    assert [value for _, value in read_json_or_lines(file, "captions")] == [read_json(file, "captions")] == [[1]]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.json", '{"a": 1}\n{"a": 2, "a": 3}\n', "c.json line 2: the key 'a' stands twice"),
        ("c.json", '{"a": 1}\n{"a": 2\n', "c.json line 2: not JSON"),
        ("c.json", '{"a": 1,\n"b": 2 3}\n', "c.json line 2: not JSON (Expecting ',' delimiter at column 8)"),
        ("c.jsonl", '{"a": \n{"a": 2}\n', "c.jsonl line 1: not JSON"),
        ("c.jsonl", "{\n", "c.jsonl line 1: not JSON"),
        ("c.jsonl", "1\n" + "[" * 100_000, "c.jsonl line 2: lists or objects are nested too deep"),
    ],
)
def test_errors_in_json_lines_name_the_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError) as caught:
        read_json_or_lines(tmp_path / name, "captions")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("spelling", "split"),
    [
        ("train", "train"),
        ("Train", "train"),
        (" TEST ", "test"),
        ("dev", "val"),
        ("Valid", "val"),
        ("validation", "val"),
    ],
)
def test_split_names_of_all_usual_spellings_are_the_three(spelling, split):
    assert split_name(spelling, "f line 1") == split


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: split_name("dev2", "f line 1"), "f line 1: split 'dev2' is unknown; use train, val or test"),
        (lambda: split_name(3, "f line 1"), "f line 1: expected text as 'split', got 3"),
        (lambda: file_name("a\0.jpg", "f line 1"), r"f line 1: no file can be named 'a\x00.jpg'"),
        (lambda: file_name("a\ud83d.jpg", "f line 1"), r"f line 1: no file can be named 'a\ud83d.jpg'"),
        (lambda: file_name(" ", "f line 1"), "f line 1: no file name"),
        (lambda: file_name(None, "f line 1"), "f line 1: expected text as 'file', got null"),
        (lambda: member({"a": 1}, "b", "text", "f"), "f: no 'b'; it has 'a'"),
        (lambda: member({"a": True}, "a", "a whole number", "f"), "f: expected a whole number as 'a', got true"),
        (lambda: member({"a": [1, 2, 3, 4]}, "a", "text", "f"), "f: expected text as 'a', got a list [1, 2, 3, ...]"),
    ],
)
def test_values_of_another_type_are_told_with_their_place(call, message):
    with pytest.raises(UsageError) as caught:
        call()
    assert message in str(caught.value)
