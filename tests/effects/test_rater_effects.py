"""Raters on SceneWorld: Compress & Align from rankings, MLBCAP's filter from grades.

Captions of two objects, of which three in five name a wrong object, are cut off, or are boilerplate. How good a caption
is comes from the scene: the F1 of its facts and those of a complete caption. The rater stands on the frozen embeddings
of a committed dual encoder of such captions, whose cosine it has to beat. Controls: a head that was not trained,
rankings whose captions are dealt anew within each picture, grades of other captions. The tables are in docs/raters.md.

Centering, the number of steps and the encoder were chosen on seed 0: without centering, pairs are ordered as well, and
the best 40 % hold fewer flawless captions than by the cosine. How long captioners train and what they have to gain was
chosen on seeds 5, 6 and 7: after 400 steps how far one of all captions has come differs much, so that gains are means
over seeds; after 1,000 it has nearly caught up.
"""

import json
from statistics import mean

import numpy as np
import pytest
import torch

from benchmarks.scene_ratings import captioned, grades, quality, rankings
from capkit.checkpoint.loading import load_dual_encoder
from capkit.checkpoint.raters import load_rater
from capkit.cli import main
from capkit.curation.scores import score_records
from capkit.metrics.correlation import kendall
from capkit.metrics.rating import RatedCaptions, rating_numbers
from capkit.sceneworld.world.scene import Scene
from capkit.scorers.clip_score import Cosine
from capkit.scorers.rater import RaterScore
from capkit.utils.rng import generator

pytestmark = [pytest.mark.effect, pytest.mark.xdist_group("raters")]

ONE_CORE = ["trainer=cpu", "trainer.devices=1", "controls=0"]
ACCURACY, GAIN, NUM_TESTED, NUM_WEB, SHARE = 0.85, 0.2, 300, 2000, 0.4
CIDER, F1 = 1.0, 0.07  # midway between what kept captions and those kept by chance gain on seeds 5, 6, 7


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def dealt_anew(rows, seed):
    """Rankings that say nothing: the captions of each in an order that is drawn, under the places that were given."""
    for row in rows:
        order = generator(seed, "dealt", row["image"]).permutation(len(row["captions"]))
        yield {**row, "captions": [row["captions"][place] for place in order]}


@pytest.fixture(scope="session")
def fit(run_once, start, tmp_path_factory):
    """The run folder of a rater of these rows."""
    files = tmp_path_factory.mktemp("ratings")

    def run(experiment, name, rows, seed, *words):
        given = [f"experiment={experiment}", f"seed={seed}", f"model.encoder.ckpt={start('web_judge', 0)}", *ONE_CORE]
        given += [f"data.{key}.seed={seed}" for key in ("train", "train.source", "val", "test")]
        return run_once(name, [*given, f"ratings={write(files / f'{name}-{seed}.jsonl', rows)}", *words])

    return run


@pytest.fixture(scope="session")
def ranked(fit, tmp_path_factory):
    """The run folder of a rater of rankings, or of rankings dealt anew."""
    folder = tmp_path_factory.mktemp("tested")

    def run(name, seed):
        rows = rankings("train", 500, seed)
        tested = write(folder / f"{seed}.jsonl", rankings("test", NUM_TESTED, seed))
        given = rows if name == "rankings" else dealt_anew(rows, seed)
        return fit("compress_align_rater_sceneworld", name, given, seed, f"test_ratings={tested}")

    return run


@pytest.fixture(scope="session")
def graded(fit):
    """The run folder of a rater of grades, or of grades of other captions."""

    def run(name, seed):
        rows = list(grades("train", 3000, seed))
        if name != "grades":
            order = generator(seed, "others").permutation(len(rows))
            rows = [{**row, "score": rows[place]["score"]} for row, place in zip(rows, order, strict=True)]
        return fit("mlbcap_filter_rater_sceneworld", name, rows, seed)

    return run


@pytest.fixture(scope="module")
def rater(ranked, seed):
    return ranked("rankings", seed)


@pytest.fixture(scope="module")
def dealt(ranked, seed):
    return ranked("dealt", seed)


@pytest.fixture(scope="module")
def grader(graded, seed):
    return graded("grades", seed)


@pytest.fixture(scope="module")
def grader_of_others(graded, seed):
    return graded("grades of others", seed)


