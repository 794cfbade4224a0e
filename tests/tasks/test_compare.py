"""`capkit compare` on two run folders that are written here: numbers, intervals, captions, and what is refused."""

import html
import json
import re
import shutil

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from capkit.cli import main
from capkit.config.arguments import parse
from capkit.config.compose import compose_config
from capkit.config.instantiate import plain
from capkit.metrics.coco.collected import Cider
from capkit.metrics.scoring import write_predictions
from capkit.run.folder import RunFolder

NOUNS = ("dog", "cat", "bus", "boat", "kite", "horse", "clock", "pizza")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Eight test pictures; "plain" captions each by a noun, "wordy" the same but for two, which it gets right."""
    folder = tmp_path_factory.mktemp("compare")
    lines = ["file,caption,split"]
    for number, noun in enumerate((*NOUNS, "train", "val")):
        Image.fromarray(np.full((40, 40, 3), 20 * number, np.uint8)).save(folder / f"{number}.png")
        split = noun if noun in ("train", "val") else "test"
        lines += [f"{number}.png,a small {noun} on a table,{split}", f"{number}.png,the {noun} & a <table>,{split}"]
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    for name, seed in (("plain", 0), ("wordy", 7)):
        words = ["data=folder", f"data.train.images={folder}", f"data.train.captions={folder}/captions.csv"]
        composed = compose_config(parse([*words, "metric=[cider,bleu]", f"seed={seed}"]))
        run = RunFolder(folder / name)
        run.open(plain(OmegaConf.create(OmegaConf.to_container(composed.config, resolve=True))))
        write_predictions(run.predictions, "test", rows(wordy=name == "wordy"))
        run.write_metrics({"test/cider": -1.0, "test/meteor": 0.5 + seed / 100, "test/shuffled/cider": 9.0})
    return folder


def rows(wordy):
    texts = [f"a small {noun} on a table" if wordy and noun in NOUNS[:2] else f"a {noun}" for noun in NOUNS]
    return [
        {
            "key": f"{number}.png", "caption": text, "metadata": {},
            "references": [f"a small {noun} on a table", f"the {noun} & a <table>"],
        }
        for number, (text, noun) in enumerate(zip(texts, NOUNS, strict=True))
    ]  # fmt: skip


def compare(work, *words, runs="plain,wordy"):
    paths = ",".join(str(work / name) for name in runs.split(","))
    return main(["compare", f"runs=[{paths}]", f"run_dir={work / 'out'}", *words])


@pytest.fixture(scope="module")
def done(work):
    assert compare(work) == 0
    return json.loads((work / "out/compare.json").read_text()), (work / "out/compare.html").read_text()


def test_numbers_are_those_of_the_captions_and_differences_those_of_the_same_pictures(done):
    content, _ = done
    first, other = (Cider().image_sums(*columns(rows(wordy))).values[:, 0] for wordy in (False, True))
    assert content["numbers"]["plain"]["cider"] == pytest.approx(first.mean())
    assert content["numbers"]["wordy"]["cider"] == pytest.approx(other.mean())
    found = content["differences"]["wordy"]["cider"]
    assert found["value"] == pytest.approx((other - first).mean()) and found["low"] < found["value"] < found["high"]
    gains = other - first
    assert found["low"] >= 0 and found["high"] <= gains.max(), "a mean of what single pictures gain"
    assert content["pictures"] == 8 and content["differences"].keys() == {"wordy"}


def columns(some):
    return [[row[name] for row in some] for name in ("caption", "references")] + [[{}] * len(some)]


def test_numbers_that_cannot_be_resampled_are_what_the_runs_wrote_and_controls_are_left_out(done):
    content, _ = done
    assert content["numbers"]["wordy"]["meteor"] == pytest.approx(0.57)
    assert "meteor" not in content["differences"]["wordy"] and "shuffled/cider" not in content["numbers"]["plain"]


def test_the_page_has_both_captions_of_the_pictures_that_differ_first_and_escapes_them(done):
    _, page = done
    cards = [html.unescape(card) for card in re.findall(r'<div class="sample">(.*?)</div></div>', page, re.DOTALL)]
    assert {re.search('alt="([^"]+)"', card)[1] for card in cards[:2]} == {"0.png", "1.png"}
    best = [re.findall(r'<div class="caption"[^>]*>([^<]+)', card) for card in cards]
    assert sorted(best[:2]) == [["a small cat on a table"], ["a small dog on a table"]] and best[2:] == [[]] * 6
    assert "<table>, " not in page and "&lt;table&gt;" in page and "plain against wordy" in page
    assert not re.search(r"(src|href)=['\"](?!data:)", page)


def test_the_page_has_the_keys_that_differ(done):
    _, page = done
    found = re.findall(r'<td><code>([^<]+)</code></td><td class="text">([^<]*)</td><td class="text">([^<]*)', page)
    assert ("seed", "0", "7") in found and {key for key, *_ in found} <= {"seed", "data.seed", "objective.seed"}


def test_the_screen_has_each_number_and_its_difference(work, capsys):
    assert compare(work) == 0
    told = capsys.readouterr().out
    assert "8 pictures of test" in told and re.search(r"cider +\d\.\d+ +\d\.\d+ +\+\d\.\d+ \[\+0", told)


@pytest.fixture
def other(work):
    shutil.copytree(work / "wordy", work / "other")
    yield RunFolder(work / "other")
    shutil.rmtree(work / "other")


DAMAGE = {
    "test.json": [
        ('[{"image_id": 3', "not JSON"),
        ("{}", "expected a list"),
        ('[{"caption": "a"}]', "item 0: no 'image_id'"),
    ],
    "test_references.json": [
        ("{}", "no 'annotations'"),
        ('{"annotations": [{"image_id": 3}]}', "item 0: no 'caption'"),
    ],
}


@pytest.mark.parametrize(
    ("name", "content", "told"), [(name, *case) for name, cases in DAMAGE.items() for case in cases]
)
def test_damaged_captions_of_a_run_are_told(work, other, capsys, name, content, told):
    (other.predictions / name).write_text(content)
    assert compare(work, runs="plain,other") == 2
    err = capsys.readouterr().err
    assert f"predictions/{name}" in err and told in err and "Traceback" not in err


def test_runs_of_one_name_are_told_apart_by_the_folders_above(work):
    for folder in ("lr.1", "lr.2"):
        shutil.copytree(work / "plain", work / folder / "v1.5")
    assert compare(work, runs="lr.1/v1.5,lr.2/v1.5") == 0
    assert list(json.loads((work / "out/compare.json").read_text())["runs"]) == ["lr.1/v1.5", "lr.2/v1.5"]


def test_runs_on_other_pictures_are_refused_or_compared_on_the_common_ones(work, other, capsys):
    write_predictions(other.predictions, "test", rows(wordy=True)[:5])
    assert compare(work, runs="plain,other") == 2
    assert "8 of plain and 5 of other, which differ in 3, such as 5.png" in capsys.readouterr().err
    assert compare(work, "pictures=common", runs="plain,other") == 0
    content = json.loads((work / "out/compare.json").read_text())
    assert content["pictures"] == 5 and "meteor" not in content["numbers"]["plain"], "it is of all eight"


def test_runs_scored_against_other_references_are_refused(work, other, capsys):
    write_predictions(other.predictions, "test", [{**row, "references": ["x"]} for row in rows(wordy=True)])
    assert compare(work, runs="plain,other") == 2
    assert "expected the same references, got others of picture 0.png" in capsys.readouterr().err


def test_a_run_without_captions_of_the_split_is_refused_with_the_command_that_makes_them(work, capsys):
    assert compare(work, "split=val") == 2
    told = capsys.readouterr().err
    assert "expected captions of val" in told and "evaluate ckpt=" in told and "split=val" in told


@pytest.mark.parametrize("runs", ["plain", "plain,plain", "plain,nowhere"])
def test_fewer_than_two_runs_are_refused(work, runs, capsys):
    assert compare(work, runs=runs) == 2
    assert "expected" in capsys.readouterr().err


def test_runs_that_are_not_there_are_told_before_torch_is_imported(work, tmp_path, monkeypatch, capsys):
    """Whatever needs torch is in the task, which is not reached."""
    monkeypatch.setattr("capkit.cli.run_composed", lambda composed: pytest.fail("the task was started"))
    plain = work / "plain"
    (tmp_path / "empty").mkdir()
    for runs, told in (
        (f"{plain},{tmp_path}/missing", "no such folder"),
        (f"{tmp_path}/missing,{plain}", "no such folder"),
        (f"{plain},{tmp_path}/empty", "has no config.yaml"),
        (f"{plain},{plain}/../plain", "two different runs or more"),
        (f"{plain}", "two different runs or more"),
    ):
        assert main(["compare", f"runs=[{runs}]"]) == 2
        assert told in capsys.readouterr().err
