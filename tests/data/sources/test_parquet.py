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
    write(arrow, tmp_path / "bare" / "a.parquet", [row(2, "train"), row(0, "val"), row(1, "test")], pictures=False)
    assert Parquet(str(tmp_path / "bare"), "train", images=str(beside)).image(0)[0, 0, 0] == 99
    with pytest.raises(UsageError, match=r"no column 'image'.*data.train.images=DIR"):
        Parquet(str(tmp_path / "bare"), "train").image(0)


def test_a_row_without_a_picture_is_skipped_and_not_fatal(arrow, tmp_path):
    rows = [
        {"image": {"bytes": None, "path": "0.png"}, **row(0, "train")},
        {"image": {"bytes": png(3)}, **row(1, "val")},
        {"image": {"bytes": png(4)}, **row(2, "test")},
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
        (
            [{key: value for key, value in row(0, "train").items() if key != "split"}],
            "no column named split .* nor its",
        ),
        ([row(0, "test")], "no images in split 'train'; it has test"),
    ],
)
def test_tables_that_would_be_misread_are_refused(rows, words, arrow, tmp_path):
    write(arrow, tmp_path / "a.parquet", rows)
    with pytest.raises(UsageError, match=words):
        len(Parquet(str(tmp_path), "train"))


def of_the_hub(numbers):
    """Rows of a data set as the hub has most: a picture without a name, and a text."""
    return [{"text": f"um avião {number}", "image": {"bytes": png(number), "path": None}} for number in numbers]


def test_the_hubs_tables_have_their_split_in_their_name_or_folder_and_need_no_file_names(arrow, tmp_path):
    tables = {"data/train-00000-of-00001": range(3), "data/validation-00000-of-00001": range(5, 7), "test/0000": [9]}
    for name, numbers in tables.items():
        write(arrow, tmp_path / f"{name}.parquet", of_the_hub(numbers), pictures=False)
    found = {split: Parquet(str(tmp_path), split) for split in ("train", "val", "test")}
    assert {split: len(source) for split, source in found.items()} == {"train": 3, "val": 2, "test": 1}
    record = found["val"].record(1)
    assert record.key == "val/validation-00000-of-00001/1" and record.captions[0].text == "um avião 6"
    assert found["test"].record(0).key == "test/0000/0"
    assert [int(found["train"].image(place)[0, 0, 0]) for place in (2, 0, 1)] == [2, 0, 1]


def test_a_set_of_training_tables_alone_has_shares_of_them_for_val_and_test(arrow, tmp_path):
    write(arrow, tmp_path / "train-00000-of-00001.parquet", of_the_hub(range(40)), pictures=False)
    with pytest.warns(UserWarning, match=r"no image is in split 'val'; 2 of the 40 train images.*data\.train\.val=0"):
        found = {split: Parquet(str(tmp_path), split) for split in ("train", "val", "test")}
        shades = {split: [int(source.image(i)[0, 0, 0]) for i in range(len(source))] for split, source in found.items()}
    assert {split: len(places) for split, places in shades.items()} == {"train": 36, "val": 2, "test": 2}
    assert sorted(shade for of_split in shades.values() for shade in of_split) == list(
        range(40)
    )  # each picture in one split, with its own pixels
    assert len(Parquet(str(tmp_path), "train", val=0, test=0)) == 40


def test_a_folder_of_save_to_disk_is_refused_with_the_way_to_convert_it(arrow, tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/data-00000-of-00001.arrow").write_bytes(b"")
    with pytest.raises(UsageError, match=r"load_from_disk.*to_parquet"):
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


def test_a_data_set_of_the_hub_is_fetched_by_its_name_once_it_is_read(folder, monkeypatch):
    asked = []

    def download(name, **words):
        asked.append((name, words))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.setattr("capkit.data.hub_tables.hub_reachable", lambda: False)
    source = Parquet("hf://datasets/some-body/flickr.x@refs/convert/parquet", "train")
    assert not asked, "constructors fetch nothing"
    source.prepare()
    assert [source.record(i) for i in range(6)] == [Parquet(str(folder), "train").record(i) for i in range(6)]
    words = {"repo_type": "dataset", "revision": "refs/convert/parquet", "allow_patterns": ["*.parquet"]}
    assert asked == [("some-body/flickr.x", {**words, "local_files_only": True})], "no retries where there is no hub"


def test_what_the_hub_does_not_give_is_told(tmp_path, monkeypatch, arrow):
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*_, **__):
        raise LocalEntryNotFoundError("no network\nand more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(UsageError, match=r"\(no network\).*hf download --repo-type dataset a/b --local-dir DIR"):
        Parquet("hf://datasets/a/b", "train").prepare()
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(UsageError, match="hf://datasets/a/b@refs/convert/parquet"):
        Parquet("hf://datasets/a/b", "train").prepare()
    with pytest.raises(UsageError, match="expected hf://datasets/OWNER/NAME"):
        Parquet("hf://a/b", "train")
    with pytest.raises(UsageError, match="is folder=hf://datasets/a/b"):
        Parquet("a/b", "train")
