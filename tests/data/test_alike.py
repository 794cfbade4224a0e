"""Copies that were resized or compressed are found, other pictures of the same kind are not."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from capkit.data.alike import alike_pairs, small_copy
from capkit.data.images import load_rgb
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.render import render
from capkit.sceneworld.world.scene import make_scene


def photo(seed, size=(160, 120)):
    """Smooth noise: large and small structure, as photos have."""
    rough = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(rough).resize(size, Image.Resampling.BICUBIC))


def jpeg(pixels, quality):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality)
    return load_rgb(buffer.getvalue())


def pairs(pictures):
    aspects = np.array([one.shape[1] / one.shape[0] for one in pictures])
    return alike_pairs(np.stack([small_copy(one) for one in pictures]), aspects)


def test_resized_and_compressed_copies_are_found():
    pictures = [photo(seed) for seed in range(30)]
    smaller = np.asarray(Image.fromarray(pictures[3]).resize((100, 75), Image.Resampling.LANCZOS))
    copies = [jpeg(pictures[0], 40), smaller, jpeg(smaller, 60), pictures[9]]
    assert pairs([*pictures, *copies]) == [(0, 30), (3, 31), (3, 32), (9, 33), (31, 32)]


@pytest.mark.parametrize("change", ["mirrored", "blurred away", "cropped", "of another aspect", "brighter"])
def test_what_is_another_picture_is_not_found(change):
    one = photo(0)
    image = Image.fromarray(one)
    other = {
        "mirrored": one[:, ::-1],
        "blurred away": np.asarray(image.filter(ImageFilter.GaussianBlur(30))),
        "cropped": one[20:, 20:],
        "of another aspect": np.asarray(image.resize((120, 120))),
        "brighter": np.clip(one.astype(int) + 20, 0, 255).astype(np.uint8),
    }[change]
    assert pairs([one, np.ascontiguousarray(other)]) == []


def test_scenes_that_differ_in_a_shape_are_not_found():
    scenes = [make_scene(WorldOptions(), 0, "test", index) for index in range(150)]
    found = pairs([render(scene, 64) for scene in scenes])
    assert [pair for pair in found if scenes[pair[0]] != scenes[pair[1]]] == []


def test_all_pairs_are_those_of_comparing_each_with_each():
    generator = np.random.default_rng(0)
    copies = (128 + generator.integers(-20, 20, (60, 16, 16, 3))).astype(np.uint8)
    copies[30:] = np.clip(copies[:30].astype(int) + generator.integers(-2, 3, (30, 1, 1, 3)), 0, 255)
    aspects = np.where(np.arange(60) % 7 == 0, 1.0, 1.5)
    naive = [
        (i, j)
        for i in range(60)
        for j in range(i + 1, 60)
        if np.abs(copies[i].astype(int) - copies[j].astype(int)).max() <= 24
        and np.abs(copies[i].mean((0, 1)) - copies[j].mean((0, 1))).max() <= 4
        and abs(aspects[i] / aspects[j] - 1) <= 0.04
    ]
    assert alike_pairs(copies, aspects) == naive and len(naive) > 20
