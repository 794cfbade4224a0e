"""task=align as the command line composes it: scores in shards and after a kill, and the edges of their bins."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from killed import run_and_kill
from omegaconf import OmegaConf
from PIL import Image

from capkit.config.arguments import parse
from capkit.config.compose import compose_config
from capkit.curation.scores import ScoreFile
from capkit.data.alignment_bins import AlignmentBins
from capkit.data.records import Caption, Record, read_manifest, write_manifest
from capkit.data.sources.manifest import Manifest
from capkit.errors import UsageError
from capkit.sceneworld.language.oracles import score_caption
from capkit.sceneworld.scorers import Facts
from capkit.sceneworld.world.scene import Scene
from capkit.scorers.base import BaseScorer
from capkit.scorers.flatten import unflatten_scores
from capkit.tasks.align import run

WORDS = ["data=sceneworld_graded_noise", "data.train.source.count=40", "scorer=noisy_facts", "batch_size=4"]


class LoggingFacts(Facts):
    """Facts that write down each key they score, and take their time."""

    def __init__(self, log_file: str, delay_s: float = 0.0) -> None:
        super().__init__()
        self.log_file, self.delay_s = log_file, delay_s

    def __call__(self, batch, samples):
        time.sleep(self.delay_s)
        with open(self.log_file, "a") as file:
            file.writelines(f"{key}\n" for key in batch.keys)
        return super().__call__(batch, samples)


class Mean(BaseScorer):
    """The mean of a picture's pixels; NaN where it cannot be read."""

    def attach_images(self, read):
        self.read = read

    def __call__(self, batch, samples):
        pictures = [self.read(key) for key in batch.keys]
        return unflatten_scores([float("nan") if p is None else float(p.mean()) for p in pictures], samples)


def aligned(*words, scorer=None):
    """Runs the task; `scorer` replaces the one of the config."""
    config = compose_config(parse(["align", *words])).config
    OmegaConf.set_struct(config, False)
    if scorer is not None:
        config.scorer = scorer
    return run(config)


def logging(log, **settings):
    return {"_target_": f"{LoggingFacts.__module__}.LoggingFacts", "log_file": str(log), **settings}


def asked(log):
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_each_caption_gets_the_score_of_its_scene_and_the_picture_stays(work):
    numbers = aligned(*WORDS, "scorer.error=0", "out=a", "bins=4")
    manifest, bins = Manifest("a/train.jsonl"), AlignmentBins.read("a/bins.json")
    assert len(manifest) == 40 and numbers["scored"] == 40 and numbers["unscored"] == 0
    for index in range(40):
        record = manifest.record(index)
        scene, facts = Scene.from_dict(record.metadata["scene"]), record.metadata["stated_facts"]
        (caption,) = record.captions
        assert caption.score == pytest.approx(score_caption(scene, caption.text, facts).f1)
        assert manifest.image(index).shape == (32, 32, 3)
    in_bins = [bins(record.captions[0].score) for record in read_manifest("a/train.jsonl")]
    assert [numbers[f"bin_{number}"] for number in range(4)] == np.bincount(in_bins, minlength=4).tolist()
    assert (bins.edges[0], bins.edges[-1]) == (0.0, 1.0)  # boilerplate, and a clean caption


def test_paths_are_printed_letter_by_letter(work, capsys):
    aligned(*WORDS, "out=':dog:'")
    assert "scores: :dog:/train.jsonl\nbins: :dog:/bins.json\n" in capsys.readouterr().out


def test_shards_are_one_and_the_last_one_writes_the_bins(work):
    aligned(*WORDS, "out=one")
    for shard in (2, 0, 1):
        assert not Path("three/bins.json").exists()
        aligned(*WORDS, "out=three", f"shard={shard}", "num_shards=3")
    for name in ("train.jsonl", "bins.json"):
        assert Path("one", name).read_bytes() == Path("three", name).read_bytes()


def test_other_bins_need_no_new_scores(work):
    log = work / "asked.txt"
    aligned(*WORDS, "out=a", scorer=logging(log))
    assert asked(log) == 40
    aligned(*WORDS, "out=a", "bins=3", scorer=logging(log))
    assert asked(log) == 40 and len(AlignmentBins.read("a/bins.json")) == 3


def test_scores_go_on_behind_the_last_whole_batch(work):
    """A batch of four that a kill cut off after three lines and a half is scored anew as a whole."""
    log = work / "asked.txt"
    aligned(*WORDS, "out=whole", scorer=logging(log))
    before = asked(log)
    lines = [json.dumps([r.key, [c.score for c in r.captions]]) for r in read_manifest("whole/train.jsonl")]
    Path("cut").mkdir()
    Path("cut/train-00000-of-00001.scores.jsonl").write_text("\n".join(lines[:15]) + "\n" + lines[15][:9])
    aligned(*WORDS, "out=cut", scorer=logging(log))
    assert asked(log) - before == 40 - 12
    for name in ("train.jsonl", "bins.json"):
        assert Path("whole", name).read_bytes() == Path("cut", name).read_bytes()
    assert not list(Path("cut").glob("*.scores.jsonl"))


