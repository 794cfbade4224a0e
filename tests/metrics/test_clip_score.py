import math

import pytest
import torch

from capkit.errors import UsageError
from capkit.metrics.clip_score import ClipScore, clip_score, ref_clip_score


class PlaneJudge:
    """Texts and pictures are angles in degrees; cos(difference) is known by hand."""

    name, prompt, max_length = "plane", "", 8

    def preprocess(self, images):
        return torch.stack([torch.as_tensor(image).float().permute(2, 0, 1) for image in images])

    def encode_image(self, pixels):
        return self._at([float(picture.mean()) for picture in pixels])

    def encode_text(self, texts):
        return self._at([math.degrees(math.acos(float(text))) for text in texts])

    def is_cut(self, texts):
        return [len(text) > self.max_length for text in texts]

    def to(self, device):
        return self

    def _at(self, degrees):
        radians = torch.tensor(degrees).deg2rad()
        return torch.stack([radians.cos(), radians.sin()], dim=1)


def _picture(degrees=0):
    return torch.full((2, 2, 3), degrees, dtype=torch.uint8)


def test_golden_values_of_clip_score_and_pac_score():
    cosine = torch.tensor([0.31, -0.1])
    assert clip_score(cosine).tolist() == pytest.approx([0.775, 0])
    assert clip_score(cosine, weight=2.0).tolist() == pytest.approx([0.62, 0])


def test_ref_clip_score_weighs_the_image_side_only():
    value = ref_clip_score(torch.tensor([0.31]), torch.tensor([0.72])).item()
    assert value == pytest.approx(2 * 0.775 * 0.72 / (0.775 + 0.72), rel=1e-6)
    assert value == pytest.approx(0.746488, abs=1e-6)
    assert value != pytest.approx(1.083495, abs=1e-2)  # what w on both sides gives


def test_ref_clip_score_is_zero_where_either_side_is():
    cosine, reference = torch.tensor([-0.2, 0.3, -0.1]), torch.tensor([0.5, -0.4, -0.2])
    assert ref_clip_score(cosine, reference).tolist() == [0, 0, 0]


def test_metric_is_the_mean_with_the_best_reference_of_each_caption():
    metric = ClipScore(PlaneJudge())
    metadata = [{"key": "a", "image": _picture()}, {"key": "b", "image": _picture()}]
    metric.update(["0.31", "-0.1"], [["1.0", "0.0"], ["0.5"]], metadata)
    numbers = metric.compute()
    # cosines with the picture at 0 degrees are the texts themselves; caption a with its references: 0.31 and sin
    first = ref_clip_score(torch.tensor([0.31]), torch.tensor([math.sqrt(1 - 0.31**2)])).item()
    assert numbers["clip_score_mean"] == pytest.approx(0.775 / 2, rel=1e-5)
    assert numbers["clip_score_ref"] == pytest.approx(first / 2, rel=1e-5)
    assert numbers["clip_score_pool"] == 2


def test_without_references_there_is_no_ref_clip_score():
    numbers = ClipScore(PlaneJudge()).score(["0.31"], [[]], [{"key": "a", "image": _picture()}])
    assert numbers == {"clip_score_mean": pytest.approx(0.775), "clip_score_pool": 1, "clip_score_cut": 0}


def test_a_precomputed_image_embedding_equals_its_picture():
    picture = ClipScore(PlaneJudge()).score(["0.9"], [["1.0"]], [{"key": "a", "image": _picture(30)}])
    vector = [math.cos(math.radians(30)) * 7, math.sin(math.radians(30)) * 7]  # any length
    assert ClipScore(PlaneJudge()).score(
        ["0.9"], [["1.0"]], [{"key": "a", "image_embedding": vector}]
    ) == pytest.approx(picture)


def test_captions_that_the_judge_cuts_are_counted():
    numbers = ClipScore(PlaneJudge()).score(
        ["0.310000000", "0.5"], [[], []], [{"key": k, "image": _picture()} for k in "ab"]
    )
    assert numbers["clip_score_cut"] == 1


def test_rows_need_key_and_image():
    with pytest.raises(UsageError, match="'key' and 'image'"):
        ClipScore(PlaneJudge()).update(["0.3"], [["0.5"]], [{"key": "a"}])
    with pytest.raises(UsageError, match="metadata"):
        ClipScore(PlaneJudge()).update(["0.3"], [["0.5"]])


def test_the_judge_is_no_part_of_the_state_dict():
    class Module(PlaneJudge, torch.nn.Linear):
        def __init__(self):
            torch.nn.Linear.__init__(self, 2, 2)

        def to(self, device):
            return self

    metric = ClipScore(Module())
    assert not metric.state_dict() and not list(metric.parameters()) and not list(metric.children())