class Web:
    """Captions of the web that no rater was trained on: of other scenes than those of the ratings."""

    def __init__(self, seed, count=NUM_WEB):
        source = captioned("train", 5000 + count, seed, 1)
        self._source, self._first = source, 5000
        self.records = [source.record(5000 + index) for index in range(count)]
        self.worth = np.array(
            [quality(Scene.from_dict(record.metadata["scene"]), record.captions[0].text) for record in self.records]
        )

    def scores(self, scorer):
        places = {record.key: self._first + place for place, record in enumerate(self.records)}
        scorer.prepare(lambda key: self._source.image(places[key]), list, "cpu")
        return np.concatenate(score_records(scorer, self.records))

    def good(self, scores):
        """The share of flawless captions among the best 40 %."""
        return float((self.worth[np.argsort(-scores)[: int(SHARE * len(scores))]] == 1).mean())


@pytest.fixture(scope="module")
def web(seed):
    return Web(seed)


def numbers_of(run):
    return json.loads((run / "metrics.json").read_text())


def cosine_of(start):
    return Cosine(load_dual_encoder(str(start("web_judge", 0))))


def scorer_of(run):
    return RaterScore(load_rater(str(run)))


class HeldOut:
    """The test rankings, and the accuracy of numbers that are given for their captions."""

    def __init__(self, seed):
        source, self.rows = captioned("test", NUM_TESTED, seed, 4), list(rankings("test", NUM_TESTED, seed))
        places = {source.record(index).key: index for index in range(NUM_TESTED)}
        self.pictures = [source.image(places[row["image"]]) for row in self.rows]
        self.owners = [number for number, row in enumerate(self.rows) for _ in row["captions"]]
        self.texts = [text for row in self.rows for text in row["captions"]]

    def accuracy(self, numbers):
        numbers, found = iter(numbers), []
        for row in self.rows:
            worth = [0.0] * len(row["captions"])
            for place, entry in enumerate(row["ranking"]):
                for number in entry if isinstance(entry, list) else [entry]:
                    worth[number] = -float(place)
            found.append(RatedCaptions(row["captions"], [next(numbers) for _ in worth], worth))
        return rating_numbers(found)["accuracy"]


@pytest.fixture(scope="module")
def tested(seed):
    return HeldOut(seed)


@pytest.fixture(scope="module")
def cosine_accuracy(tested, start):
    """The accuracy of the dual encoder's cosine on the test rankings."""
    encoder = load_dual_encoder(str(start("web_judge", 0)))
    pictures = encoder.encode_image(encoder.preprocess(tested.pictures))
    return tested.accuracy((pictures[tested.owners] * encoder.encode_text(tested.texts)).sum(1).tolist())


def untrained_accuracy(run, tested, seed):
    """That of the rater with a head as training starts from, on the same embeddings."""
    rater = load_rater(str(run))
    torch.manual_seed(seed)
    rater.head[0].reset_parameters()
    rater.head[-1].reset_parameters()
    return tested.accuracy(rater.rate(rater.preprocess(tested.pictures), tested.owners, tested.texts).tolist())


def test_pairs_are_ordered_as_the_scene_orders_them_and_not_by_length(rater, tested, cosine_accuracy, seed, measured):
    numbers = numbers_of(rater)
    assert measured("accuracy", numbers["test/accuracy"], ">=", ACCURACY)
    assert measured("accuracy - that of the cosine", numbers["test/accuracy"] - cosine_accuracy, ">", 0)
    assert measured("correlation with length", abs(numbers["test/length_correlation"]), "<", 0.3)
    chance = untrained_accuracy(rater, tested, seed)
    assert not measured("accuracy", chance, ">=", ACCURACY, "no training")
    assert not measured("accuracy - that of the cosine", chance - cosine_accuracy, ">", 0, "no training")


def test_rankings_dealt_anew_teach_no_order(dealt, cosine_accuracy, measured):
    chance, control = numbers_of(dealt)["test/accuracy"], "rankings dealt anew"
    assert not measured("accuracy", chance, ">=", ACCURACY, control)
    assert not measured("accuracy - that of the cosine", chance - cosine_accuracy, ">", 0, control)
    assert measured("accuracy of rankings dealt anew - .5", abs(chance - 0.5), "<=", 0.05)


@pytest.mark.nightly
def test_the_best_captions_of_the_web_are_good_ones(rater, dealt, web, start, measured):
    kept, random = web.good(web.scores(scorer_of(rater))), float((web.worth == 1).mean())
    assert measured("good of the best 40 % - of all", kept - random, ">=", GAIN)
    assert measured("good of the best 40 % - by cosine", kept - web.good(web.scores(cosine_of(start))), ">", 0)
    chance = web.good(web.scores(scorer_of(dealt)))
    assert not measured("good of the best 40 % - of all", chance - random, ">=", GAIN, "rankings dealt anew")


