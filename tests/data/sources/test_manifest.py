import json

import numpy as np
import pytest
from PIL import Image

from capkit.data.records import Caption, Record, Region, read_manifest, write_manifest
from capkit.data.sources.manifest import Manifest
from capkit.errors import UsageError

FULL = Record(
    key="7",
    image="a b/c.png",
    captions=[Caption("Um cão.", "gemma", "pt-BR"), Caption("a dog", score=-0.25)],
    regions=[Region((0.0, 0.25, 0.5, 1.0), "dog")],
    bag="dogs",
    metadata={"source": {"id": 3}},
)


def test_records_survive_writing_and_reading(tmp_path):
    records = [FULL, Record(key="8"), Record(key="9", image="x.png", captions=[Caption('two\nlines \u2028 "q"')])]
    assert write_manifest(tmp_path / "sub" / "m.jsonl", records) == 3
    assert list(read_manifest(tmp_path / "sub" / "m.jsonl")) == records
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["m.jsonl"]


def test_failed_write_leaves_the_old_manifest(tmp_path):
    write_manifest(tmp_path / "m.jsonl", [FULL])

    def broken():
        yield Record(key="8")
        raise RuntimeError("source broke")

    with pytest.raises(RuntimeError):
        write_manifest(tmp_path / "m.jsonl", broken())
    assert list(read_manifest(tmp_path / "m.jsonl")) == [FULL]


def test_key_defaults_to_the_image_and_captions_may_be_texts(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text(
        '{"image": "a.png", "captions": ["one", "two"]}\n\n{"key": 5, "image": "b.png", "captions": "three"}\n'
    )
    first, second = read_manifest(path)
    assert (first.key, [c.text for c in first.captions]) == ("a.png", ["one", "two"])
    assert (second.key, second.captions) == ("5", [Caption("three")])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "one JSON object"),
        ('{"captions": []}', "needs 'key' or 'image'"),
        ('{"image": "a", "caption": "x"}', "unknown field 'caption'; did you mean 'captions'"),
        ('{"image": 3}', "'image' has a value of the wrong type: 3"),
        ('{"image": "a", "captions": [3]}', "a caption is a text or"),
        ('{"image": "a", "captions": [{"text": "x", "lang": "en"}]}', "a caption is a text or"),
        ('{"image": "a", "captions": [{"text": "x", "score": "high"}]}', "'score' of a caption is a finite number"),
        ('{"image": "a", "captions": [{"text": "x", "score": true}]}', "'score' of a caption is a finite number"),
        ('{"image": "a", "captions": [{"text": "x", "score": NaN}]}', "'score' of a caption is a finite number"),
        ('{"image": "a", "regions": [{"box": [0, 0, 2, 1]}]}', "0 <= x0 <= x1 <= 1"),
        ('{"image": "a", "regions": [[0, 0, 1, 1]]}', "a region is"),
        ('{"image": "a", "metadata": []}', "'metadata' has a value of the wrong type"),
        ('{"key": {"a": 1}}', "'key' has a value of the wrong type"),
        ("\x80", "not UTF-8"),
    ],
)
def test_wrong_line_is_named_with_file_and_number(tmp_path, line, message):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"image": "ok.png"}\n\n' + line.encode("latin-1") + b"\n")
    with pytest.raises(UsageError) as caught:
        list(read_manifest(path))
    assert f"{path} line 3" in str(caught.value) and message in str(caught.value)


def test_missing_manifest_is_a_usage_error_in_the_constructor(tmp_path):
    with pytest.raises(UsageError, match="no file"):
        Manifest(str(tmp_path / "none.jsonl"))


def test_manifest_source_reads_records_and_images_by_position(tmp_path):
    Image.new("RGB", (4, 2), (9, 8, 7)).save(tmp_path / "a.png")
    rows = [{"key": f"k{i}", "image": "a.png", "captions": [f"caption é {i}"]} for i in range(5)]
    (tmp_path / "m.jsonl").write_text("\n\n".join(json.dumps(r, ensure_ascii=False) for r in rows), encoding="utf-8")
    source = Manifest(str(tmp_path / "m.jsonl"))
    assert len(source) == 5
    assert [source.record(i).captions[0].text for i in (4, 0, 2)] == ["caption é 4", "caption é 0", "caption é 2"]
    np.testing.assert_array_equal(source.image(3), np.broadcast_to(np.uint8([9, 8, 7]), (2, 4, 3)))


def test_root_replaces_the_manifests_folder(tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (1, 1)).save(tmp_path / "pictures" / "a.png")
    write_manifest(tmp_path / "m.jsonl", [Record("a", "a.png")])
    assert Manifest(str(tmp_path / "m.jsonl"), root=str(tmp_path / "pictures")).image(0).shape == (1, 1, 3)


def test_two_records_with_one_key_are_an_error(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"image": "a.png"}\n{"image": "a.png"}\n')
    with pytest.raises(UsageError, match=r"two records have the key 'a\.png'"):
        len(Manifest(str(tmp_path / "m.jsonl")))


def test_manifest_without_records_is_an_error(tmp_path):
    (tmp_path / "m.jsonl").write_text("\n")
    with pytest.raises(UsageError, match="no records"):
        len(Manifest(str(tmp_path / "m.jsonl")))
