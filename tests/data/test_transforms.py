from collections import Counter

import numpy as np
import pytest
import torch

from capkit.data.transforms import ImageTransform
from capkit.errors import UsageError

NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def test_image_of_the_right_size_is_untouched():
    image = NOISE[:, :20]
    for resize in ("squash", "crop", "pad"):
        assert torch.equal(ImageTransform(20, resize=resize)(image), torch.from_numpy(image).permute(2, 0, 1))


def test_squash_uses_the_whole_picture():
    halves = np.zeros((10, 40, 3), np.uint8)
    halves[:, 20:] = 200
    pixels = ImageTransform(8, resize="squash")(halves)
    assert pixels.shape == (3, 8, 8) and pixels[0, :, 0].max() <= 3 and pixels[0, :, 7].min() >= 197


def test_crop_keeps_the_middle_square():
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, 10:20] = 90
    assert (ImageTransform(5, resize="crop")(image) == 90).all()
    assert (ImageTransform(5, resize="crop")(image.transpose(1, 0, 2)) == 90).all()


def test_pad_keeps_everything_on_white():
    pixels = ImageTransform(8, resize="pad")(np.full((10, 20, 3), 90, np.uint8))
    assert (pixels[:, 2:6] == 90).all() and (pixels[:, :2] == 255).all() and (pixels[:, 6:] == 255).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 10_000), (10_000, 1), (2, 3)])
@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize("augment", [None, "flip", "crop"])
def test_extreme_shapes_become_squares(shape, resize, augment):
    image = np.full((*shape, 3), 77, np.uint8)
    pixels = ImageTransform(16, resize=resize, augment=augment)(image, random_key=(0, 0, 0))
    assert pixels.shape == (3, 16, 16) and pixels.dtype == torch.uint8 and (pixels == 77).any()


def test_normalize_is_the_formula_for_every_channel():
    mean, std = [0.48, 0.45, 0.40], [0.26, 0.25, 0.27]
    images = torch.from_numpy(NOISE[:16, :16]).permute(2, 0, 1)[None].repeat(2, 1, 1, 1)
    wanted = (images.double() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    got = ImageTransform(16, mean, std).normalize(images)
    assert got.is_contiguous() and got.dtype == torch.float32
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=1e-6)


def test_flip_mirrors_about_half_of_the_images():
    transform, image = ImageTransform(20, augment="flip"), NOISE[:, :20]
    plain = torch.from_numpy(image).permute(2, 0, 1)
    mirrored = [not torch.equal(transform(image, (0, 0, i)), plain) for i in range(200)]
    assert 70 <= sum(mirrored) <= 130
    assert torch.equal(transform(image, (0, 0, mirrored.index(True))), plain.flip(-1))


@pytest.mark.parametrize("augment", ["flip", "crop"])
def test_augmentation_is_a_function_of_its_key_and_off_without_one(augment):
    transform = ImageTransform(16, augment=augment)
    variants = [transform(NOISE, (1, 0, i)) for i in range(12)]
    np.random.seed(99)
    torch.manual_seed(99)
    assert all(torch.equal(transform(NOISE, (1, 0, i)), variants[i]) for i in reversed(range(12)))
    assert len({v.numpy().tobytes() for v in variants}) == (2 if augment == "flip" else 12)
    assert torch.equal(transform(NOISE), ImageTransform(16)(NOISE))


def test_a_crop_of_a_resized_picture_is_any_window_in_training_and_the_middle_one_otherwise():
    """ALIGN's 289 of 346 pixels, at 12 of 16: windows of the whole resized picture, unscaled, each place as likely."""
    whole = ImageTransform(16)(NOISE)
    transform = ImageTransform(12, crop_from=16, augment="crop")
    assert torch.equal(transform(NOISE), whole[:, 2:14, 2:14])
    assert torch.equal(ImageTransform(12, crop_from=16)(NOISE, (0, 0, 0)), whole[:, 2:14, 2:14])
    windows = {whole[:, i : i + 12, j : j + 12].numpy().tobytes(): (i, j) for i in range(5) for j in range(5)}
    counts = Counter(windows[transform(NOISE, (0, 0, i)).numpy().tobytes()] for i in range(500))
    assert len(counts) == 25 and max(counts.values()) < 45  # 20 of each expected
    assert transform.fingerprint_fields() == {**ImageTransform(12).fingerprint_fields(), "crop_from": 16}


@pytest.mark.parametrize("image", [NOISE, NOISE.transpose(1, 0, 2)])
def test_a_square_is_any_along_the_longer_side_in_training_and_the_middle_one_otherwise(image):
    """CLIP's only augmentation: squares of the whole shorter side, unscaled here, each place as likely."""
    whole = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    tall = whole.shape[1] > whole.shape[2]
    places = [whole[:, i : i + 20] if tall else whole[:, :, i : i + 20] for i in range(11)]
    transform = ImageTransform(20, resize="crop", augment="square")
    assert torch.equal(transform(image), places[5])
    known = {part.numpy().tobytes(): place for place, part in enumerate(places)}
    counts = Counter(known[transform(image, (0, 0, i)).numpy().tobytes()] for i in range(440))
    assert len(counts) == 11 and max(counts.values()) < 70  # 40 of each expected


@pytest.mark.parametrize("crop_from", [None, 16])
def test_crop_and_flip_together_are_the_crop_alone_mirrored_half_of_the_time(crop_from):
    crop = ImageTransform(12, crop_from=crop_from, augment="crop")
    both = ImageTransform(12, crop_from=crop_from, augment=["crop", "flip"])
    mirrored = 0
    for i in range(200):
        plain, found = crop(NOISE, (0, 0, i)), both(NOISE, (0, 0, i))
        is_mirrored = torch.equal(found, plain.flip(-1))
        assert is_mirrored or torch.equal(found, plain)
        mirrored += is_mirrored
    assert 70 <= mirrored <= 130


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_every_way_to_resize_gives_the_square_that_is_cropped(resize):
    whole = ImageTransform(16, resize=resize)(NOISE)
    assert torch.equal(ImageTransform(13, resize=resize, crop_from=16)(NOISE), whole[:, 1:14, 1:14])


@pytest.mark.parametrize(
    "options",
    [
        *({"size": 0}, {"std": (1.0, 1.0, 0.0)}, {"mean": (0.5,)}, {"resize": "stretch"}, {"augment": "blur"}),
        *({"augment": ["flip", "flip"]}, {"augment": ["crop", "blur"]}, {"crop_from": 7}),
        *({"augment": "square"}, {"augment": ["crop", "square"], "resize": "crop"}),
    ],
)
def test_wrong_argument_is_refused(options):
    with pytest.raises(UsageError):
        ImageTransform(**{"size": 8, **options})
