from collections import defaultdict

import pytest

from capkit.sceneworld.memes import COOL, GROUP, KIND, UNKIND, WARM, make_meme
from capkit.sceneworld.world.options import COLORS

MEMES = [make_meme(0, "train", index) for index in range(50 * GROUP)]


def words(text):
    return set(text.split())


def test_the_label_is_the_exclusive_or_of_warm_colour_and_unkind_text():
    for meme in MEMES:
        warm, unkind = meme.scene.objects[0].color in WARM, bool(words(meme.text) & set(UNKIND))
        assert unkind != bool(words(meme.text) & set(KIND))
        assert meme.label == (1 if warm + unkind == 1 else 0)


@pytest.mark.parametrize("part", ["scene", "text"])
def test_every_picture_and_every_text_has_both_labels_equally_often(part):
    labels = defaultdict(list)
    for meme in MEMES:
        labels[getattr(meme, part)].append(meme.label)
    assert all(sum(found) * 2 == len(found) for found in labels.values())


def test_one_caption_names_the_colour_and_the_text_the_other_neither():
    places = []
    for meme in MEMES:
        informative, generic = meme.captions[meme.informative], meme.captions[1 - meme.informative]
        assert meme.scene.objects[0].color in words(informative) and informative.endswith(meme.text)
        assert not words(generic) & {*COLORS, *KIND, *UNKIND}
        assert meme.scene.objects[0].shape in words(generic)
        places.append(meme.informative)
    assert 0.4 < sum(places) / len(places) < 0.6


def test_pictures_carry_no_text_and_splits_share_none():
    assert all(meme.scene.text is None for meme in MEMES)
    test = {make_meme(0, "test", index).scene for index in range(50 * GROUP)}
    assert not test & {meme.scene for meme in MEMES}


def test_a_meme_depends_on_its_place_alone():
    assert make_meme(0, "train", 7) == MEMES[7] and make_meme(1, "train", 7) != MEMES[7]
    assert set(WARM) | set(COOL) == set(COLORS)


@pytest.mark.unchecked
def test_refused_memes_come_in_whole_groups_and_lack_the_informative_caption_alone():
    memes = [make_meme(0, "train", index, refused=0.25) for index in range(100 * GROUP)]
    empty = [not meme.captions[meme.informative] for meme in memes]
    assert 0.15 < sum(empty) / len(empty) < 0.35
    assert all(len(set(empty[start : start + GROUP])) == 1 for start in range(0, len(empty), GROUP))
    assert all(meme.captions[1 - meme.informative] for meme in memes)
    kept = [meme for meme, is_empty in zip(memes, empty, strict=True) if not is_empty]
    assert kept == [make_meme(0, "train", i) for i, is_empty in enumerate(empty) if not is_empty]
