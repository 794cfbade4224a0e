import json

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from capkit.assets import catalogue
from capkit.cli import main
from capkit.data.datamodule import CaptionDataModule
from capkit.data.features import FeatureStore, FeatureWriter
from capkit.data.sources.manifest import Manifest
from capkit.errors import UsageError
from capkit.models.weights import weights_fingerprint
from capkit.tasks import prepare

FOLDER = {"_target_": "capkit.assets.cache.path", "name": "cached"}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name, colour in (("a", (255, 0, 0)), ("b", (0, 255, 0)), ("c", (0, 0, 255))):
        Image.new("RGB", (8, 8), colour).save(folder / f"{name}.png")
    return folder


class MeanColourPair:
    """A dual encoder that reads pictures itself: the mean colour in [0, 1], as one row."""

    name, prompt, max_length = "mean colour", "", 8

    def preprocess(self, images):
        return torch.stack([torch.from_numpy(image).permute(2, 0, 1).float() / 255 for image in images])

    def encode_image(self, pixels):
        return pixels.mean((2, 3))

    def encode_text(self, texts):
        return torch.zeros(len(texts), 3)

    def is_cut(self, texts):
        return [False] * len(texts)

    def to(self, device):
        return self

    def fingerprint_fields(self, side):
        return {"side": side, "weights": "none"}


