"""`capkit caption attention=true`: the captions are those without, and its files go on like theirs."""

import json

import numpy as np
import pytest
from PIL import Image

from benchmarks.starts import folder_of
from capkit.cli import main
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.render import render
from capkit.sceneworld.world.scene import make_scene

pytestmark = pytest.mark.integration


@pytest.fixture
def words(tmp_path):
    (tmp_path / "pictures").mkdir()
    options = WorldOptions(shapes=("circle", "square"), min_objects=2, max_objects=2, inside_probability=0.0)
    for index in range(5):
        picture = render(make_scene(options, 0, "test", index), 64)
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{index}.png")
    return ["caption", f"ckpt={folder_of('bags_start', 0)}", f"images={tmp_path / 'pictures'}"]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def by_image(text):
    return {row["image"]: row for row in map(json.loads, text.splitlines())}


def test_captions_are_those_without_it_and_each_word_has_its_cells(words, tmp_path, capsys):
    plain, out, cells = (tmp_path / name for name in ("plain.jsonl", "out.jsonl", "out.attention.jsonl"))
    assert main([*words, f"out={plain}"]) == 0
    assert main([*words, f"out={out}", "attention=true"]) == 0
    assert lines(out) == lines(plain) and len(lines(out)) == 5
    for row, caption in zip(lines(cells), lines(out), strict=True):
        assert (row["image"], row["caption"]) == (caption["image"], caption["caption"])
        assert row["words"] == row["caption"].replace(",", "").replace(".", "").split()
        shares = np.array(row["attention"])
        assert shares.shape == (len(row["words"]), 8, 8) and np.allclose(shares.sum((1, 2)), 1, atol=1e-3)
    page = (tmp_path / "out.attention.html").read_text()
    assert page.count("<img") == sum(1 + len(row["words"]) for row in lines(cells))

    # killed behind the third image's attention, before its caption was written
    whole = {path: path.read_text() for path in (out, cells)}
    out.write_text("".join(out.read_text().splitlines(keepends=True)[:2]))
    cells.write_text("".join(cells.read_text().splitlines(keepends=True)[:3]) + '{"image": "3.p')
    assert main([*words, f"out={out}", "attention=true"]) == 0
    assert out.read_text() == whole[out]
    assert by_image(cells.read_text()) == by_image(whole[cells])

    capsys.readouterr()
    assert main([*words, f"out={plain}", "attention=true"]) == 2
    assert "attention" in capsys.readouterr().err
