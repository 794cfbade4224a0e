"""Texts of objects' boxes: true, of the length that was asked for, and mirrored by the world's own rule."""

import numpy as np
import pytest

from capkit.errors import UsageError
from capkit.sceneworld.language.captions import reference_captions
from capkit.sceneworld.language.facts import PLACES, scene_facts
from capkit.sceneworld.language.mirroring import mirrored_fact, mirrored_text
from capkit.sceneworld.language.oracles import score_caption
from capkit.sceneworld.language.parser import parse
from capkit.sceneworld.language.regions import LENGTHS, RegionTexts, regions_of, text_of_length
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.options import COLORS, WorldOptions
from capkit.sceneworld.world.render import render
from capkit.sceneworld.world.scene import Scene, make_scene

SCENES = [make_scene(WorldOptions(max_objects=5), 0, "train", index) for index in range(60)]
OBJECTS = [(scene, item) for scene in SCENES for item in scene.objects]


@pytest.mark.parametrize("num_words", LENGTHS)
def test_a_text_has_the_words_asked_for_and_all_are_understood_and_true(num_words):
    attributes = {1: set(), 2: {"color"}, 3: {"color", "size"}, 4: {"color", "size"}}
    for _, item in OBJECTS:
        text = text_of_length(item, num_words)
        parsed = parse(text)
        assert len(text.split()) == num_words and not parsed.unparsed and len(parsed.mentions) == 1
        told = dict(parsed.mentions[0].attributes)
        assert parsed.mentions[0].shape == item.shape
        assert set(told) == attributes.get(num_words, {"color", "size", "place"})
        true = {"color": item.color, "size": item.size, "place": PLACES[item.cell]}
        assert told == {kind: true[kind] for kind in told}


def test_texts_of_another_object_are_wrong_somewhere():
    """Control of the test above: what is said depends on the object."""
    pairs = [(scene.objects[0], scene.objects[1]) for scene in SCENES if len(scene.objects) > 1]
    wrong = [text_of_length(one, 6) != text_of_length(other, 6) for one, other in pairs]
    assert all(wrong)


def test_regions_hold_their_objects_and_statements_are_true():
    texts = RegionTexts(lengths=[1, 3], statements=True)
    for scene in SCENES[:20]:
        regions = regions_of(scene, texts)
        assert len(regions) == 5 * len(scene.objects)
        for item, own in zip(scene.objects, np.array(regions, dtype=object).reshape(-1, 5), strict=True):
            assert {region.box for region in own} == {item.box}
            assert [region.text for region in own] == [
                item.shape, f"{item.size} {item.color} {item.shape}", f"the colour is {item.color}",
                f"the size is {item.size}", f"the shape is {item.shape}",
            ]  # fmt: skip


def test_an_objects_colour_is_in_its_box_and_nowhere_else_unless_another_object_has_it():
    for scene in SCENES[:20]:
        pixels = render(scene, 64)
        for region, item in zip(regions_of(scene, RegionTexts(lengths=[1])), scene.objects, strict=True):
            if sum(other.color == item.color for other in scene.objects) > 1:
                continue
            rows, columns = np.nonzero((pixels == COLORS[item.color]).all(-1))
            x0, y0, x1, y1 = (edge * 64 for edge in region.box)
            assert x0 - 1 <= columns.min() and columns.max() < x1 + 1 and y0 - 1 <= rows.min() and rows.max() < y1 + 1


@pytest.mark.parametrize("wrong", [{"lengths": [7]}, {"lengths": [1, 1]}, {"lengths": []}])
def test_wrong_lengths_are_refused(wrong):
    with pytest.raises(UsageError, match="expected"):
        RegionTexts(**wrong)


# the source ----------------------------------------------------------------------------------------------------------


def source(tmp_path, **options):
    return SceneWorld("train", 8, cache_dir=str(tmp_path), **options)


def test_the_source_gives_regions_if_asked_and_its_fingerprint_tells(tmp_path):
    plain, boxed = source(tmp_path), source(tmp_path, regions=RegionTexts())
    assert plain.record(3).regions == [] and plain.record(3).captions == boxed.record(3).captions
    assert len(boxed.record(3).regions) == 6 * len(Scene.from_dict(boxed.record(3).metadata["scene"]).objects)
    others = (plain, boxed, source(tmp_path, regions=RegionTexts(statements=True)))
    assert len({other.fingerprint() for other in others}) == 3


@pytest.mark.parametrize("style", ["short", "human", "dense"])
def test_captions_and_facts_of_the_mirror_image_are_true_of_it(tmp_path, style):
    """By the mirrored scene's own facts. Control: captions that stay as they are are wrong of many mirror images."""
    world = source(tmp_path, style=style, regions=RegionTexts())
    kept_true = []
    for index in range(8):
        record = world.record(index)
        scene = Scene.from_dict(record.metadata["scene"])
        mirrored = world.mirrored(record)
        image = Scene.from_dict(mirrored.metadata["scene"])
        for item, other in zip(scene.objects, image.objects, strict=True):
            assert item.x + other.x == pytest.approx(1) and item.shape == other.shape
        stated = mirrored.metadata["stated_facts"]
        assert set(stated) <= set(scene_facts(image)) and len(stated) == len(record.metadata["stated_facts"])
        for caption in mirrored.captions:
            score = score_caption(image, caption.text, stated)
            assert score.f1 == 1 and not score.num_unparsed
        for region in mirrored.regions:
            assert score_caption(image, region.text, []).precision == 1
        assert [region.box for region in mirrored.regions] == [region.box for region in record.regions]
        kept_true += [score_caption(image, caption.text, stated).precision == 1 for caption in record.captions]
    if style != "short":
        assert np.mean(kept_true) < 0.8
    assert world.mirrored(world.mirrored(record)).captions == record.captions


def test_the_mirrored_scene_is_the_scene_of_the_mirrored_picture():
    """Up to the pixel that an object's corner is rounded to."""
    for scene in SCENES[:20]:
        differs = (render(scene, 64)[:, ::-1] != render(scene.mirrored(), 64)).any(-1).mean()
        assert differs < 0.1 * len(scene.objects) + 0.01
        if {item.shape for item in scene.objects} <= {"circle", "square"}:
            assert differs < 0.05


def test_a_scene_with_drawn_letters_is_not_mirrored(tmp_path):
    world = source(tmp_path, options=WorldOptions(text_probability=1.0))
    assert world.mirrored(world.record(0)) is None


def test_mirroring_by_hand():
    assert mirrored_text("a star left of a moon in the top right") == "a star right of a moon in the top left"
    assert mirrored_fact("left:0,3") == "left:3,0" and mirrored_fact("place:2=top left") == "place:2=top right"
    assert mirrored_fact("text=left") == "text=left" and mirrored_fact("above:0,1") == "above:0,1"


def test_generated_captions_are_read_as_before():
    """Places without "in the" are new to the parser: what it makes of generated captions is what they state."""
    for scene in SCENES[:10]:
        for style in ("short", "human", "dense"):
            for caption in reference_captions(scene, style):
                assert score_caption(scene, caption.text, caption.facts).f1 == 1
