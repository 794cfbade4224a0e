"""Compress & Align and MLBCAP's filter at paper size by their commands, with BLIP's networks made tiny."""

import json

import numpy as np
import pytest
from PIL import Image

from capkit.cli import main

pytestmark = pytest.mark.integration

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
CONFIG = {
    "vision_config": SIZES | {"image_size": 32, "patch_size": 16},
    "text_config": SIZES | {"max_position_embeddings": 24, "encoder_hidden_size": 16},
}
TINY = [
    "model.name=null", "model.tokenizer=word", "model.max_length=24", "model.frozen_share=0.5", "debug=tiny",
    "data.num_workers=0", "trainer=cpu", "held_out=0.4", "eval_limit=null", "data.batch_size=4",
]  # fmt: skip
GOOD = "The figure shows a red bar. It is {} units high."


@pytest.fixture
def figures(tmp_path):
    """A manifest of ten figures with a caption that keeps MLBCAP's rules, and one that has no full stop."""
    rows = []
    for number in range(10):
        Image.fromarray(np.full((32, 32, 3), 20 * number, np.uint8)).save(tmp_path / f"{number}.png")
        captions = [GOOD.format(number), "a bar"]
        metadata = {"arxiv_id": str(number)}
        rows.append({"key": str(number), "image": f"{number}.png", "captions": captions, "metadata": metadata})
    return write(tmp_path / "figures.jsonl", rows), tmp_path


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def splits(path):
    return [f"data.{split}.path={path}" for split in ("train", "val", "test")]


def flags():
    return [f"model.config={json.dumps(CONFIG).replace(chr(34), '')}"]


def test_compress_and_align_trains_its_rater_and_keeps_a_tenth(figures):
    path, folder = figures
    ranked = [
        {"image": str(n), "captions": [GOOD.format(n), "a bar", "bar"], "ranking": [0, [1, 2]]} for n in range(10)
    ]
    ratings = write(folder / "ranked.jsonl", ranked)
    words = ["experiment=compress_align_rater", "data=manifest", *splits(path), *TINY, *flags(), f"ratings={ratings}"]
    assert main([*words, f"run_dir={folder / 'rater'}"]) == 0
    words = ["curate", "experiment=compress_align", "data=manifest", *splits(path), "splits=[train]"]
    words += [f"reward.rater.scorer.rater.ckpt={folder / 'rater'}", f"out={folder / 'out'}"]
    assert main(words) == 0
    rows = [json.loads(line) for line in (folder / "out" / "train.jsonl").read_text().splitlines()]
    assert sum(len(row["captions"]) for row in rows) == 2


def test_mlbcap_grades_what_keeps_the_rules(figures, capsys):
    """The grader starts at the mean grade, 5.75, and is hardly trained."""
    path, folder = figures
    grades = [{"image": str(n), "caption": GOOD.format(n), "score": 6} for n in range(10)]
    grades += [{"image": str(n), "caption": "a bar", "score": 5.5} for n in range(10)]
    words = ["experiment=mlbcap_filter_rater", *splits(path), *TINY, *flags()]
    words += [f"ratings={write(folder / 'grades.jsonl', grades)}"]
    assert main([*words, f"run_dir={folder / 'grader'}"]) == 0
    words = ["curate", "experiment=mlbcap_filter", f"data.train.path={path}", "splits=[train]"]
    words += [f"reward.rater.scorer.rater.ckpt={folder / 'grader'}"]
    assert main([*words, f"out={folder / 'out'}"]) == 0
    rows = [json.loads(line) for line in (folder / "out" / "train.jsonl").read_text().splitlines()]
    assert [[caption["text"] for caption in row["captions"]] for row in rows] == [[GOOD.format(n)] for n in range(10)]
    assert all(score > 4.5 for row in rows for score in row["metadata"]["score"])
    assert main([*words, f"out={folder / 'none'}", "step.keep_best.threshold=60"]) == 2
    assert "expected captions to keep, got none of 10: the best score is" in capsys.readouterr().err
