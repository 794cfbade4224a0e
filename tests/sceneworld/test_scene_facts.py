"""Facts, relations and the scene graph, by hand."""

import json

from capkit.sceneworld.language.facts import PLACES, relations, scene_facts, scene_graph
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import Scene, SceneObject, SceneText, make_scene

# a red circle top left with a blue star in it, a green square bottom right
HAND = Scene(
    (
        SceneObject("circle", "red", "large", 1 / 6, 1 / 6),
        SceneObject("star", "blue", "small", 1 / 6, 1 / 6, inside=0),
        SceneObject("square", "green", "small", 5 / 6, 5 / 6),
    ),
    "gray",
    SceneText("hi", 0.5, 0.5),
)


def test_facts_of_a_scene_worked_by_hand() -> None:
    assert set(scene_facts(HAND)) == {
        "shape:0=circle", "color:0=red", "size:0=large", "place:0=top left",
        "shape:1=star", "color:1=blue", "size:1=small", "place:1=top left",
        "shape:2=square", "color:2=green", "size:2=small", "place:2=bottom right",
        "left:0,2", "left:1,2", "above:0,2", "above:1,2", "inside:1,0",
        "count:object=3", "count:circle=1", "count:star=1", "count:square=1", "background=gray", "text=hi",
    }  # fmt: skip


def test_places_are_named_by_row_and_column() -> None:
    assert PLACES[0] == "top left" and PLACES[4] == "center" and PLACES[5] == "bottom center"
    assert PLACES[7] == "middle right" and len(set(PLACES)) == 9


def test_relations_are_antisymmetric_and_have_clear_margins() -> None:
    for index in range(200):
        scene = make_scene(WorldOptions(), 0, "train", index)
        found = relations(scene)
        assert len(set(found)) == len(found)
        for name, i, j in found:
            assert (name, j, i) not in found
            a, b = scene.objects[i], scene.objects[j]
            if name != "inside":
                gap = b.x - a.x if name == "left" else b.y - a.y
                assert gap * 64 > 13  # half a cell is 10.7 pixels


def test_the_scene_graph_is_plain_json_with_the_same_relations() -> None:
    graph = json.loads(json.dumps(scene_graph(HAND)))
    assert graph["relations"] == [list(item) for item in relations(HAND)]
    assert graph["objects"][1]["color"] == "blue" and graph["objects"][2]["place"] == "bottom right"
    assert graph["background"] == "gray" and graph["text"] == "hi"
