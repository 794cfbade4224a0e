import json

import numpy as np
import pytest
import torch

from capkit.data.features import FeatureStore, FeatureWriter
from capkit.errors import UsageError
from capkit.evaluators.base import Evaluator
from capkit.evaluators.retrieval import Retrieval

# Four images along four axes. Captions lean to an axis: "b" of image 0 is nearer to image 1 than to its own.
IMAGES = np.eye(4).tolist()
TEXTS = {
    "a": [1.0, 0, 0, 0],
    "b": [0.6, 0.8, 0, 0],
    "c": [0, 1.0, 0, 0],
    "d": [0, 0, 1.0, 0.5],
    "e": [0.9, 0, 0, 0.8],
}
ROWS = [("k0", ["a", "b"], {}), ("k1", ["c"], {}), ("k2", ["d"], {}), ("k3", ["e"], {})]


def naive(images, texts, owner, k):
    """R@k both ways by sorting; no ties."""
    similarity = images @ texts.T
    t2i = [owner[m] in np.argsort(-similarity[:, m])[:k] for m in range(len(texts))]
    i2t = [any(owner[m] == n for m in np.argsort(-similarity[n])[:k]) for n in range(len(images))]
    return np.mean(t2i), np.mean(i2t)


def test_recalls_and_median_ranks_by_hand(table, listed, data_of, tmp_path):
    numbers = Retrieval(at=(1, 2))(table(IMAGES, TEXTS), data_of(test=listed(ROWS)), tmp_path)
    # captions a, c, d first; b second behind k1; e (.75 to k0, .66 to k3) second: 3 of 5, then 5 of 5
    assert numbers["retrieval_t2i_r1"] == pytest.approx(3 / 5)
    assert numbers["retrieval_t2i_r2"] == 1
    assert numbers["retrieval_t2i_median_rank"] == 1
    # k0 finds a, k1 finds c, k2 finds d, k3 finds e (.66) before d (.45)
    assert numbers["retrieval_i2t_r1"] == 1
    assert [numbers[f"retrieval_{key}"] for key in ("images", "captions", "cut", "skipped")] == [4, 5, 0, 0]


def test_rows_say_where_each_query_found_its_own_and_numbers_what_to_quote(table, listed, data_of, tmp_path, rows_in):
    evaluator = Retrieval()
    assert isinstance(evaluator, Evaluator)
    numbers = evaluator(table(IMAGES, TEXTS), data_of(test=listed(ROWS)), tmp_path)
    rows = rows_in(tmp_path / "retrieval.jsonl")
    assert rows[:2] == [
        {"way": "t2i", "key": "k0", "caption": "a", "rank": 1.0},
        {"way": "t2i", "key": "k0", "caption": "b", "rank": 2.0},
    ]
    assert [row["rank"] for row in rows if row["way"] == "i2t"] == [1, 1, 1, 1]
    written = json.loads((tmp_path / "retrieval.json").read_text())
    assert written["numbers"] == numbers
    assert written["provenance"] | {"split": 0} == {
        "scorer": "table",
        "prompt": "see",
        "max_length": 9,
        "split": 0,
        "captions_per_image": None,
        "fold_size": None,
    }


