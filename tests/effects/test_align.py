"""ALIGN (Jia et al. 2021): many noisy pairs beat few clean ones, and as few noisy ones are worst.

Both towers are trained from scratch, so that wrong captions are met by pictures and words alike: experiment
align_pretrain_sceneworld with 4,800 pairs, a third of which have another picture's captions, against 150 clean ones.
Few pairs are learned by heart, so each run is judged at its best validated step. What is right comes from the scenes:
the picture that a test caption was written for, among 100.

Controls, which must miss the threshold: clean pairs without the numbers; noise without the numbers; the many noisy
pairs with a temperature that is not learned.
"""

import pytest

from capkit.run.folder import RunFolder

pytestmark = pytest.mark.effect

RECALL = 0.5
FEW = ["data.train.source.count=150", "max_steps=300"]  # more steps only overfit: docs/dual_encoders.md
CLEAN = ["data.train.share=0"]
FIXED = ["model.learn_scale=false", "~optimizer.lr_multipliers"]


@pytest.fixture(scope="module")
def recall(run_once):
    """R@1 of captions among 100 test pictures, of the experiment with a seed and further words."""
    words = ["experiment=align_pretrain_sceneworld", "controls=0", "trainer=cpu", "trainer.devices=1"]

    def after(seed, *further):
        run = RunFolder(run_once(f"align {seed}", [*words, f"seed={seed}", *further]))
        return run.metrics()["test/retrieval_fold100_t2i_r1"]

    return after


def test_as_few_pairs_with_a_third_wrong_are_worse_than_clean_ones(recall, seed, measured):
    noisy, clean = recall(seed, *FEW), recall(seed, *FEW, *CLEAN)
    assert measured("R@1 that noise costs 150 pairs", clean - noisy, ">", 0.1)
    assert not measured("R@1", noisy, ">", RECALL, control="150 pairs, a third wrong")


def test_many_pairs_with_a_third_wrong_beat_few_clean_ones(recall, seed, measured):
    assert measured("R@1", recall(seed), ">", RECALL)
    assert not measured("R@1", recall(seed, *FEW, *CLEAN), ">", RECALL, control="150 clean pairs")


@pytest.mark.nightly
def test_noisy_pairs_need_a_learned_temperature(recall, seed, measured):
    assert measured("R@1", recall(seed), ">", RECALL)
    assert not measured("R@1", recall(seed, *FIXED), ">", RECALL, control="temperature 1 throughout")
