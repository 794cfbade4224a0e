import pytest

from capkit.errors import UsageError
from capkit.sceneworld.language.captions import references
from capkit.sceneworld.metrics.chair import SceneChair
from capkit.sceneworld.world.options import SHAPES, WorldOptions
from capkit.sceneworld.world.scene import make_scene


def _scene(seed):
    return make_scene(WorldOptions(), seed, "train", 0)


def _score(captions, scenes):
    return SceneChair().score(captions, [[] for _ in captions], [{"scene": scene.to_dict()} for scene in scenes])


def _there(scene):
    return scene.objects[0]


def _absent(scene):
    return next(shape for shape in SHAPES if shape not in {item.shape for item in scene.objects})


def test_the_grammars_own_captions_hallucinate_nothing():
    scenes = [_scene(seed) for seed in range(30)]
    texts = [(text, scene) for scene in scenes for text in references(scene)]
    numbers = _score([text for text, _ in texts], [scene for _, scene in texts])
    assert numbers["scene_chair_i"] == numbers["scene_chair_s"] == 0
    assert numbers["scene_chair_i_color"] == numbers["scene_chair_s_color"] == 0
    assert numbers["scene_chair_mentions"] > 0.9


def test_an_absent_shape_is_one_hallucination():
    scene = _scene(1)
    numbers = _score([f"a {_there(scene).shape} and a {_absent(scene)}"], [scene])
    assert numbers["scene_chair_i"] == pytest.approx(1 / 2)
    assert numbers["scene_chair_s"] == 1


def test_a_wrong_colour_is_absent_by_colour_only():
    scene = _scene(2)
    item = _there(scene)
    wrong = next(c for c in ("red", "blue", "green", "pink") if f"{c} {item.shape}" not in _colored(scene))
    numbers = _score([f"a {wrong} {item.shape}", f"a {item.color} {item.shape}"], [scene, scene])
    assert numbers["scene_chair_i"] == 0
    assert numbers["scene_chair_i_color"] == pytest.approx(1 / 2)


def _colored(scene):
    return {f"{item.color} {item.shape}" for item in scene.objects}


def test_captions_of_other_scenes_do_hallucinate():
    scenes = [_scene(seed) for seed in range(30)]
    texts = [references(scene)[0] for scene in scenes]
    assert _score(texts, scenes[1:] + scenes[:1])["scene_chair_s"] > 0.5


def test_other_data_is_refused():
    with pytest.raises(UsageError, match="SceneWorld"):
        SceneChair().score(["a circle"], [[]], [{}])
