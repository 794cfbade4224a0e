"""Questions and their answers."""

from collections import Counter

from capkit.sceneworld.language.captions import questions
from capkit.sceneworld.language.facts import scene_facts
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import Scene, SceneObject, make_scene

HAND = Scene(
    (
        SceneObject("circle", "red", "large", 1 / 6, 0.5),
        SceneObject("star", "orange", "small", 0.5, 0.5),
        SceneObject("star", "red", "small", 5 / 6, 0.5),
    ),
    "gray",
)


def test_questions_of_a_scene_worked_by_hand() -> None:
    answers = {item.text: item.answer for item in questions(HAND) if item.kind != "exists"}
    assert answers == {
        "how many shapes are there?": "three",
        "how many circles are there?": "one",
        "how many stars are there?": "two",
        "what color is the circle?": "red",
        "what size is the circle?": "large",
        "where is the circle?": "middle left",
        "what shape is orange?": "star",
        "what is the background?": "gray",
        "is the red circle to the left of the orange star?": "yes",
        "is the orange star to the left of the red circle?": "no",
        "is the red circle to the left of the red star?": "yes",
        "is the red star to the left of the red circle?": "no",
        "is the orange star to the left of the red star?": "yes",
        "is the red star to the left of the orange star?": "no",
    }


def test_answers_are_among_the_choices_and_rest_on_true_facts() -> None:
    for index in range(150):
        scene = make_scene(WorldOptions(text_probability=0.5), 0, "train", index)
        found = questions(scene)
        assert len({item.text for item in found}) == len(found)
        facts = set(scene_facts(scene))
        for item in found:
            assert item.answer in item.choices and len(set(item.choices)) == len(item.choices)
            assert set(item.facts) <= facts
        kinds = Counter(item.kind for item in found)
        assert kinds["exists"] == 2 and kinds["background"] == 1 and kinds["text"] == (scene.text is not None)


def test_yes_and_no_are_equally_frequent() -> None:
    answers: Counter[tuple[str, str]] = Counter()
    for index in range(100):
        for item in questions(make_scene(WorldOptions(), 0, "train", index)):
            answers[item.kind, item.answer] += 1
    for kind in ("exists", "relation"):
        assert answers[kind, "yes"] == answers[kind, "no"] > 50


def test_what_is_asked_for_and_absent_is_absent() -> None:
    for index in range(200):
        scene = make_scene(WorldOptions(), 0, "train", index)
        present = {f"{item.color} {item.shape}" for item in scene.objects}
        for item in questions(scene, seed=index):
            if item.kind == "exists":
                asked = item.text.removesuffix("?").split(" ", 3)[3]
                assert (asked in present) == (item.answer == "yes"), item.text
