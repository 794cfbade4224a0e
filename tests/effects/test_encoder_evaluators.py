"""A dual encoder trained on SceneWorld: what zero-shot, similarity and composed queries say of it.

The labels, the shared facts and the recoloured pictures come from the scenes. The control is the encoder before its
first step, which must fail every threshold.
"""

import pytest

from capkit.run.folder import RunFolder

pytestmark = pytest.mark.effect


@pytest.fixture(scope="module")
def numbers(sceneworld_clip):
    return RunFolder(sceneworld_clip).metrics()


@pytest.mark.parametrize("name", ["zero_shot_scenes", "zero_shot_holdout"])
def test_colour_and_shape_are_named_also_where_never_seen_together(numbers, name, measured):
    """A reader of colours alone is right in one shape of six."""
    for part, threshold in (("color", 0.9), ("shape", 3 / 6)):
        assert measured(part, numbers[f"test/{name}_{part}"], ">", threshold)
        assert not measured(part, numbers[f"test/untrained/{name}_{part}"], ">", threshold, control="untrained")


def test_cosines_of_captions_follow_the_facts_that_they_share(numbers, measured):
    threshold = 0.6
    assert measured("Pearson", numbers["test/sts_scenes_pearson"], ">", threshold)
    assert not measured("Pearson", numbers["test/untrained/sts_scenes_pearson"], ">", threshold, control="untrained")


def test_image_plus_and_minus_words_finds_the_recoloured_picture_that_the_image_alone_does_not(numbers, measured):
    def gain(prefix, over):
        return numbers[f"{prefix}/composed_scenes_r1"] - numbers[f"{prefix}/composed_scenes_{over}_only_r1"]

    threshold, name = 0.1, "R@1 over the image alone"
    assert measured(name, gain("test", "image"), ">", threshold)
    assert not measured(name, gain("test/untrained", "image"), ">", threshold, control="untrained")
    assert measured("R@1 over the words alone", gain("test", "text"), ">", threshold)
