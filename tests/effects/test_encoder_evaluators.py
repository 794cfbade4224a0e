"""A dual encoder trained on SceneWorld: what zero-shot, similarity and composed queries say of it.

The labels, the shared facts and the recoloured pictures come from the scenes. The control is the encoder before its
first step, which must fail every threshold.
"""

import pytest

from capkit.run.folder import RunFolder

pytestmark = pytest.mark.effect


@pytest.fixture(scope="module")
def runs(sceneworld_clips):
    """The numbers of a run for each seed."""
    return [RunFolder(folder).metrics() for folder in sceneworld_clips]


@pytest.mark.parametrize("name", ["zero_shot_scenes", "zero_shot_holdout"])
def test_colour_and_shape_are_named_also_where_never_seen_together(runs, name):
    """A reader of colours alone is right in one shape of six."""
    for numbers in runs:
        for part, threshold in (("color", 0.9), ("shape", 3 / 6)):
            assert numbers[f"test/{name}_{part}"] > threshold
            assert numbers[f"test/untrained/{name}_{part}"] < threshold


def test_cosines_of_captions_follow_the_facts_that_they_share(runs):
    threshold = 0.5
    for numbers in runs:
        assert numbers["test/sts_scenes_pearson"] > threshold
        assert numbers["test/untrained/sts_scenes_pearson"] < threshold


def test_image_plus_and_minus_words_finds_the_recoloured_picture_that_the_image_alone_does_not(runs):
    def gain(numbers, prefix):
        return numbers[f"{prefix}/composed_scenes_r1"] - numbers[f"{prefix}/composed_scenes_image_only_r1"]

    threshold = 0.1
    for numbers in runs:
        assert gain(numbers, "test") > threshold
        assert gain(numbers, "test/untrained") < threshold
        assert numbers["test/composed_scenes_r1"] > numbers["test/composed_scenes_text_only_r1"] + threshold
