import json

import pytest

from capkit.metrics.scoring import score_rows, shuffled_rows, write_predictions
from capkit.testing.distributed import run_distributed

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


def test_ids_of_coco_stay_numbers_that_its_tools_read(tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    ids = (391010, 391011)
    rows = [{**row, "key": str(i), "metadata": {"image_id": i}} for row, i in zip(ROWS, ids, strict=False)]
    path = write_predictions(tmp_path, "test", rows)
    assert [row["image_id"] for row in json.loads(path.read_text())] == list(ids)
    annotations = {
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in ids],
        "annotations": [{"id": i, "image_id": i, "caption": "a plate"} for i in ids],
    }
    (tmp_path / "captions_val.json").write_text(json.dumps(annotations))
    for truth in ("captions_val.json", "test_references.json"):  # the official file, and the one beside the results
        results = coco.COCO(str(tmp_path / truth)).loadRes(str(path))
        assert [results.imgToAnns[i][0]["caption"] for i in ids] == ["c0", "c1"]


@pytest.mark.parametrize(
    ("key", "metadata"),
    [
        ("1000268201_693b08cb0e", {"image_id": 0, "filename": "1000268201_693b08cb0e.jpg"}),
        ("7", {}),
        ("0", {"image_id": False}),
    ],
    ids=["Flickr's running number", "no id", "no number"],
)
def test_a_key_that_is_no_number_of_the_data_is_written_as_it_is(tmp_path, key, metadata):
    path = write_predictions(tmp_path, "test", [{**ROWS[0], "key": key, "metadata": metadata}])
    assert json.loads(path.read_text()) == [{"image_id": key, "caption": "c0"}]


def _gather(rank_rows):
    import torch.distributed as dist

    from capkit.metrics.scoring import gather_rows

    rows = gather_rows(rank_rows[dist.get_rank()])
    return [row["key"] for row in rows], score_rows(rows, {"m": ShareWithOwnReference()})


@pytest.mark.integration
def test_two_ranks_with_a_ragged_share_give_the_rows_and_numbers_of_one():
    (keys, numbers), second = run_distributed(_gather, 2, [ROWS[::2], ROWS[1::2]])
    assert keys == [row["key"] for row in ROWS]
    assert second == (keys, numbers) == (keys, {"own": 1.0, "count": 7.0})
