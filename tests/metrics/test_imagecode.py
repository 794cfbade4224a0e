import json

import pytest
import torch

from capkit.errors import UsageError
from capkit.metrics.imagecode import ImageCode

SETS = ("open-images-1_ab", "video-7")


class UnitJudge:
    name, prompt, max_length = "unit", "", 16

    def preprocess(self, images):
        raise AssertionError("image embeddings are given")

    encode_image = preprocess

    def encode_text(self, texts):
        return torch.stack([torch.eye(20)[int(text)] if text else torch.ones(20) for text in texts])

    def is_cut(self, texts):
        return [False] * len(texts)

    def to(self, device):
        return self


def _rows(captions):
    keys = [f"{name}/img{i}" for name in SETS for i in range(10)]
    metadata = [{"key": key, "image_embedding": torch.eye(20)[i]} for i, key in enumerate(keys)]
    return captions, [[] for _ in captions], metadata


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "valid_data.json"
    path.write_text(json.dumps({SETS[0]: {"0": "a human text", "7": "another"}, SETS[1]: {"3": "a third"}}))
    return str(path)


def test_oracle_captions_score_one(file):
    numbers = ImageCode(UnitJudge(), file).score(*_rows([str(i) for i in range(20)]))
    assert [numbers[f"imagecode_{name}"] for name in ("r1", "static_r1", "video_r1", "targets")] == [1, 1, 1, 3]


def test_a_constant_caption_scores_a_tenth(file):
    assert ImageCode(UnitJudge(), file).score(*_rows([""] * 20))["imagecode_r1"] == pytest.approx(0.1)


def test_only_targets_are_asked_for_and_only_their_set_is_the_pool(file):
    captions = ["5"] * 20  # the caption of a non-target: wrong for 0 and 7 of its own set, silent on the other set
    captions[0] = "0"
    numbers = ImageCode(UnitJudge(), file).score(*_rows(captions))
    assert numbers["imagecode_static_r1"] == pytest.approx(1 / 2)
    assert numbers["imagecode_video_r1"] == pytest.approx(1 / 10)
    assert numbers["imagecode_r1"] == pytest.approx((1 + 0 + 0.1) / 3)


def test_a_set_that_was_not_captioned_whole_is_an_error(file):
    with pytest.raises(UsageError, match="not captioned"):
        ImageCode(UnitJudge(), file).score(*[column[:19] for column in _rows([str(i) for i in range(20)])])


@pytest.mark.parametrize("content", ['{"set": {"10": "x"}}', "{}", "[1]", "no json", '{"set": {"a": "x"}}'])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "data.json").write_text(content)
    with pytest.raises(UsageError, match="file="):
        ImageCode(UnitJudge(), str(tmp_path / "data.json"))