@pytest.mark.parametrize(("num_images", "fold_size"), [(12, 4), (14, 4), (5, 5)])
def test_full_pool_and_folds_equal_sorting(table, listed, data_of, tmp_path, num_images, fold_size):
    random = np.random.default_rng(0)
    images = random.normal(size=(num_images, 6))
    captions = {f"{n}-{i}": images[n] + random.normal(size=6) for n in range(num_images) for i in range(1 + n % 3)}
    rows = [(f"k{n}", [text for text in captions if text.startswith(f"{n}-")], {}) for n in range(num_images)]
    encoder = table(images.tolist(), {text: row.tolist() for text, row in captions.items()})
    numbers = Retrieval(at=(1, 3), fold_size=fold_size)(encoder, data_of(test=listed(rows)), tmp_path)
    unit = images / np.linalg.norm(images, axis=1, keepdims=True)
    texts = np.stack([row / np.linalg.norm(row) for row in captions.values()])
    owner = np.array([int(text.split("-")[0]) for text in captions])
    folds = range(0, num_images // fold_size * fold_size, fold_size)
    for k in (1, 3):
        t2i, i2t = naive(unit, texts, owner, k)
        assert numbers[f"retrieval_t2i_r{k}"] == pytest.approx(t2i)
        assert numbers[f"retrieval_i2t_r{k}"] == pytest.approx(i2t)
        each = []
        for start in folds:
            inside = (owner >= start) & (owner < start + fold_size)
            each.append(naive(unit[start : start + fold_size], texts[inside], owner[inside] - start, k))
        assert numbers[f"retrieval_fold{fold_size}_t2i_r{k}"] == pytest.approx(np.mean([one[0] for one in each]))
        assert numbers[f"retrieval_fold{fold_size}_i2t_r{k}"] == pytest.approx(np.mean([one[1] for one in each]))
    assert numbers["retrieval_folds"] == len(folds)


def test_captions_per_image_keeps_the_first_ones_and_limit_the_first_images(table, listed, data_of, tmp_path):
    encoder = table(IMAGES, TEXTS)
    numbers = Retrieval(at=(1,), captions_per_image=1, limit=2)(encoder, data_of(test=listed(ROWS)), tmp_path)
    assert (numbers["retrieval_captions"], numbers["retrieval_images"]) == (2, 2)
    assert sorted(encoder.seen_texts) == ["a", "c"] and encoder.seen_images == [0, 1]


def test_a_rerun_after_a_kill_encodes_what_was_left(table, listed, data_of, tmp_path, monkeypatch):
    monkeypatch.setattr("capkit.evaluators.embedding._BATCH", 1)
    data = data_of(test=listed(ROWS))
    with pytest.raises(KeyboardInterrupt):
        Retrieval()(table(IMAGES, TEXTS, limit=2), data, tmp_path)
    second = table(IMAGES, TEXTS)
    numbers = Retrieval()(second, data, tmp_path)
    assert second.seen_images == [2, 3]
    third = table(IMAGES, TEXTS)
    assert Retrieval()(third, data, tmp_path) == numbers
    assert third.seen_images == third.seen_texts == []
    assert Retrieval()(table(IMAGES, TEXTS), data, tmp_path / "afresh") == numbers


def test_another_encoder_in_the_same_folder_does_not_read_these_embeddings(table, listed, data_of, tmp_path):
    data = data_of(test=listed(ROWS))
    before = Retrieval(at=(1,))(table(IMAGES, TEXTS), data, tmp_path)
    rolled = np.roll(IMAGES, 1, axis=0).tolist()
    after = Retrieval(at=(1,))(table(rolled, TEXTS), data, tmp_path)
    assert after["retrieval_t2i_r1"] < before["retrieval_t2i_r1"]


def test_images_that_cannot_be_used_are_listed_and_have_a_budget(table, listed, data_of, tmp_path, rows_in):
    rows = [*ROWS, ("k4", [" "], {})]
    source = listed(rows, unreadable=[2])
    numbers = Retrieval()(table([*IMAGES, IMAGES[0]], TEXTS), data_of(test=source, max_skipped=2), tmp_path)
    assert (numbers["retrieval_images"], numbers["retrieval_skipped"]) == (3, 2)
    assert [(row["key"], row["reason"]) for row in rows_in(tmp_path / "skipped.jsonl")] == [
        ("k2", "torn"),
        ("k4", "no caption, or only empty ones"),
    ]
    with pytest.raises(UsageError, match="2 of 5 test examples cannot be used"):
        Retrieval()(table(IMAGES, TEXTS), data_of(test=source), tmp_path / "strict")


def test_cached_features_take_the_place_of_pictures_where_the_encoder_reads_them(table, listed, data_of, tmp_path):
    folder = tmp_path / "features"
    with FeatureWriter(folder, [key for key, _, _ in ROWS], (1, 4)) as writer:
        writer.write([key for key, _, _ in ROWS], np.eye(4, dtype=np.float32)[:, None])
    data = data_of(test=listed(ROWS, unreadable=range(4)))
    data.features = FeatureStore(folder)

    class Reads(table):
        def encode_features(self, features):
            return torch.nn.functional.normalize(features[:, 0], dim=-1)

    numbers = Retrieval(at=(1,))(Reads(IMAGES, TEXTS), data, tmp_path / "run")
    assert numbers["retrieval_t2i_r1"] == pytest.approx(3 / 5)


def test_wrong_arguments_and_pools_that_are_too_small_say_so(table, listed, data_of, tmp_path):
    with pytest.raises(UsageError, match="expected at to list at least one rank"):
        Retrieval(at=())
    with pytest.raises(UsageError, match="fold_size: expected an integer of at least 1"):
        Retrieval(fold_size=0)
    with pytest.raises(UsageError, match="fold_size=1000: expected at least that many images"):
        Retrieval(fold_size=1000)(table(IMAGES, TEXTS), data_of(test=listed(ROWS)), tmp_path)
