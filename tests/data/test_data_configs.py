import functools
from pathlib import Path

import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from capkit.data.curricula.shuffle import Shuffle
from capkit.data.datamodule import CaptionDataModule
from capkit.sceneworld.world.options import HOLDOUT

CONFIGS = Path(__file__).parents[2] / "configs"


def load(name: str, **root) -> CaptionDataModule:
    """The data config as the composed config holds it: below `data`, with the run's seed and what no model says."""
    beside = {"seed": 3, "recommended": OmegaConf.load(CONFIGS / "train.yaml").recommended}
    config = OmegaConf.create({**beside, "data": OmegaConf.load(CONFIGS / "data" / f"{name}.yaml"), **root})
    for key, value in root.pop("overrides", {}).items():
        OmegaConf.update(config, key, value)
    return instantiate(config.data, _convert_="all")


def test_folder_config_splits_a_users_images_without_overlap(tmp_path):
    rows = ["file,caption"]
    for number in range(10):
        Image.new("RGB", (8, 6), (number, 0, 0)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,number {number}")
    (tmp_path / "c.csv").write_text("\n".join(rows))
    paths = {"data.train.images": str(tmp_path), "data.train.captions": str(tmp_path / "c.csv"), "data.train.test": 0.3}
    module = load("folder", overrides=paths)
    assert [module.num_images(split) for split in ("train", "val", "test")] == [6, 1, 3] and module.seed == 3
    captions = [text for split in ("train", "val", "test") for text in module.captions(split)]
    assert sorted(captions) == [f"number {number}" for number in range(10)]
    (batch,) = module.val_dataloader()
    assert batch.pixels.shape == (1, 3, 224, 224)


def test_sceneworld_config_changes_its_size_in_one_place(tmp_path):
    small = {f"data.{split}.count": 2 for split in ("train", "val", "test")}
    cache = {f"data.{split}.cache_dir": str(tmp_path) for split in ("train", "val", "test")}
    module = load("sceneworld", overrides={"data.train.size": 32, **small, **cache})
    for split in ("train", "val", "test"):
        (batch,) = module.eval_dataloader(split)
        assert batch.pixels.shape == (2, 3, 32, 32)


@pytest.mark.parametrize("given", [False, True])
def test_curriculum_of_the_config_reaches_the_data(given):
    curriculum = OmegaConf.load(CONFIGS / "curriculum" / "shuffle.yaml")
    curriculum.drop_last = True
    module = load("sceneworld", **({"curriculum": curriculum} if given else {}))
    made = module._make_curriculum
    assert isinstance(made, functools.partial) and made.func is Shuffle if given else made is Shuffle


def test_img2dataset_config_reads_captions_beside_pictures(tmp_path):
    for number in range(4):
        for split in ("training", "validation"):
            file = tmp_path / split / "00000" / f"00000000{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 6), (number, 0, 0)).save(file)
            file.with_suffix(".txt").write_text(f"{split} {number}")
            file.with_suffix(".json").write_text(f'{{"caption": "{split} {number}", "status": "success"}}')
    paths = {"data.train.images": str(tmp_path / "training"), "data.test.images": str(tmp_path / "validation")}
    paths["data.train.val"] = 0.25
    module = load("img2dataset", overrides=paths)
    assert [module.num_images(split) for split in ("train", "val", "test")] == [3, 1, 4]
    assert sorted(module.captions("test")) == [f"validation {number}" for number in range(4)]


@pytest.mark.parametrize(
    ("name", "splits", "missing"),
    [
        ("conceptual_captions", ("train", "val", "test"), r"images: no folder 'data/conceptual_captions/training'"),
        ("nocaps", ("test",), r"images: no folder 'data/nocaps/validation'"),
        ("concadia", ("train", "val", "test"), r"images: no folder 'data/concadia/images'"),
    ],
)
def test_configs_of_corpora_name_the_folder_that_is_missing(name, splits, missing):
    """What each reads is shown in tests/data/sources/test_corpora.py."""
    node = OmegaConf.load(CONFIGS / "data" / f"{name}.yaml")
    assert tuple(key for key in ("train", "val", "test") if key in node) == splits
    with pytest.raises(InstantiationException, match=missing):
        load(name)


def test_sceneworld_out_of_domain_shares_no_background_with_home_and_each_test_picture_has_an_unseen_pair(tmp_path):
    def scenes(name, split, inner):
        counts = {f"data.{part}.{inner}count": 40 for part in ("train", "val", "test")}
        cache = {f"data.{part}.{inner}cache_dir": str(tmp_path) for part in ("train", "val", "test")}
        source = load(name, overrides={**counts, **cache}).source(split)
        return [source.record(index) for index in range(40)]

    def pairs(record):
        return {(item["shape"], item["color"]) for item in record.metadata["scene"]["objects"]}

    home = scenes("sceneworld_generic", "train", "source.")
    abroad = scenes("sceneworld_out_of_domain", "test", "")
    seen = set.union(*map(pairs, home))
    assert all(pairs(record) & set(HOLDOUT) for record in abroad) and not seen & set(HOLDOUT)
    backgrounds = [{record.metadata["scene"]["background"] for record in records} for records in (home, abroad)]
    assert not backgrounds[0] & backgrounds[1]
    assert {len(record.metadata["scene"]["objects"]) for record in abroad} == {2, 3}
    for record in abroad:  # every colour is named
        colors = [item["color"] for item in record.metadata["scene"]["objects"]]
        assert all(color in caption.text for color in colors for caption in record.captions)
