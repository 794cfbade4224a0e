import math
from importlib.util import find_spec

import pytest
import torch

from capkit.data.records import Record
from capkit.errors import UsageError
from capkit.evaluators.labels import label_of
from capkit.evaluators.zero_shot import TEMPLATES, ZeroShot
from capkit.sceneworld.world.classes import color_shape_classes
from capkit.sceneworld.world.scene import Scene, WorldOptions, make_scene

# Two templates of each class point 0 and 90 degrees apart for "cat", so that its mean lies at 45 degrees.
TEXTS = {
    "a cat": [1.0, 0, 0], "the cat": [0, 1.0, 0],
    "a dog": [0, 0, 1.0], "the dog": [0, 0, 1.0],
    "a hen": [0, -1.0, 0], "the hen": [0, -1.0, 0],
}  # fmt: skip
IMAGES = [[1.0, 1.0, 0], [1.0, 0, 0.9], [0, 0, 1.0], [0.0, -1.0, 0.1]]
ROWS = [(f"k{i}", [], {"label": name}) for i, name in enumerate(["cat", "dog", "dog", "hen"])]
ARGS = {"classes": ["cat", "dog", "hen"], "templates": ["a {}", "the {}"]}


def test_the_classifier_is_the_normalised_mean_over_templates_by_hand(table, listed, data_of, tmp_path, rows_in):
    numbers = ZeroShot(**ARGS)(table(IMAGES, TEXTS), data_of(test=listed(ROWS)), tmp_path)
    # k1 (1, 0, .9) / 1.345: cat (1, 1, 0) / sqrt(2) gives .526, dog (0, 0, 1) gives .669. All right.
    assert numbers["zero_shot_top1"] == 1
    assert numbers["zero_shot_chance"] == pytest.approx(1 / 3)
    assert numbers["zero_shot_classes"] == 3 and numbers["zero_shot_images"] == 4
    assert rows_in(tmp_path / "zero_shot.jsonl")[1] == {"key": "k1", "label": "dog", "prediction": "dog", "rank": 1.0}


def test_one_template_alone_would_decide_otherwise(table, listed, data_of, tmp_path):
    # cos with the plain first template "a cat" is 1 / 1.345 = .743 > .669: one template alone errs
    numbers = ZeroShot(ARGS["classes"], templates=["a {}"])(table(IMAGES, TEXTS), data_of(test=listed(ROWS)), tmp_path)
    assert numbers["zero_shot_top1"] == pytest.approx(3 / 4)
    # dog: 1 of 2; cat and hen: 1 of 1
    assert numbers["zero_shot_per_class"] == pytest.approx((1 + 0.5 + 1) / 3)


@pytest.fixture
def as_they_are(table):
    """Texts embedded at the norms of the table, as by an encoder that does not normalise."""

    class AsTheyAre(table):
        def encode_text(self, texts):
            return torch.tensor([self.texts[text] for text in texts])

    return AsTheyAre


@pytest.mark.parametrize("image", [[1.0, 1.0, 1.2], [1.0, 0.0, 0.5]])
def test_templates_of_unequal_norm_count_alike_and_so_do_classes_whose_templates_disagree(
    image, as_they_are, listed, data_of, tmp_path
):
    """Catches a mean over templates, or a class mean, that is left unnormalised; the working:

    Cat's templates (1, 0, 0) and (0, 3, 0) have the normalised mean c = (1, 1, 0) / sqrt(2), dog's are (0, 0, 1) twice.
    Image (1, 1, 1.2): c gives 2 / sqrt(2) = 1.41 > 1.2, but the mean (1, 1, 0) / 2 of unit vectors 1 < 1.2.
    Image (1, 0, .5): c gives 1 / sqrt(2) = .71 > .5, but the direction of (1, 3, 0), the plain sum, .32 < .5.
    """
    texts = {"a cat": [1.0, 0, 0], "the cat": [0, 3.0, 0], "a dog": [0, 0, 1.0], "the dog": [0, 0, 1.0]}
    data = data_of(test=listed([("k0", [], {"label": "cat"})]))
    numbers = ZeroShot(["cat", "dog"], templates=["a {}", "the {}"])(as_they_are([image], texts), data, tmp_path)
    assert numbers["zero_shot_top1"] == 1


def test_each_word_of_a_label_is_counted_by_itself(table, listed, data_of, tmp_path):
    texts = {"red cat": [1.0, 0, 0], "red dog": [0, 1.0, 0], "tan dog": [0, 0, 1.0]}
    # predicted: red dog, tan dog, red cat. Colours right: 2 of 3; animals right: 1 of 3; both: none.
    images = [[0, 1.0, 0], [0, 0, 1.0], [1.0, 0, 0]]
    rows = [(f"k{i}", [], {"label": name}) for i, name in enumerate(["red cat", "red dog", "red dog"])]
    numbers = ZeroShot(list(texts), templates=["{}"], parts=["color", "animal"])(
        table(images, texts), data_of(test=listed(rows)), tmp_path
    )
    assert (numbers["zero_shot_color"], numbers["zero_shot_animal"]) == pytest.approx((2 / 3, 1 / 3))
    assert numbers["zero_shot_top1"] == 0