def test_scores_of_other_records_are_refused(work):
    write_manifest("in.jsonl", [Record("a", captions=[Caption("x")]), Record("b", captions=[Caption("y")])])
    Path("s.jsonl").write_text('["a", [0.5]]\n["c", [0.5]]\n')
    with pytest.raises(UsageError, match="expected 1 scores of record 'b', got 1 of 'c': the data changed"):
        list(ScoreFile(Path("s.jsonl"), 2).records(Manifest("in.jsonl"), range(2)))


SCRIPT = """
from align_helper import aligned, logging, WORDS
aligned(*WORDS, "out=a", scorer=logging("asked.txt", delay_s=0.2))
"""


@pytest.mark.integration
def test_a_killed_run_goes_on(work):
    """Killed (SIGKILL) in the middle of ten batches of four; one batch at most is scored twice."""
    (work / "align_helper.py").write_text(Path(__file__).read_text())
    log = work / "asked.txt"
    run_and_kill(SCRIPT, work, lambda: asked(log) >= 16)
    before = asked(log)
    assert 16 <= before < 40 and not Path("a/train.jsonl").exists()
    aligned(*WORDS, "out=a", scorer=logging("asked.txt"))
    assert asked(log) <= 40 + 4
    aligned(*WORDS, "out=whole", scorer=logging(work / "other.txt"))
    assert Path("a/train.jsonl").read_text() == Path("whole/train.jsonl").read_text()


def pictures(greys, captions):
    """Words that read a manifest of grey pictures, the files of None empty; `captions` are numbers of captions."""
    records = []
    for number, (grey, count) in enumerate(zip(greys, captions, strict=True)):
        Path(f"{number}.png").write_bytes(b"")
        if grey is not None:
            Image.new("RGB", (4, 4), (grey,) * 3).save(f"{number}.png")
        records.append(Record(f"k{number}", f"{number}.png", [Caption(f"word{place}") for place in range(count)]))
    write_manifest("in.jsonl", records)
    return ["data=manifest", *(f"data.{split}.path=in.jsonl" for split in ("train", "val", "test")), "out=a"]


MEAN = {"_target_": f"{Mean.__module__}.Mean"}


def test_a_picture_that_cannot_be_read_leaves_its_captions_without_a_score(work):
    numbers = aligned(*pictures([10, 200, None], [2, 2, 2]), "bins=2", scorer=MEAN)
    assert numbers == {"scored": 4, "unscored": 2, "bin_0": 2, "bin_1": 2}
    found = {record.key: [caption.score for caption in record.captions] for record in read_manifest("a/train.jsonl")}
    assert found == {"k0": [10, 10], "k1": [200, 200], "k2": [None, None]}
    assert Manifest("a/train.jsonl").record(0).image == str(work / "0.png")


@pytest.mark.integration
def test_bins_of_equal_width_with_few_captions_are_warned_of_by_name(work, capfd):
    """Three bins of 10 to 40: 150 captions, 149, and one, which is less than 1 % of 300."""
    words = pictures([10, 25, 40], [150, 149, 1])
    aligned(*words, "bins=3", scorer=MEAN)
    told = capfd.readouterr().err
    assert "fewer than 1 % of the 300 captions" in told and ": bin 2 (30 to 40): 1; give strategy" in told
    aligned(*words, "bins=2", scorer=MEAN)
    assert "fewer than" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["split=predict"], "no predict source"),
        (["shard=0"], "expected both shard and num_shards"),
    ],
)
def test_what_cannot_run_is_told(work, words, reason):
    with pytest.raises(UsageError, match=reason):
        aligned(*WORDS, "out=a", *words)


@pytest.mark.parametrize(
    ("scorer", "reason"),
    [
        ({"_target_": "capkit.scorers.cider.CiderD"}, "document frequencies, which would differ from shard to shard"),
        (
            {"_target_": "capkit.scorers.shuffled.Shuffled", "scorer": {"_target_": "capkit.sceneworld.scorers.Facts"}},
            "task=align: expected a scorer that scores each caption by itself",
        ),
    ],
)
def test_scores_that_depend_on_other_captions_are_refused(work, scorer, reason):
    with pytest.raises(UsageError, match=reason):
        aligned(*WORDS, "out=a", scorer=scorer)


def test_a_folder_of_another_scorer_is_not_mixed_with(work):
    aligned(*WORDS, "out=a")
    with pytest.raises(UsageError, match=r"other settings:\n  scorer.error: 0.12 -> 0.2"):
        aligned(*WORDS, "scorer.error=0.2", "out=a")
