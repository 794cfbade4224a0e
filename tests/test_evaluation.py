import json

from capkit.evaluation import score_rows, shuffled_rows, write_predictions
from capkit.testing import run_distributed

ROWS = [{"key": f"k{i}", "caption": f"c{i}", "references": [f"r{i}", "x"], "metadata": {}} for i in range(7)]


class ShareWithOwnReference:
    def score(self, predictions, references, metadata):
        hits = [p[1:] == r[0][1:] for p, r in zip(predictions, references, strict=True)]
        return {"own": sum(hits) / len(hits), "count": float(len(hits))}


def test_shuffling_gives_each_image_the_caption_of_another_one():
    shuffled = shuffled_rows(ROWS, seed=3)
    assert sorted(row["caption"] for row in shuffled) == sorted(row["caption"] for row in ROWS)
    assert score_rows(shuffled, {"m": ShareWithOwnReference()})["own"] == 0
    assert score_rows(ROWS, {"m": ShareWithOwnReference()})["own"] == 1


def test_rows_without_references_are_not_scored():
    rows = [*ROWS, {"key": "z", "caption": "c", "references": [], "metadata": {}}]
    assert score_rows(rows, {"m": ShareWithOwnReference()})["count"] == 7


def test_predictions_are_coco_results_and_annotations(tmp_path):
    path = write_predictions(tmp_path, "test", ROWS[:2])
    assert json.loads(path.read_text()) == [
        {"image_id": "k0", "caption": "c0"},
        {"image_id": "k1", "caption": "c1"},
    ]
    annotations = json.loads((tmp_path / "test_references.json").read_text())["annotations"]
    assert [a["caption"] for a in annotations if a["image_id"] == "k1"] == ["r1", "x"]


def _gather(rank_rows):
    import torch.distributed as dist

    from capkit.evaluation import gather_rows

    rows = gather_rows(rank_rows[dist.get_rank()])
    return [row["key"] for row in rows], score_rows(rows, {"m": ShareWithOwnReference()})


def test_two_ranks_with_a_ragged_share_give_the_rows_and_numbers_of_one():
    (keys, numbers), second = run_distributed(_gather, 2, [ROWS[::2], ROWS[1::2]])
    assert keys == [row["key"] for row in ROWS]
    assert second == (keys, numbers) == (keys, {"own": 1.0, "count": 7.0})
