"""Tables of the hub's form: the public columns of the three Brazilian sets, pictures within and beside them."""

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from capkit.config.extras import OF_TARGETS
from capkit.data.images import BadImage
from capkit.data.records import Caption
from capkit.data.sources import parquet as module
from capkit.data.sources.base import picture_file
from capkit.data.sources.parquet import Parquet
from capkit.errors import UsageError

CONFIGS = Path(__file__).parents[3] / "configs"
CARD = {  # the example of the public card
    "caption": [
        "Um cachorro preto carrega um brinquedo verde na boca enquanto caminha pela grama.",
        "Um cachorro preto molhado carrega um brinquedo verde pela grama.",
    ],
    "sentids": ["450", "451"],
    "split": "train",
    "img_id": "90",
    "filename": "1026685415.jpg",
}


@pytest.fixture
def arrow():
    pytest.importorskip("pyarrow.parquet")
    import pyarrow

    return pyarrow


def png(shade):
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), shade, np.uint8)).save(file, "PNG")
    return file.getvalue()


def row(number, split, **changes):
    return {
        "caption": [f"um avião {number}", f"a água {number}"],
        "sentids": [str(2 * number), str(2 * number + 1)],
        "split": split,
        "img_id": str(number),
        "filename": f"{number}.png",
    } | changes


def write(arrow, path, rows, pictures=True):
    if pictures:
        rows = [{"image": {"bytes": png(i), "path": r["filename"]}, **r} for i, r in enumerate(rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    arrow.parquet.write_table(arrow.Table.from_pylist(rows), path, row_group_size=3)


@pytest.fixture
def folder(arrow, tmp_path):
    """Two files of the training split, one of the others, row groups of three rows."""
    write(arrow, tmp_path / "data" / "train-00000-of-00002.parquet", [row(i, "train") for i in range(5)])
    write(arrow, tmp_path / "data" / "train-00001-of-00002.parquet", [CARD])
    write(arrow, tmp_path / "data" / "test-00000-of-00001.parquet", [row(7, "test"), row(8, "val")])
    return tmp_path


def test_a_row_is_a_record_with_its_captions_and_ids(folder):
    source = Parquet(str(folder), "train", language="pt-BR", source="human_translation")
    assert len(source) == 6
    record = source.record(5)
    assert (record.key, record.image) == ("1026685415", "1026685415.jpg")  # as of Flickr30k's Karpathy file
    assert record.captions == [Caption(text, "human_translation", "pt-BR") for text in CARD["caption"]]
    assert record.metadata == {"filename": "1026685415.jpg", "image_id": "90", "sentids": ["450", "451"]}
    assert [Parquet(str(folder), split).record(0).key for split in ("val", "test")] == ["8", "7"]


def test_each_record_has_its_own_picture_in_any_order(folder):
    source = Parquet(str(folder), "train")
    read = picture_file(source)
    for index in (4, 0, 5, 2, 3, 1, 4):
        shade = 0 if index == 5 else index  # the second file begins anew
        assert source.image(index)[0, 0].tolist() == [shade] * 3
        assert read(index) == png(shade)
    assert Parquet(str(folder), "val").image(0)[0, 0, 0] == 1  # the second row of its file
    assert pickle.loads(pickle.dumps(source)).image(4)[0, 0, 0] == 4


def test_a_folder_of_pictures_stands_for_the_tables_own(folder, arrow, tmp_path):
    beside = tmp_path / "pictures"
    beside.mkdir()
    (beside / "2.png").write_bytes(png(99))
    source = Parquet(str(folder), "train", images=str(beside))
    assert source.image(2)[0, 0, 0] == 99
    with pytest.raises(BadImage):
        source.image(3)
    write(arrow, tmp_path / "bare" / "a.parquet", [row(2, "train")], pictures=False)
    assert Parquet(str(tmp_path / "bare"), "train", images=str(beside)).image(0)[0, 0, 0] == 99
    with pytest.raises(UsageError, match=r"no column 'image'.*data.train.images=DIR"):
        Parquet(str(tmp_path / "bare"), "train").image(0)


def test_a_row_without_a_picture_is_skipped_and_not_fatal(arrow, tmp_path):
    rows = [
        {"image": {"bytes": None, "path": "0.png"}, **row(0, "train")},
        {"image": {"bytes": png(3)}, **row(1, "val")},
    ]
    write(arrow, tmp_path / "a.parquet", rows, pictures=False)
    with pytest.raises(BadImage, match="holds no picture"):
        Parquet(str(tmp_path), "train").image(0)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([row(0, "train"), row(0, "train")], "'0'"),
        ([row(0, "sometimes")], "sometimes"),
        ([row(0, "train", caption=["um", "avião", "."])], "got the words of one"),
        ([row(0, "train", filename=7)], "got 7"),
        ([{key: value for key, value in row(0, "train").items() if key != "caption"}], "no column named caption or"),
        ([{key: value for key, value in row(0, "train").items() if key != "split"}], "no column named split"),
        ([row(0, "test")], "no images in split 'train'; it has test"),
    ],
)
def test_tables_that_would_be_misread_are_refused(rows, words, arrow, tmp_path):
    write(arrow, tmp_path / "a.parquet", rows)
    with pytest.raises(UsageError, match=words):
        len(Parquet(str(tmp_path), "train"))


def test_a_folder_without_tables_and_a_broken_table_are_told(arrow, tmp_path):
    with pytest.raises(UsageError, match=r"no \.parquet file"):
        len(Parquet(str(tmp_path), "train"))
    (tmp_path / "a.parquet").write_bytes(b"no table")
    with pytest.raises(UsageError, match=r"a\.parquet: cannot be read as parquet"):
        len(Parquet(str(tmp_path), "train"))


def test_without_the_extra_the_fix_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pip install 'capkit\[parquet\]'"):
        Parquet(str(tmp_path), "train")
    assert OF_TARGETS[f"{module.__name__}.Parquet"].install == "capkit[parquet]"


@pytest.mark.parametrize("version", ["native", "human", "machine"])
def test_the_three_brazilian_sets_read_such_tables_in_portuguese(version, folder, monkeypatch):
    merged = OmegaConf.merge(
        OmegaConf.load(CONFIGS / "data" / "parquet.yaml"),
        OmegaConf.load(CONFIGS / "data" / f"flickr30k_ptbr_{version}.yaml"),
    )
    del merged["defaults"]
    merged.num_workers = 0
    (folder / "data" / Path(merged.train.folder).name).symlink_to(folder / "data", target_is_directory=True)
    monkeypatch.chdir(folder)
    beside = {"seed": 0, "recommended": {"mean": [0.5] * 3, "std": [0.5] * 3, "image_size": 4}}
    data = instantiate(OmegaConf.create({**beside, "data": merged}).data, _convert_="all")
    assert {split: data.num_images(split) for split in ("train", "val", "test")} == {"train": 6, "val": 1, "test": 1}
    assert {caption.language for caption in data.source("test").record(0).captions} == {"pt-BR"}
    (batch,) = data.val_dataloader()
    assert batch.references == [["um avião 8", "a água 8"]] and batch.pixels.shape == (1, 3, 4, 4)
    json.dumps(batch.metadata)  # metrics keep it as JSON