def test_top5_counts_the_first_five(table, listed, data_of, tmp_path):
    names = [f"c{i}" for i in range(8)]
    texts = {name: [math.cos(i / 5), math.sin(i / 5)] for i, name in enumerate(names)}
    rows = [(name, [], {"label": name}) for name in names]
    encoder = table([[1.0, 0.0]] * 8, texts)
    numbers = ZeroShot(names, templates=["{}"])(encoder, data_of(test=listed(rows)), tmp_path)
    assert numbers["zero_shot_top1"] == pytest.approx(1 / 8)
    assert numbers["zero_shot_top5"] == pytest.approx(5 / 8)


def test_equal_classes_count_by_chance(table, listed, data_of, tmp_path):
    texts = {"x": [1.0, 0], "y": [1.0, 0], "z": [0, 1.0]}
    numbers = ZeroShot(["x", "y", "z"], templates=["{}"])(
        table([[1.0, 0]] * 2, texts),
        data_of(test=listed([("1", [], {"label": "x"}), ("2", [], {"label": "y"})])),
        tmp_path,
    )
    assert numbers["zero_shot_top1"] == pytest.approx(1 / 2)


def test_labels_words_and_templates_come_from_files_and_nested_metadata(table, listed, data_of, tmp_path):
    (tmp_path / "classes.txt").write_text("n01\tcat\nn02\tdog\n\n")
    (tmp_path / "templates.txt").write_text("a {}\nthe {}\n")
    rows = [("k0", [], {"x": {"ids": ["n01"]}}), ("k1", [], {"x": {"ids": ["n02"]}})]
    evaluator = ZeroShot(str(tmp_path / "classes.txt"), "{x[ids][0]}", str(tmp_path / "templates.txt"))
    encoder = table(IMAGES, TEXTS)
    assert evaluator(encoder, data_of(test=listed(rows)), tmp_path)["zero_shot_top1"] == 1
    assert sorted(encoder.seen_texts) == ["a cat", "a dog", "the cat", "the dog"]


def test_the_published_templates_for_imagenet_come_by_name():
    templates = ZeroShot(["cat", "dog"], templates="openai_imagenet").templates
    known = {"a photo of a {}.", "itap of my {}.", "the {} in a video game."}
    assert len(set(templates)) == 80 and known < set(templates)
    with pytest.raises(UsageError, match=r"templates: no file 'imagenet'.*or one of openai_imagenet"):
        ZeroShot(["cat", "dog"], templates="imagenet")


@pytest.mark.skipif(find_spec("open_clip") is None, reason="compares with open_clip, which is not installed")
def test_the_published_templates_are_those_that_open_clip_has():
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

    published = sorted(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)
    assert ZeroShot(["cat", "dog"], templates="openai_imagenet").templates == published


def test_images_may_come_from_a_source_of_its_own(table, listed, data_of, tmp_path):
    numbers = ZeroShot(**ARGS, source=listed(ROWS), name="own")(
        table(IMAGES, TEXTS), data_of(test=listed([])), tmp_path
    )
    assert numbers["own_top1"] == 1


def test_a_second_run_encodes_nothing(table, listed, data_of, tmp_path):
    data = data_of(test=listed(ROWS))
    numbers = ZeroShot(**ARGS)(table(IMAGES, TEXTS), data, tmp_path)
    again = table(IMAGES, TEXTS)
    assert ZeroShot(**ARGS)(again, data, tmp_path) == numbers
    assert again.seen_images == again.seen_texts == []


def test_the_shipped_templates_have_one_place_each_and_differ():
    assert len(set(TEMPLATES)) == len(TEMPLATES) == 8
    assert ZeroShot(["a", "b"]).templates == list(TEMPLATES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["cat", "cat"]}, "2 or more distinct"),
        ({"classes": ["cat"]}, "2 or more distinct"),
        ({"classes": "missing.txt"}, "no file 'missing.txt'"),
        ({"classes": []}, "classes is empty"),
        ({"templates": ["a photo"]}, "expected a template with {} once"),
        ({"label": "label"}, "in braces"),
        ({"parts": ["color", "shape"]}, r"expected labels of 2 words, got 'cat'; name each word"),
    ],
)
def test_wrong_arguments_say_what_is_wanted(change, message):
    with pytest.raises(UsageError, match=message):
        ZeroShot(**(ARGS | change))


def test_labels_that_are_no_class_or_not_there_are_named(table, listed, data_of, tmp_path):
    unknown = data_of(test=listed([("k0", [], {"label": "cut"})]))
    with pytest.raises(UsageError, match=r"expected a label among the classes, got 'cut'; did you mean 'cat'\?"):
        ZeroShot(**ARGS)(table(IMAGES, TEXTS), unknown, tmp_path)
    absent = data_of(test=listed([("k0", [], {"other": "cat"})]))
    with pytest.raises(UsageError, match=r"finds nothing in the metadata of 'k0', which has \['other'\]"):
        ZeroShot(**ARGS)(table(IMAGES, TEXTS), absent, tmp_path)


def test_single_object_scenes_are_labelled_by_the_scene():
    names = [line.split("\t")[0] for line in color_shape_classes()]
    assert len(set(names)) == 48 and "orange circle\tan orange circle" in color_shape_classes()
    for split in ("test", "holdout"):
        scenes = [make_scene(WorldOptions(max_objects=1), 0, split, index) for index in range(20)]
        for (item,) in (scene.objects for scene in scenes):
            record = Record("x", metadata={"scene": Scene((item,), "white").to_dict()})
            label = label_of(record, "{scene[objects][0][color]} {scene[objects][0][shape]}")
            assert label == f"{item.color} {item.shape}" and label in names
            assert ((item.shape, item.color) in WorldOptions().holdout_pairs) == (split == "holdout")
