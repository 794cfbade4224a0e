"""Copies that were resized or compressed are found, other pictures of the same kind are not."""

import io
import time

import numpy as np
import pytest
from PIL import Image, ImageFilter

from capkit.data import alike
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


@pytest.mark.parametrize("few", [200_000, -1], ids=["one by one", "by sets of all"])
def test_all_pairs_are_those_of_comparing_each_with_each(monkeypatch, few):
    monkeypatch.setattr(alike, "_FEW", few)
    monkeypatch.setattr(alike, "_ROWS", 25)  # several parts, the last one smaller
    monkeypatch.setattr(alike, "_BLOCK", 7)
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
    monkeypatch.setattr(alike, "MOST_PAIRS", 11)
    assert alike_pairs(copies, aspects) == naive[:11]


def test_levels_at_the_edge_of_what_is_alike(monkeypatch):
    """0 and 24 are alike, 0 and 25 are not; so at the other end."""
    monkeypatch.setattr(alike, "_FEW", -1)
    monkeypatch.setattr(alike, "MOST_MEAN_DIFFERENCE", 255)
    levels = np.array([0, 24, 25, 48, 230, 231, 255], dtype=np.uint8)
    copies = np.repeat(levels, 16 * 16 * 3).reshape(-1, 16, 16, 3)
    near = [(i, j) for i in range(7) for j in range(i + 1, 7) if int(levels[j]) - int(levels[i]) <= 24]
    assert alike_pairs(copies, np.ones(7)) == near == [(0, 1), (1, 2), (1, 3), (2, 3), (4, 5), (5, 6)]


def test_many_pictures_on_one_ground_are_compared_in_little_time():
    """3,000 pictures whose cells are nearly all equal: each has thousands that many cells do not tell apart."""
    generator = np.random.default_rng(0)
    copies = np.full((3000, 16, 16, 3), 250, np.uint8)
    for one in copies:
        (y, x), (height, width) = generator.integers(2, 10, 2), generator.integers(2, 6, 2)
        one[y : y + height, x : x + width] = generator.integers(100, 250, 3)
    begun = time.process_time()
    found = alike_pairs(copies, np.ones(3000))
    assert time.process_time() - begun < 3
    assert all(np.abs(copies[i].astype(int) - copies[j]).max() <= 24 for i, j in found) and len(found) > 100
