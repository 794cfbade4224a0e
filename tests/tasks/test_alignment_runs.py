"""From scores to captions of each level: `align`, `fit`, `evaluate` and `caption` by the command line."""

import json
import math
from pathlib import Path

import pytest
from PIL import Image

from capkit.cli import main
from capkit.run.folder import RunFolder

pytestmark = pytest.mark.integration

TINY = [
    "experiment=noc_sceneworld", "data.val.count=4", "data.test.count=6", "max_steps=2", "val_every=2", "controls=0",
    "model.width=32", "model.num_layers=1", "model.image_encoder.channels=[8,8]", "model.image_encoder.blocks=[0,0]",
    "model.image_encoder.width=32", "decoding.max_length=6", "metric=[facts]", "data.batch_size=8",
]  # fmt: skip
ONE_CORE = ["trainer=cpu", "trainer.devices=1"]
SWEEP = ["evaluate", "ckpt=run", "conditions.alignment=sweep", *ONE_CORE]


def fit(folder, *words):
    train = [f"data.train.path={folder / 'aligned/train.jsonl'}"]
    train += [f"data.conditions.alignment.file={folder / 'aligned/bins.json'}"]
    return main([*TINY, *ONE_CORE, *train, *words])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("noc")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        words = ["data=sceneworld_graded_noise", "data.train.source.count=24", "scorer=noisy_facts", "bins=3"]
        assert main(["align", *words, "out=aligned"]) == 0
        assert fit(path, "model.conditions.alignment.count=3", "run_dir=run") == 0
    Image.new("RGB", (32, 32)).save(path / "a.png")
    return path


@pytest.fixture(autouse=True)
def there(folder, monkeypatch):
    monkeypatch.chdir(folder)


def test_a_sweep_decodes_once_a_bin_and_reports_each(capsys):
    assert main([*SWEEP, "run_dir=swept"]) == 0
    rows = json.loads(Path("swept/sweep.json").read_text())
    assert [row["alignment"] for row in rows] == [0, 1, 2]
    for row in rows:
        own = RunFolder(f"swept/alignment-{row['alignment']}").metrics()
        assert own["test/fact_f1"] == row["numbers"]["test/fact_f1"] and math.isfinite(own["test/fact_f1"])
    top = RunFolder("run").metrics()["test/fact_f1"]  # the run itself asked for the top bin
    assert rows[2]["numbers"]["test/fact_f1"] == top
    capsys.readouterr()
    assert main([*SWEEP, "run_dir=swept"]) == 0
    assert "captioning test" not in capsys.readouterr().out


def test_captions_of_each_bin_go_into_files_of_their_own():
    assert main(["caption", "ckpt=run", "images=a.png", "conditions.alignment=sweep", "out=of.jsonl"]) == 0
    for number in range(3):
        (line,) = Path(f"of.alignment-{number}.jsonl").read_text().splitlines()
        assert json.loads(line)["image"] == "a.png"
        about = json.loads(Path(f"of.alignment-{number}.jsonl.about.json").read_text())
        assert about["conditions"] == {"alignment": number}


@pytest.mark.parametrize(
    "words", [[], ["data.min_score=0.3"], ["objective.weigh_by_score=true"]], ids=["vanilla", "filter", "weights"]
)
def test_baselines_need_no_other_file(folder, words):
    vanilla = ["model.conditions=null", "conditions.alignment=null"]
    name = f"run_dir=baseline{len(''.join(words))}"
    assert fit(folder, *vanilla, *words, name, "max_steps=1") == 0


def test_a_model_of_other_bins_than_the_data_is_refused(folder, capsys):
    assert fit(folder, "run_dir=other") == 2
    told = capsys.readouterr().err
    assert "expected as many bins as data.conditions.alignment has, 3; got 8" in told
    assert "model.conditions.alignment={kind:bins,count:3}" in told


def test_captions_of_another_corpus_are_refused(folder, capsys):
    lines = Path("aligned/train.jsonl").read_text().splitlines()
    Path("aligned/few.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    words = ["model.conditions.alignment.count=3", "run_dir=another", "data.train.path=aligned/few.jsonl"]
    assert fit(folder, *words) == 2
    assert "expected the corpus that the edges were made of, 24 captions" in capsys.readouterr().err


def test_a_sweep_wants_a_condition_of_bins(capsys):
    assert main(["evaluate", "ckpt=run", "conditions.length=sweep", "run_dir=nothing", *ONE_CORE]) == 2
    assert "expected a condition of bins, of which this captioner has alignment" in capsys.readouterr().err