class MeanColour(torch.nn.Module):
    """An encoder whose output is known by hand: one token, the mean of each channel times `scale`."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, pixels):
        return self.scale * pixels.mean((2, 3))[:, None]


def config(images, features=FOLDER, scale=1.0, transform=True):
    size = {"_target_": "capkit.data.transforms.ImageTransform", "size": 8, "mean": [0.0] * 3, "std": [1.0] * 3}
    folder = {"_target_": "capkit.data.sources.folder.Folder", "images": str(images)}
    return OmegaConf.create(
        {
            "torch_threads": 1,
            "data": {"train": folder, "test": folder, "transform": size if transform else None, "features": features},
            "image_encoder": {"_target_": f"{__name__}.MeanColour", "scale": scale},
        }
    )


def test_features_of_every_image_are_the_encoders(cache, images):
    assert prepare.run(config(images)) == {"fetched": 0.0, "features": 3.0}
    store = FeatureStore(cache / "cached")
    assert store.shape == (1, 3)
    np.testing.assert_array_equal(store[["c.png", "a.png"]], [[[0, 0, 1]], [[1, 0, 0]]])


def test_a_second_time_there_is_nothing_to_do(cache, images, capsys):
    prepare.run(config(images))
    before = (cache / "cached" / "features.npy").stat().st_mtime_ns
    assert prepare.run(config(images)) == {"fetched": 0.0, "features": 0.0}
    assert (cache / "cached" / "features.npy").stat().st_mtime_ns == before
    assert "nothing was left to do" in capsys.readouterr().out


def test_another_encoder_or_a_new_image_makes_them_anew(cache, images):
    prepare.run(config(images))
    assert prepare.run(config(images, scale=2.0))["features"] == 3
    assert FeatureStore(cache / "cached")[["a.png"]].tolist() == [[[2, 0, 0]]]
    Image.new("RGB", (8, 8)).save(images / "d.png")
    assert prepare.run(config(images, scale=2.0))["features"] == 4


def test_a_dual_encoder_gives_its_finished_embeddings_and_says_what_they_depend_on(cache, images):
    cfg = config(images, transform=False)
    cfg.image_encoder = {"_target_": f"{__name__}.MeanColourPair"}
    assert prepare.run(cfg)["features"] == 3
    store = FeatureStore(cache / "cached")
    np.testing.assert_array_equal(store[["c.png", "a.png"]], [[[0, 0, 1]], [[1, 0, 0]]])
    assert store.about == {"side": "image", "weights": "none"}
    assert prepare.run(cfg)["features"] == 0


class Scaled(torch.nn.Module):
    """Weights that a config does not show."""

    factor = 1.0

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([self.factor]))

    def forward(self, pixels):
        return self.weight.detach() * pixels.mean((2, 3))[:, None]


def test_features_are_made_anew_for_other_weights_and_say_whose_they_are(cache, images, monkeypatch):
    cfg = config(images)
    cfg.image_encoder = {"_target_": f"{__name__}.Scaled"}
    assert prepare.run(cfg)["features"] == 3
    FeatureStore(cache / "cached").check(weights=weights_fingerprint(Scaled()))
    assert prepare.run(cfg)["features"] == 0
    monkeypatch.setattr(Scaled, "factor", 2.0)
    with pytest.raises(UsageError, match="was made with something else: weights"):
        FeatureStore(cache / "cached").check(weights=weights_fingerprint(Scaled()))
    assert prepare.run(cfg)["features"] == 3
    assert FeatureStore(cache / "cached")[["a.png"]].tolist() == [[[2, 0, 0]]]


def test_an_image_that_cannot_be_read_is_named_and_left_out(cache, images, capsys):
    (images / "b.png").write_bytes(b"not a picture")
    assert prepare.run(config(images))["features"] == 2
    assert "skipped b.png: not an image" in capsys.readouterr().out
    assert "b.png" not in FeatureStore(cache / "cached")


def test_features_can_lie_in_a_plain_folder(images, tmp_path):
    prepare.run(config(images, features=str(tmp_path / "here" / "features")))
    assert len(FeatureStore(tmp_path / "here" / "features")) == 3


def test_features_without_a_transform_are_an_error(cache, images):
    with pytest.raises(UsageError, match=r"add data\.transform"):
        prepare.run(config(images, transform=False))


def test_data_without_features_need_no_encoder(images):
    cfg = config(images, features=None)
    cfg.image_encoder = None
    assert prepare.run(cfg) == {"fetched": 0.0, "features": 0.0}


@pytest.fixture
def shelf(cache, monkeypatch):
    """A catalogue of two small assets; `built` lists what was built."""
    built = []

    def build(name):
        def write(folder, say):
            built.append(name)
            (folder / "file").write_text(name)
            return {"version": "1"}

        return write

    main = catalogue.Asset("the pictures", "GPL-2", build("pictures"), goes_with=("part",))
    monkeypatch.setattr(catalogue, "ASSETS", {"pictures": main, "part": catalogue.Asset("p", "MIT", build("part"))})
    monkeypatch.setattr(prepare, "ASSETS", catalogue.ASSETS)
    return built


def asset_config():
    source = {"_target_": "capkit.data.sources.folder.Folder", "images": {**FOLDER, "name": "pictures"}}
    return OmegaConf.create({"data": {"train": source, "val": source}})


def test_assets_that_the_data_name_come_once_with_what_goes_with_them(shelf, cache):
    Image.new("RGB", (2, 2)).save(cache.parent / "x.png")
    assert prepare.run(asset_config()) == {"fetched": 2.0, "features": 0.0}
    assert shelf == ["pictures", "part"]
    about = json.loads((cache / "pictures" / "about.json").read_text())
    assert about.pop("checksums").keys() == {"file"}
    assert about == {"title": "the pictures", "licence": "GPL-2", "version": "1"}
    assert prepare.run(asset_config())["fetched"] == 0
    assert shelf == ["pictures", "part"]


def test_a_damaged_asset_is_fetched_anew(shelf, cache, capsys):
    Image.new("RGB", (2, 2)).save(cache.parent / "x.png")
    prepare.run(asset_config())
    (cache / "part" / "file").write_text("trap")
    assert prepare.run(asset_config())["fetched"] == 1 and shelf == ["pictures", "part", "part"]
    assert (cache / "part" / "file").read_text() == "part"
    assert "part is damaged" in capsys.readouterr().out.replace("\n", "")


def test_damaged_features_are_made_anew(cache, images):
    prepare.run(config(images))
    for content in (b"", b"garbage"):
        (cache / "cached" / "features.npy").write_bytes(content)
        assert prepare.run(config(images))["features"] == 3


def test_an_interrupted_fetch_goes_on_where_it_stopped(shelf, cache, monkeypatch):
    def fail(folder, say):
        raise UsageError("no network")

    broken = catalogue.Asset("p", "MIT", fail)
    monkeypatch.setitem(catalogue.ASSETS, "part", broken)
    with pytest.raises(UsageError, match="no network"):
        prepare.run(asset_config())
    assert sorted(p.name for p in cache.iterdir()) == ["pictures"]
    monkeypatch.setitem(catalogue.ASSETS, "part", catalogue.Asset("p", "MIT", lambda folder, say: {}))
    assert prepare.run(asset_config())["fetched"] == 1


def test_an_unknown_asset_is_named_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'minilm'"):
        catalogue.with_companions(["minilmm"])


def test_the_shipped_stamps_config_names_assets_of_the_catalogue():
    from capkit.config.locations import config_dir

    node = OmegaConf.to_container(OmegaConf.load(config_dir() / "data" / "stamps.yaml"), resolve=False)
    assert [name for name in prepare.asset_names(node) if name in catalogue.ASSETS] == ["tuxpaint-stamps"]
    assert len(catalogue.with_companions(["tuxpaint-stamps"])) == 4


def test_region_features_are_prepared_by_the_command_and_read_by_a_captioner(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "boxes").mkdir()
    drawn, images = np.random.default_rng(0), []
    for number in range(6):
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / f"{number}.png")
        np.savez(tmp_path / "boxes" / f"{number}.npz", feat=drawn.normal(size=(1 + number % 3, 4)))
        split = ("train", "train", "train", "train", "val", "test")[number]
        images.append({"filename": f"{number}.png", "split": split, "sentences": [{"raw": "a red circle"}]})
    (tmp_path / "captions.json").write_text(json.dumps({"images": images}))
    data = ["data=regions", "data.train.images=images", "data.train.captions=captions.json", "data.features=store"]
    for shard in (0, 1):
        assert main(["prepare", *data, "features=boxes", f"shard={shard}", "num_shards=2"]) == 0
    assert FeatureStore("store").shape == (3, 4)
    words = ["model.image_encoder=null", "model.feature_width=4", "debug=tiny", "max_steps=1", "run_dir=run"]
    assert main([*data, *words]) == 0
    assert len(json.loads((tmp_path / "run" / "predictions" / "test.json").read_text())) == 1


def test_features_of_the_records_own_boxes(tmp_path, monkeypatch):
    """Each region's box gets the mean of the encoder's cells in it; boxes of several texts count once."""
    monkeypatch.chdir(tmp_path)
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, 4:] = 255
    Image.fromarray(pixels).save(tmp_path / "halves.png")
    left, right, whole = [0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]
    regions = [{"box": box, "text": "x"} for box in (left, left, right, whole)]
    row = {"key": "halves", "image": "halves.png", "captions": ["a"], "regions": regions}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    cfg = config(tmp_path)
    cfg.data.train = cfg.data.test = {"_target_": "capkit.data.sources.manifest.Manifest", "path": "rows.jsonl"}
    cfg.data.features, cfg.boxes = "store", True
    cfg.image_encoder._target_ = f"{__name__}.Cells"
    cfg.data.transform.resize = "crop"
    with pytest.raises(UsageError, match=r"expected a data\.transform that keeps the whole picture"):
        prepare.run(cfg)
    cfg.data.transform.resize = "squash"
    prepare.run(cfg)
    values, mask = FeatureStore("store").padded(["halves"])
    assert mask is not None and mask.tolist() == [[True] * 3]
    np.testing.assert_allclose(values[0, :, 0], [0.0, 1.0, 0.5])
    for features, boxes in (("store", [left, right, whole]), ("others", [])):
        with FeatureWriter("others", ["halves"], (1, 1)) as writer:  # of no box of the record
            writer.write(["halves"], np.zeros((1, 1, 1)))
        data = CaptionDataModule(test=Manifest("rows.jsonl"), features=features)
        assert [box for box, _ in data.region_boxes("test")("halves")] == list(map(tuple, boxes))
    (tmp_path / "rows.jsonl").write_text(json.dumps({**row, "regions": []}) + "\n")
    with pytest.raises(UsageError, match="expected a region in every record, got none in 'halves'"):
        prepare.run(cfg)


class Cells(MeanColour):
    """The pixels of one channel as 8 x 8 tokens."""

    def forward(self, pixels):
        return pixels[:, :1].flatten(2).transpose(1, 2)
