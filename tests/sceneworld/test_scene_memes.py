from collections import defaultdict
from itertools import combinations

import pytest

from capkit.sceneworld.memes import COOL, EARNEST, GROUP, IRONIC, KIND, PRINTED, UNKIND, WARM, make_meme
from capkit.sceneworld.world.options import COLORS, SHAPES

MEMES = [make_meme(0, "train", index) for index in range(50 * GROUP)]
PARTS = ("scene", "text", "meaning")


def words(text):
    return set(text.replace(",", "").split())


def test_the_label_is_the_parity_of_warm_colour_unkind_text_and_irony():
    for meme in MEMES:
        (item,) = meme.scene.objects
        warm, unkind, ironic = item.color in WARM, bool(words(meme.text) & set(UNKIND)), meme.meaning in IRONIC
        assert unkind != bool(words(meme.text) & set(KIND)) and ironic != (meme.meaning in EARNEST)
        assert meme.label == (warm + unkind + ironic) % 2


@pytest.mark.parametrize("parts", [*combinations(PARTS, 1), *combinations(PARTS, 2)], ids="+".join)
def test_whoever_lacks_one_of_the_three_sees_both_labels_equally_often(parts):
    labels = defaultdict(list)
    for number, meme in enumerate(MEMES):
        labels[(number // GROUP, *(getattr(meme, part) for part in parts))].append(meme.label)
    assert all(sum(found) * 2 == len(found) for found in labels.values())


def test_all_three_together_tell_the_label():
    labels = defaultdict(set)
    for number, meme in enumerate(MEMES):
        labels[(number // GROUP, *(getattr(meme, part) for part in PARTS))].add(meme.label)
    assert len(labels) == len(MEMES) and {len(found) for found in labels.values()} == {1}


def test_the_informative_caption_tells_the_meaning_and_neither_tells_colour_or_text():
    places = []
    for meme in MEMES:
        informative, generic = meme.captions[meme.informative], meme.captions[1 - meme.informative]
        assert words(informative) & {*EARNEST, *IRONIC} == {meme.meaning}
        assert not words(generic) & {*EARNEST, *IRONIC} and len(words(generic) & set(PRINTED)) == 1
        for caption in meme.captions:
            assert not words(caption) & {*COLORS, *KIND, *UNKIND}
            assert words(caption) & set(SHAPES) == {meme.scene.objects[0].shape}
        places.append(meme.informative)
    assert 0.4 < sum(places) / len(places) < 0.6


def test_captions_that_name_the_colour_change_nothing_else():
    for index, meme in enumerate(MEMES[:80]):
        named = make_meme(0, "train", index, names_color=True)
        color = meme.scene.objects[0].color
        assert (named.scene, named.text, named.label) == (meme.scene, meme.text, meme.label)
        for plain, colored in zip(meme.captions, named.captions, strict=True):
            assert words(colored) - words(plain) - {"an", "a"} == {color}


def test_pictures_carry_no_text_and_splits_share_none():
    assert all(meme.scene.text is None for meme in MEMES)
    test = {make_meme(0, "test", index).scene for index in range(50 * GROUP)}
    assert not test & {meme.scene for meme in MEMES}


def test_a_meme_depends_on_its_place_alone():
    assert make_meme(0, "train", 7) == MEMES[7] and make_meme(1, "train", 7) != MEMES[7]
    assert set(WARM) | set(COOL) == set(COLORS)


@pytest.mark.unchecked
def test_of_rare_irony_the_share_is_as_asked_and_the_label_is_still_the_parity():
    memes = [make_meme(0, "train", index, ironic=0.2) for index in range(75 * GROUP)]
    ironic = [meme.meaning in IRONIC for meme in memes]
    assert 0.14 < sum(ironic) / len(memes) < 0.26
    for index, (meme, is_ironic) in enumerate(zip(memes, ironic, strict=True)):
        even = make_meme(0, "train", index)
        assert (meme.scene, meme.text) == (even.scene, even.text)
        assert meme.label == even.label ^ (is_ironic != (even.meaning in IRONIC))


@pytest.mark.unchecked
def test_refused_memes_come_in_whole_groups_and_lack_the_informative_caption_alone():
    memes = [make_meme(0, "train", index, refused=0.25) for index in range(100 * GROUP)]
    empty = [not meme.captions[meme.informative] for meme in memes]
    assert 0.15 < sum(empty) / len(empty) < 0.35
    assert all(len(set(empty[start : start + GROUP])) == 1 for start in range(0, len(empty), GROUP))
    assert all(meme.captions[1 - meme.informative] for meme in memes)
    kept = [meme for meme, is_empty in zip(memes, empty, strict=True) if not is_empty]
    assert kept == [make_meme(0, "train", i) for i, is_empty in enumerate(empty) if not is_empty]
