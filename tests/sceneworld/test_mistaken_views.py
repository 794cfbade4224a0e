"""Views whose captions have the wrong colour in a share: how many, which, and that all else is right."""

from dataclasses import replace

import pytest

from capkit.data.fingerprint import fingerprint
from capkit.sceneworld.language.oracles import score_caption
from capkit.sceneworld.language.parser import parse
from capkit.sceneworld.sources.mistaken_views import MistakenViews
from capkit.sceneworld.sources.object_views import ObjectViews
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import Scene

OPTIONS = WorldOptions(max_objects=1, inside_probability=0.0)


def views(count, options=OPTIONS, **settings):
    objects = ObjectViews(SceneWorld("train", count, 32, style="short", options=options), size=32)
    return objects, MistakenViews(objects, options, **settings)


def records(count, **settings):
    _, source = views(count, **settings)
    return [source.record(index) for index in range(len(source))]


def right(record):
    (caption,) = record.captions
    return score_caption(Scene.from_dict(record.metadata["scene"]), caption.text, []).precision == 1.0


@pytest.mark.unchecked
def test_a_share_of_views_has_another_colour_and_the_right_shape():
    found = records(60)
    wrong = [record for record in found if not right(record)]
    assert len(wrong) / 360 == pytest.approx(0.3, abs=0.1)  # four standard deviations
    assert all(record.metadata["mistaken"] == (record in wrong) for record in found)
    mentions = [parse(record.captions[0].text).mentions for record in wrong]
    for record, (mention,) in zip(wrong, mentions, strict=True):
        (item,) = Scene.from_dict(record.metadata["scene"]).objects
        assert mention.shape == item.shape and mention.attributes and ("color", item.color) not in mention.attributes
    assert len({color for (mention,) in mentions for color in mention.attributes}) == 8
    by_object = [[record.metadata["mistaken"] for record in found[i : i + 6]] for i in range(0, 360, 6)]
    assert 0 < sum(not any(group) for group in by_object) < 18  # .7 ** 6 = .118 of 60, if views err by themselves
    openers = [record.captions[0].text.startswith("picture of") for record in found]
    assert sum(openers) / 360 == pytest.approx(0.2, abs=0.09)  # one of five wordings


def test_wrong_colours_are_those_of_the_world():
    world = replace(OPTIONS, colors=["red", "green", "blue"])
    _, source = views(4, world, wrong=1.0)
    told = {a for i in range(24) for a in parse(source.record(i).captions[0].text).mentions[0].attributes}
    assert told == {("color", name) for name in world.colors}


@pytest.mark.unchecked
def test_draws_are_the_sources_own():
    assert records(2) == records(2) and records(2, seed=1) != records(2)
    assert all(map(right, records(2, wrong=0.0))) and not any(map(right, records(2, wrong=1.0)))
    objects, source = views(2)
    assert fingerprint(source) == fingerprint(views(2)[1]) != fingerprint(views(2, seed=1)[1])
    assert (source.image(3) == objects.image(3)).all() and source.record(3).object == objects.record(3).object
    assert not source.is_rejected("a red circle")
