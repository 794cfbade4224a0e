"""CNM's and CVLNM's experiments by their commands: on SceneWorld, and at paper size on a small set of COCO's format."""

import numpy as np
import pytest
from test_experiments import SENTENCES, karpathy

from capkit.cli import main
from capkit.run.folder import RunFolder

pytestmark = pytest.mark.integration

ONE_CORE = ["trainer=cpu", "trainer.devices=1"]
TINY = ["debug=tiny", "max_steps=2", *ONE_CORE]
COUNTS = ["data.train.count=8", "data.val.count=4", "data.test.count=4"]
SMALL = ["model.width=16", "model.attention_width=8", "model.num_heads=2"]
FROZEN = [
    "image_encoder._target_=capkit.models.encoders.image.SmallCNN", "~image_encoder.weights",
    "+image_encoder.image_size=32", "+image_encoder.channels=[8,64]", "+image_encoder.blocks=[0,0]",
    "+image_encoder.width=64", "recommended.image_size=32",
]  # fmt: skip
coco = pytest.fixture(scope="module")(karpathy.__wrapped__)


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Features of eight training scenes and those held out: of their boxes and of all cells."""
    folder = tmp_path_factory.mktemp("features")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for kind in ("boxes", "cells"):
            boxes = f"boxes={str(kind == 'boxes').lower()}"
            words = ["prepare", "data=sceneworld_modular", *COUNTS, *FROZEN, f"data.features={folder / kind}", boxes]
            assert main(words) == 0
    return folder


@pytest.mark.parametrize(
    ("name", "kind"), [("cnm", "boxes"), pytest.param("cvlnm", "cells", marks=pytest.mark.nightly)]
)
def test_both_stages_train_two_steps_on_sceneworld(name, kind, features, tmp_path, monkeypatch):
    monkeypatch.chdir(features)
    common, attributes = [*TINY, *COUNTS, f"data.features={features / kind}"], []
    if name == "cnm":  # whose attribute module sees features of its own
        common, attributes = [*common, f"data.attribute_features={features / kind}"], ["model.attribute_width=64"]
    run, tuned = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "tuned")
    assert main([f"experiment={name}_sceneworld", *common, *SMALL, *attributes, f"run_dir={run.path}"]) == 0
    assert run.metrics()["train/steps"] == 2 and "test/fact_f1" in run.metrics()
    logged = next(row for row in run.rows() if "train/controller_accuracy" in row)
    assert sum(value for key, value in logged.items() if "train/modules/" in key) == pytest.approx(1, abs=1e-5)
    page = run.report.read_text()
    assert "<h2>Modules</h2>" in page and "weights at words of object" in page
    words = [f"experiment={name}_scst_sceneworld", *common, f"init_from={run.path}", f"run_dir={tuned.path}"]
    assert main(words) == 0
    assert "test/initial/cider" in tuned.metrics()
    words = ["evaluate", f"ckpt={run.path}", "model.zero_module=object", *ONE_CORE, f"run_dir={tmp_path / 'silent'}"]
    assert main(words) == 0
    assert "test/fact_f1" in RunFolder(tmp_path / "silent").metrics()


def test_features_of_another_width_are_told_before_the_run_folder_is_made(features, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(features)
    common = [*TINY, *COUNTS, *SMALL, f"data.features={features / 'boxes'}", f"run_dir={tmp_path / 'run'}"]
    attributes = f"data.attribute_features={features / 'boxes'}"
    for words, said in (
        (["model.feature_width=63"], "expected features of width 63, got 64; set model.feature_width=64"),
        ([attributes, "model.attribute_width=32"], "got 64; set model.attribute_width=64"),
    ):
        assert main(["experiment=cnm_sceneworld", *common, *words]) == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def regions(coco, tmp_path_factory):
    """Region files of that set, of width 16; and a file of its words and their tags."""
    folder, draw = tmp_path_factory.mktemp("regions"), np.random.default_rng(0)
    for number in range(12):
        np.save(folder / f"{number}.npy", draw.normal(size=(1 + number % 3, 16)))
    (folder / "words.txt").write_text("".join(f"{word}\tNOUN\n" for word in sorted({*" ".join(SENTENCES).split()})))
    return folder


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["cnm", "cvlnm"])
def test_both_stages_of_the_paper_run_on_a_small_set_of_its_format(name, coco, regions, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inputs = [f"data.train.images={coco}", f"data.train.captions={coco / 'dataset_coco.json'}", "data.features=store"]
    assert main(["prepare", "data=regions", *inputs, f"features={regions}"]) == 0
    tagger = "{_target_: capkit.text.lexicon_tagger.LexiconTagger, file: %s}" % (regions / "words.txt")
    small = [*SMALL, "model.feature_width=16", "model.tokenizer=word", "decoding.num_beams=2"]
    small += ["model.memory=[4,4]"] * (name == "cvlnm")
    common = [*TINY, *inputs, "data.num_workers=0"]
    words = [f"experiment={name}", *common, *small, f"data.word_classes.tagger={tagger}", "run_dir=run"]
    assert main(words) == 0
    assert main([f"experiment={name}_scst", *common, "decoding.num_beams=2", "init_from=run", "run_dir=tuned"]) == 0
    assert RunFolder(tmp_path / "tuned").metrics()["train/steps"] == 2