@pytest.mark.nightly
def test_distilled_grades_follow_the_true_quality(grader, grader_of_others, web, measured):
    tau = kendall(web.scores(scorer_of(grader)), web.worth)
    assert measured("Kendall's tau with the true quality", tau, ">=", 0.5)
    control = kendall(web.scores(scorer_of(grader_of_others)), web.worth)
    assert not measured("Kendall's tau with the true quality", control, ">=", 0.5, "grades of other captions")


AS_MANY = ["step.keep_best.threshold=null", "step.keep_best.share=0.5"]  # about as 5 and 6 are of true grades


@pytest.fixture(scope="session")
def curated(ranked, graded, tmp_path_factory):
    """The file of what a rater keeps of 4,000 captions, or of all."""
    folder = tmp_path_factory.mktemp("curated")
    align, filtered = "experiment=compress_align_sceneworld", "experiment=mlbcap_filter_sceneworld"
    kept = {
        "rankings": (ranked, [align]),
        "dealt": (ranked, [align]),
        "grades": (graded, [filtered]),
        "grades of others": (graded, [filtered, *AS_MANY]),
    }

    def file(name, seed):
        step = ["step=[]", "data=sceneworld_web", "data.train.source.count=4000"]
        if name != "all":
            rater, step = kept[name]
            step = [*step, f"reward.rater.scorer.rater.ckpt={rater(name, seed)}"]
        out = folder / f"{name} {seed}"
        if not out.exists():
            web = [f"data.train.{key}seed={seed}" for key in ("", "source.")]
            assert main(["curate", *step, *web, "splits=[train]", f"out={out}"]) == 0
        return out / "train.jsonl"

    return file


@pytest.fixture(scope="session")
def gain(run_once, curated):
    """What captioners of the captions that a rater keeps of 4,000 gain over those of all; the mean over seeds."""

    def numbers(name, seed):
        train = [
            "data=sceneworld_aligned", f"data.train.path={curated(name, seed)}", "model=sceneworld_small",
            "max_steps=400", "val_every=400", "optimizer.lr=4e-3", "decoding.max_length=16", "eval_limit=200",
            f"seed={seed}", f"data.val.seed={seed}", f"data.test.seed={seed}", *ONE_CORE,
        ]  # fmt: skip
        return numbers_of(run_once(f"captioner {name}", train))

    return lambda name, number, seeds: mean(numbers(name, s)[number] - numbers("all", s)[number] for s in seeds)


def flawless(file):
    flaws = [flaw for line in file.read_text().splitlines() for flaw in json.loads(line)["metadata"]["flaws"]]
    return flaws.count("") / len(flaws)


@pytest.mark.nightly
def test_what_is_kept_is_flawless_more_often(curated, seed, measured):
    """Of one seed, captioners of captions kept by chance are sometimes ahead as well (1.06 on seed 0)."""
    of_all = flawless(curated("all", seed))
    assert measured("flawless of the kept - of all", flawless(curated("rankings", seed)) - of_all, ">=", GAIN)
    chance, control = flawless(curated("dealt", seed)), "rankings dealt anew"
    assert not measured("flawless of the kept - of all", chance - of_all, ">=", GAIN, control)


@pytest.mark.nightly
def test_captioners_of_the_captions_kept_beat_those_of_all(gain, seeds, measured):
    assert measured("CIDEr of the kept - of all", gain("rankings", "test/cider", seeds), ">", CIDER)


@pytest.mark.study
def test_captioners_of_captions_kept_by_chance_do_not(gain, seeds, measured):
    chance, control = gain("dealt", "test/cider", seeds), "rankings dealt anew"
    assert not measured("CIDEr of the kept - of all", chance, ">", CIDER, control)


@pytest.mark.nightly
def test_captioners_of_high_grades_beat_those_of_all(gain, seeds, measured):
    assert measured("fact F1 of grades 5 and 6 - of all", gain("grades", "test/fact_f1", seeds), ">", F1)


@pytest.mark.study
def test_captioners_of_high_grades_of_other_captions_do_not(gain, seeds, measured):
    chance, control = gain("grades of others", "test/fact_f1", seeds), "grades of other captions"
    assert not measured("fact F1 of grades 5 and 6 - of all", chance, ">", F1, control)
