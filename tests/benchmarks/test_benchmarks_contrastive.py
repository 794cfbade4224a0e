"""`python -m benchmarks.contrastive` on a tiny model: every row is measured, and both sides do the same work."""

import json
import math

import pytest
import torch

from benchmarks.contrastive import __main__ as contrastive
from benchmarks.contrastive.workloads import SIZES, TINY, random_pairs


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    path = tmp_path_factory.mktemp("benchmark") / "numbers.json"
    contrastive.main(["--tiny", "--no-compiled-peer", "--out", str(path)])
    return json.loads(path.read_text())


@pytest.mark.nightly
def test_every_work_has_a_row_of_capkit_with_its_speed(result):
    rows = {row["work"]: row for row in result["rows"] if row["side"] == contrastive.CAPKIT}
    works = [contrastive.PLAIN, contrastive.LOCKED, contrastive.LORA, "batch 16", "batch 24"]
    short = [f"{work}, {contrastive.SHORT}" for work in (contrastive.PLAIN, contrastive.LORA)]
    assert set(rows) == {*works, *short}
    for row in rows.values():
        assert row["pairs_per_second"] == pytest.approx(row["batch"] / row["seconds"])
        assert math.isfinite(row["loss"])


@pytest.mark.nightly
def test_open_clip_has_a_row_beside_each_of_the_same_work_where_it_is_installed(result, capsys):
    works = {row["work"] for row in result["rows"] if row["side"] == contrastive.EAGER}
    expected = {contrastive.PLAIN, contrastive.LOCKED, "batch 16", "batch 24"} if contrastive.HAS_OPEN_CLIP else set()
    assert works == expected
    assert ("loss_open_clip" in result["checks"]) == contrastive.HAS_OPEN_CLIP


@pytest.mark.nightly
def test_a_batch_in_micro_batches_has_the_gradient_of_the_whole(result):
    assert result["checks"]["gradient_cosine"] > 0.9999
    assert result["checks"]["gradient_norm_ratio"] == pytest.approx(1, abs=1e-3)


@pytest.mark.nightly
@pytest.mark.skipif(not contrastive.HAS_OPEN_CLIP, reason="compares with open_clip, which is not installed")
def test_both_sides_have_the_same_loss_and_as_many_weights(result):
    assert result["checks"]["loss_capkit"] == pytest.approx(result["checks"]["loss_open_clip"], rel=1e-6)
    ours, theirs = contrastive.ours.build(TINY), contrastive.theirs.build(TINY, "cpu")
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def test_gflop_are_those_of_clip():
    # 12 layers of 24 T W^2 + 4 T^2 W, the patches' and the joint projection: 2 x 49 x 3072 x 768 + 2 x 768 x 512
    layers = 12 * (24 * 50 * 768**2 + 4 * 50**2 * 768)
    assert SIZES["ViT-B/32"].image_gflop == pytest.approx((layers + 2 * 49 * 3072 * 768 + 2 * 768 * 512) / 1e9)
    assert SIZES["ViT-B/16"].image_gflop == pytest.approx(35.1, abs=0.3)
    assert SIZES["ViT-B/32"].text_gflop == pytest.approx(6.0, abs=0.1)


def test_captions_begin_and_end_and_are_padded_behind():
    pairs = random_pairs(TINY, 50, "cpu", full=False)
    for tokens, length in zip(pairs.tokens, pairs.lengths.tolist(), strict=True):
        assert tokens[0] == TINY.vocabulary - 2
        assert (tokens == TINY.vocabulary - 1).nonzero().tolist() == [[length - 1]]
        assert tokens[length:].eq(0).all() and tokens[1 : length - 1].gt(0).all()
    assert torch.equal(random_pairs(TINY, 3, "cpu").lengths, torch.full((3,), TINY.length))
