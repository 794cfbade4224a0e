"""Alignment levels on SceneWorld (NoC, Kang et al. 2023): a captioner of noisy captions, asked for the best level.

One caption a picture, most of them noisy in grades (no colours, wrong facts, boilerplate, another picture's caption);
the scorer errs by a standard deviation of .12. Pictures are read by the frozen image tower of a committed dual encoder.
What is true is read from the scenes. Studies see twice as many captions, at other shares of noise too, and compare
with the filter. The tables stand in docs/noc.md.
"""

import pytest

from benchmarks.levels import VANILLA, Corpus, Setting, encoder_words
from capkit.metrics.correlation import spearman

pytestmark = [pytest.mark.effect, pytest.mark.xdist_group("noc")]

SETTING = Setting()
BINS = SETTING.bins
FILTERED = [*VANILLA, "data.min_score=0.3"]
LONG = ["data.batch_size=32", "max_steps=450", "val_every=450", "data.test.count=200"]  # of studies


@pytest.fixture(scope="session")
def corpus(tmp_path_factory, run_once, start, seed):
    found = {}

    def of(share, *scorer):
        if (share, *scorer) not in found:
            folder = tmp_path_factory.mktemp("noc")
            found[share, *scorer] = Corpus(folder, run_once, start("judge", 0), seed, SETTING).align(share, *scorer)
        return found[share, *scorer]

    return of


def test_the_top_level_is_better_than_no_levels(corpus, measured):
    """Fails where captioner or data drop the level: then all of them write as the one without levels does."""
    of = corpus(0.8)
    assert measured("fact F1 of the top level over vanilla", of.f1() - of.f1(*VANILLA), ">=", 0.2)


def test_a_higher_level_fits_better_and_the_lowest_worse_than_no_levels(corpus, measured):
    of = corpus(0.8)
    values, vanilla = of.of_levels(), of.f1(*VANILLA)
    assert measured("Spearman's correlation of level and fact F1", spearman(range(BINS), values), ">=", 0.9)
    assert measured("fact F1 of the lowest level over vanilla", values[0] - vanilla, "<", 0.0)


def test_levels_that_were_shuffled_over_captions_say_nothing(corpus, measured):
    """The control: captions of the top and of the bottom are as good as each other."""
    values = corpus(0.8).shuffled().of_levels()
    assert measured("difference of top and bottom", abs(values[-1] - values[0]), "<", 0.05)
    assert not measured(
        "fact F1 of the top level over the bottom", values[-1] - values[0], ">=", 0.2, "shuffled levels"
    )


@pytest.mark.study
@pytest.mark.parametrize("share", [0.8, 0.9])
def test_the_top_level_is_better_than_no_levels_and_than_filtering(corpus, share, measured):
    of = corpus(share)
    top, vanilla, filtered = of.f1(*LONG), of.f1(*VANILLA, *LONG), of.f1(*FILTERED, *LONG)
    assert measured("fact F1 of the top level over vanilla", top - vanilla, ">=", 0.2)
    assert measured("fact F1 of the top level over the filter's", top - filtered, ">", 0.0)


@pytest.mark.study
def test_at_less_noise_the_top_level_is_better_than_no_levels(corpus, measured):
    """By less: at 60 % a captioner without levels sees twice as many clean captions as at 80 %."""
    of = corpus(0.6)
    top, vanilla = of.f1(*LONG), of.f1(*VANILLA, *LONG)
    assert measured("fact F1 of the top level over vanilla", top - vanilla, ">", 0.0)


@pytest.fixture(scope="session")
def of_one_object(run_once, seed):
    return run_once(f"one_object_{seed}", encoder_words(seed))


@pytest.mark.study
def test_levels_of_a_trained_dual_encoders_scores_are_worth_something_too(corpus, of_one_object, measured):
    """Its top bin holds half of the corpus, so that .2 is not asked for. The control: the same scores, shuffled."""
    what, wanted = "fact F1 of the top level over vanilla", 0.05
    of = corpus(0.8, "scorer=cosine_trained", f"scorer.encoder.ckpt={of_one_object}")
    vanilla = of.f1(*VANILLA, *LONG)
    assert measured(what, of.f1(*LONG) - vanilla, ">=", wanted)
    assert not measured(what, of.shuffled().f1(*LONG) - vanilla, ">=", wanted, "shuffled scores")
