from dataclasses import replace

import numpy as np
import pytest
import torch

from capkit.errors import UsageError
from capkit.experts.base import Expert, Finding
from capkit.experts.zero_shot_tagger import ZeroShotTagger
from capkit.llm.base import Picture
from capkit.utils.tensors import unit

COLORS = {"red": (1.0, 0, 0), "green": (0, 1.0, 0), "blue": (0, 0, 1.0), "yellow": (1.0, 1.0, 0)}


class MeanColor:
    """Embeds a picture as its mean colour, and "a photo of red" as red."""

    name, prompt, max_length = "mean color", "", 8

    def preprocess(self, images):
        return torch.stack([torch.from_numpy(np.asarray(image)).permute(2, 0, 1).float() / 255 for image in images])

    def encode_image(self, pixels):
        return unit(pixels.mean((2, 3)))

    def encode_text(self, texts):
        assert all(text.startswith("a photo of ") for text in texts)
        return unit(torch.tensor([COLORS[text.split()[-1]] for text in texts]))

    def is_cut(self, texts):
        return [False] * len(texts)

    def to(self, device):
        return self

    def fingerprint_fields(self, side):
        return {"side": side}


def picture(color):
    return Picture(np.full((4, 6, 3), color, np.uint8))


@pytest.fixture
def tags(tmp_path):
    (tmp_path / "tags.txt").write_text("red\n\ngreen\nblue\nyellow\nred\n")
    return str(tmp_path / "tags.txt")


def test_tags_are_those_of_the_highest_cosine_in_order(tags):
    """Of (200, 120, 0), with |v| = 233.2: yellow 320 / (233.2 x 1.414) = .970, red .857, green .514, blue 0."""
    tagger = ZeroShotTagger(MeanColor(), tags, top=3)
    assert isinstance(tagger, Expert)
    found = tagger.look([picture((200, 120, 0)), picture((0, 10, 200))])
    assert [[item.text for item in row] for row in found] == [["yellow", "red", "green"], ["blue", "green", "yellow"]]
    scores = [item.score for item in found[0]]
    assert scores == pytest.approx([(1 + cosine) / 2 for cosine in (0.970, 0.857, 0.514)], abs=1e-3)
    assert replace(found[0][0], score=1.0) == Finding("tag", "yellow", expert="zero_shot_tagger/mean color")


def test_a_tag_does_not_depend_on_the_other_pictures(tags):
    tagger = ZeroShotTagger(MeanColor(), tags, top=1)
    pictures = [picture(color) for color in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    found = tagger.look(pictures)
    assert found == [tagger.look([one])[0] for one in pictures]
    assert [item.text for (item,) in found] == ["red", "green", "blue"]


def test_what_tags_depend_on_is_told(tags, tmp_path):
    (tmp_path / "fewer.txt").write_text("red\ngreen\n")
    about = ZeroShotTagger(MeanColor(), tags, top=1).about()
    for other in (
        ZeroShotTagger(MeanColor(), str(tmp_path / "fewer.txt"), top=1),
        ZeroShotTagger(MeanColor(), tags, top=2),
        ZeroShotTagger(MeanColor(), tags, top=1, prompt="a drawing of {}"),
    ):
        assert other.about() != about
    assert ZeroShotTagger(MeanColor(), tags, top=1).about() == about


def test_short_lists_and_prompts_without_a_place_are_refused(tags):
    with pytest.raises(UsageError, match="at least top=5 tags"):
        ZeroShotTagger(MeanColor(), tags, top=5)
    with pytest.raises(UsageError, match="where a tag's name goes"):
        ZeroShotTagger(MeanColor(), tags, top=1, prompt="a photo")
    with pytest.raises(UsageError, match="tags"):
        ZeroShotTagger(MeanColor(), tags + ".missing")
