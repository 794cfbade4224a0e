"""A planted habit, by the scenes: how often the second sentence follows the first, and that all else is true."""

import pytest

from capkit.data.fingerprint import fingerprint
from capkit.data.sources.base import DataSource, Preparable
from capkit.errors import UsageError
from capkit.sceneworld.language.oracles import score_caption
from capkit.sceneworld.language.parser import parse
from capkit.sceneworld.sources.habitual import HabitualCaptions
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import Scene

WORLD = WorldOptions(
    shapes=["circle", "square", "triangle", "cross"], sizes=["large"], backgrounds=["white", "black"],
    min_objects=4, max_objects=4, inside_probability=0.0,
)  # fmt: skip


def habitual(folder, count=150, **settings):
    return HabitualCaptions(
        SceneWorld("train", count, size=32, style="short", options=WORLD, cache_dir=str(folder)), **settings
    )


def shapes(text):
    parsed = parse(text)
    assert not parsed.unparsed
    return [mention.shape for mention in parsed.mentions]


def rows(source):
    for index in range(len(source)):
        record = source.record(index)
        there = {item.shape for item in Scene.from_dict(record.metadata["scene"]).objects}
        for caption in record.captions:
            yield there, shapes(caption.text), record


def test_nine_of_ten_captions_with_a_circle_go_on_with_a_cross(tmp_path):
    follows = [
        said[said.index("circle") + 1 :][:1] == ["cross"] for _, said, _ in rows(habitual(tmp_path)) if "circle" in said
    ]
    assert sum(follows) / len(follows) == pytest.approx(0.9, abs=0.04)


def test_everything_else_is_true_and_said_once(tmp_path):
    made_up = 0
    for there, said, record in rows(habitual(tmp_path, 60)):
        assert len(said) == len(set(said)) and there <= set(said)
        wrong = set(said) - there
        assert wrong <= ({"cross"} if "circle" in there else set())
        made_up += len(wrong)
        scene = Scene.from_dict(record.metadata["scene"])
        first = " ".join(f"{shape}." for shape in sorted(there))
        assert score_caption(scene, first, record.metadata["stated_facts"]).recall == 1.0
    assert made_up > 40


def test_without_the_habit_captions_are_true(tmp_path):
    assert all(set(said) == there for there, said, _ in rows(habitual(tmp_path, 20, added=0.0)))


def test_it_is_a_source_whose_draws_are_its_seeds(tmp_path):
    source = habitual(tmp_path, 20)
    assert isinstance(source, DataSource) and isinstance(source, Preparable)
    texts = [[caption.text for caption in source.record(i).captions] for i in range(50)]
    assert texts == [[caption.text for caption in habitual(tmp_path, 20).record(i).captions] for i in range(50)]
    other = habitual(tmp_path, 20, seed=1)
    assert texts != [[caption.text for caption in other.record(i).captions] for i in range(50)]
    changed = [habitual(tmp_path, 20, **{name: value}) for name, value in
               {"seed": 1, "added": 0.5, "after": "square", "then": "triangle"}.items()]  # fmt: skip
    assert len({fingerprint(one) for one in [source, *changed]}) == 5


def test_a_habit_needs_two_shapes(tmp_path):
    with pytest.raises(UsageError, match="'sun' is not one of"):
        habitual(tmp_path, then="sun")
    with pytest.raises(UsageError, match="after=then=circle"):
        habitual(tmp_path, then="circle")
