import numpy as np

from capkit.data.fingerprint import fingerprint
from capkit.data.sources.grayscale import Grayscale, gray
from capkit.sceneworld.sources.scenes import SceneWorld


def test_luma_by_hand():
    """Red 255: .299 x 255 = 76.2; green 149.7; blue 29.1; white 255; (10, 20, 30): 2.99 + 11.74 + 3.42 = 18.15."""
    pixels = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[255, 255, 255], [0, 0, 0], [10, 20, 30]]], np.uint8)
    assert gray(pixels)[..., 0].tolist() == [[76, 150, 29], [255, 0, 18]]
    assert (gray(pixels) == gray(pixels)[..., :1]).all()


def test_records_stay_and_only_pictures_change():
    scenes = SceneWorld("train", 5)
    source = Grayscale(scenes)
    source.prepare()
    assert len(source) == 5 and source.is_rejected("a circle red") == scenes.is_rejected("a circle red")
    for index in range(5):
        assert source.record(index) == scenes.record(index)
        assert np.array_equal(source.image(index), gray(scenes.image(index)))
        assert np.ptp(source.image(index).astype(int), axis=2).max() == 0 < np.ptp(scenes.image(index), axis=2).max()
    assert fingerprint(source) != fingerprint(scenes)
