"""Pictures show what the scene says."""

import numpy as np
import pytest

from capkit.errors import UsageError
from capkit.sceneworld.world.glyphs import draw_word
from capkit.sceneworld.world.options import COLORS, SHAPES, WorldOptions
from capkit.sceneworld.world.render import masks, render, sprite
from capkit.sceneworld.world.scene import Scene, SceneObject, SceneText, make_scene

SCENES = [make_scene(WorldOptions(shapes=SHAPES, text_probability=0.3), 0, "train", i) for i in range(60)]


@pytest.mark.parametrize("size", [32, 64, 97, 224])
def test_each_mask_is_filled_with_its_objects_colour_and_nothing_else_is(size: int) -> None:
    for scene in SCENES[: 1000 // size]:
        image, layers = render(scene, size), masks(scene, size)
        assert image.shape == (size, size, 3) and layers.shape == (len(scene.objects), size, size)
        for item, layer in zip(scene.objects, layers, strict=True):
            assert layer.any() and (image[layer] == COLORS[item.color]).all()
        colors = {tuple(pixel) for pixel in np.unique(image[~layers.any(axis=0)], axis=0).tolist()}
        assert not colors & set(COLORS.values())


def test_masks_do_not_overlap_and_an_inner_object_leaves_a_rim() -> None:
    for scene in SCENES:
        layers = masks(scene, 64)
        assert layers.sum(axis=0).max() <= 1
        for item, layer in zip(scene.objects, layers, strict=True):
            if item.inside is not None:
                rows, columns = np.nonzero(layer)
                outer = layers[item.inside]
                around = np.zeros_like(outer)
                around[rows.min() - 1 : rows.max() + 2, columns.min() - 1 : columns.max() + 2] = True
                ring = around & ~layer
                assert (outer | layer)[ring].mean() > 0.9


def test_boxes_agree_with_masks_to_rounding_and_the_tips_of_pointed_shapes() -> None:
    for scene in SCENES:
        for item, layer in zip(scene.objects, masks(scene, 64), strict=True):
            if any(other.inside == scene.objects.index(item) for other in scene.objects):
                continue
            rows, columns = np.nonzero(layer)
            tight = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            off = 0.5 if item.shape in ("circle", "square") else 2  # tips end between pixel centres
            assert np.abs(np.array(tight) - 64 * np.array(item.box)).max() <= off + 0.01, item


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pixels", [11, 18, 40])
def test_shapes_fill_their_square_and_differ(shape: str, pixels: int) -> None:
    mask = sprite(shape, pixels)
    rows, columns = np.nonzero(mask)
    assert min(rows.max() - rows.min(), columns.max() - columns.min()) + 1 >= 0.87 * pixels
    for other in SHAPES:
        difference = (mask ^ sprite(other, pixels)).mean()
        assert difference > 0.1 if other != shape else difference == 0


def test_the_circle_has_the_area_of_a_circle_and_the_triangle_half_its_square() -> None:
    assert sprite("circle", 200).mean() == pytest.approx(np.pi / 4, abs=0.01)
    assert sprite("triangle", 200).mean() == pytest.approx(0.5, abs=0.01)
    assert sprite("diamond", 200).mean() == pytest.approx(0.5, abs=0.01)
    assert sprite("square", 200).mean() == 1


def test_colours_and_backgrounds_are_far_apart() -> None:
    plain = [render(Scene((), name), 64)[0, 0].astype(int) for name in ("white", "gray", "black")]
    colors = [np.array(rgb) for rgb in COLORS.values()] + plain
    distances = [np.linalg.norm(a - b) for i, a in enumerate(colors) for b in colors[:i]]
    assert min(distances) > 80


def test_drawn_text_is_readable_back_from_the_picture() -> None:
    for background, ink in (("white", 0), ("black", 255)):
        scene = Scene((), background, SceneText("sun", 0.5, 0.5))
        image = render(scene, 64)
        assert ((image == ink).all(axis=2)).sum() == draw_word("sun").sum()
        rows, columns = np.nonzero((image == ink).all(axis=2))
        found = (image == ink).all(axis=2)[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert (found == draw_word("sun")).all()


def test_glyphs_differ() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    assert len({draw_word(letter).tobytes() for letter in letters}) == 36
    assert draw_word("ab", scale=3).shape == (21, 33)


def test_striped_background_has_two_tones() -> None:
    image = render(Scene((SceneObject("circle", "red", "small", 0.5, 0.5),), "striped"), 64)
    assert {tuple(pixel) for pixel in image[:, 0].tolist()} == {(245, 245, 245), (196, 196, 196)}


def test_a_picture_too_small_to_read_is_refused() -> None:
    with pytest.raises(UsageError, match="32"):
        render(SCENES[0], 16)


def test_a_word_that_runs_over_the_edge_is_refused() -> None:
    """Three letters are 17 pixels wide; a word of the left column of 32 pixels is centred at 5."""
    scene = Scene((), "white", SceneText("sun", 1 / 6, 1 / 2))
    with pytest.raises(UsageError, match="the word 'sun' is 17 pixels wide and runs over the edge of 32 pixels"):
        render(scene, 32)
    assert render(scene, 64).min() == 0
