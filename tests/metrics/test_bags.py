import json

import pytest
import torch

from capkit.errors import UsageError
from capkit.metrics.bags import Bags, bag_cosines, bag_ranks, read_bags
from capkit.metrics.clip_score import clip_score


class CornerJudge:
    """Text "k" and picture k are the k-th unit vector; any other text is the same distance from all."""

    name, prompt, max_length = "corner", "", 16

    def preprocess(self, images):
        return torch.stack([torch.as_tensor(image).float().permute(2, 0, 1) for image in images])

    def encode_image(self, pixels):
        return torch.eye(32)[pixels.mean((1, 2, 3)).long()]

    def encode_text(self, texts):
        rows = [torch.eye(32)[int(text)] if text.isdigit() else torch.ones(32) / 32**0.5 for text in texts]
        return torch.stack(rows)

    def is_cut(self, texts):
        return [False] * len(texts)

    def to(self, device):
        return self


def _rows(captions, bags=None):
    metadata = [{"key": str(i), "image": torch.full((2, 2, 3), i, dtype=torch.uint8)} for i in range(len(captions))]
    for row, bag in zip(metadata, bags or [], strict=False):
        row["bag"] = bag
    return captions, [[] for _ in captions], metadata


@pytest.fixture
def files(tmp_path):
    paths = []
    for size, bags in ((3, [[0, 1, 2], [2, 3, 4]]), (5, [[0, 5, 6, 7, 8]])):
        paths.append(str(tmp_path / f"{size}.json"))
        (tmp_path / f"{size}.json").write_text(json.dumps(bags))
    return paths


def test_oracle_captions_score_one_in_every_bag_size(files):
    numbers = Bags(CornerJudge(), files).score(*_rows([str(i) for i in range(9)]))
    assert (numbers["truematch_3_r1"], numbers["truematch_5_r1"]) == (1, 1)
    assert (numbers["truematch_3_bags"], numbers["truematch_5_bags"]) == (2, 1)


def test_a_constant_caption_scores_one_over_the_bag_size(files):
    numbers = Bags(CornerJudge(), files).score(*_rows(["a picture"] * 9))
    assert numbers["truematch_3_r1"] == pytest.approx(1 / 3)
    assert numbers["truematch_5_r1"] == pytest.approx(1 / 5)


def test_the_clip_score_of_a_bag_size_is_of_captions_and_their_own_images(files):
    """100 max(cos, 0) over the bags' queries: image 2 is in two bags of three and counts twice."""
    captions = [str(i) for i in range(9)]
    captions[2] = "a picture"  # cosine 1 / sqrt(32) with every picture
    captions[5] = "6"  # cosine 0 with its own
    numbers = Bags(CornerJudge(), files).score(*_rows(captions))
    assert numbers["truematch_3_clip_score"] == pytest.approx(100 * (4 + 2 / 32**0.5) / 6)
    assert numbers["truematch_5_clip_score"] == pytest.approx(100 * 4 / 5)
    assert numbers["truematch_3_r1"] == pytest.approx((4 + 2 / 3) / 6)


def test_the_clip_score_of_an_opposite_caption_is_zero_and_not_negative():
    cosines = bag_cosines(torch.eye(2), torch.tensor([[1.0, 0], [0, -1.0]]), torch.arange(2), [[0, 1]])
    assert cosines.tolist() == [1, -1]
    assert clip_score(cosines, 100.0).tolist() == [100, 0]


def test_a_caption_of_another_image_of_the_bag_misses_and_of_one_outside_is_chance(files):
    captions = [str(i) for i in range(9)]
    captions[0] = "1"  # a mate in the bag of three, and not in the bag of five
    numbers = Bags(CornerJudge(), files).score(*_rows(captions))
    assert numbers["truematch_3_r1"] == pytest.approx(5 / 6)
    assert numbers["truematch_5_r1"] == pytest.approx((4 + 1 / 5) / 5)


def test_an_image_in_two_bags_is_asked_for_in_both():
    ranks = bag_ranks(torch.eye(4), torch.eye(4), torch.arange(4), [[0, 1], [0, 2, 3]])
    assert len(ranks.better) == 5


def test_order_of_bags_members_and_rows_changes_nothing(files, tmp_path):
    captions = ["0", "0", "3", "x", "4", "5", "5", "8", "6"]
    numbers = Bags(CornerJudge(), files).score(*_rows(captions))
    for name in ("3", "5"):
        bags = json.loads((tmp_path / f"{name}.json").read_text())
        (tmp_path / f"{name}.json").write_text(json.dumps([bag[::-1] for bag in bags[::-1]]))
    columns = [column[::-1] for column in _rows(captions)]
    assert Bags(CornerJudge(), files[::-1]).score(*columns) == pytest.approx(numbers)


def test_bags_named_by_the_records_are_used_without_files():
    numbers = Bags(CornerJudge(), name="bags").score(*_rows(["0", "1", "1", "3", "4"], ["x", "x", "y", "y", "alone"]))
    assert numbers["bags_2_r1"] == pytest.approx((1 + 1 + 1 / 2 + 1) / 4)  # "1" says nothing between 2 and 3
    assert numbers["bags_2_bags"] == 2


def test_bag_images_that_were_not_captioned_are_an_error(files):
    with pytest.raises(UsageError, match="not captioned, such as '5'"):
        Bags(CornerJudge(), files).score(*_rows([str(i) for i in range(5)]))


def test_files_of_another_split_are_passed_over(files, tmp_path):
    (tmp_path / "val.json").write_text(json.dumps([["val-0", "val-1"], ["val-2", "val-3"]]))
    rows = _rows([str(i) for i in range(9)])
    both = Bags(CornerJudge(), [*files, str(tmp_path / "val.json")]).score(*rows)
    assert both == Bags(CornerJudge(), files).score(*rows)
    with pytest.raises(UsageError, match=r"expected bags of captioned images; .* 'val-0'"):
        Bags(CornerJudge(), [str(tmp_path / "val.json")]).score(*rows)


def test_examples_are_bags_whose_images_are_all_there(files):
    _, _, metadata = _rows([""] * 5)
    assert Bags(CornerJudge(), files).bags_among(metadata) == [["0", "1", "2"], ["2", "3", "4"]]
    _, _, metadata = _rows([""] * 5, ["x", "x", "y", "y", "alone"])
    assert Bags(CornerJudge()).bags_among(metadata) == [["0", "1"], ["2", "3"]]


def test_of_one_bag_it_says_which_captions_find_their_picture(files):
    captions, _, metadata = _rows(["0", "0", "nothing in particular"])
    assert Bags(CornerJudge(), files).hits(captions, metadata) == pytest.approx([1, 0, 1 / 3])


def test_no_bags_at_all_is_an_error():
    with pytest.raises(UsageError, match="got neither"):
        Bags(CornerJudge()).score(*_rows(["0", "1"]))


@pytest.mark.parametrize("content", ['{"a": 1}', "[[1, 1, 2]]", "[[1]]", "[]", "[1, 2]", "no json"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "bags.json").write_text(content)
    with pytest.raises(UsageError, match=r"bag"):
        read_bags(str(tmp_path / "bags.json"))
