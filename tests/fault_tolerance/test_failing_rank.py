"""Two ranks of a real run, of which one fails: both end at once, and its error alone is told."""

import json

import numpy as np
import pytest
from PIL import Image

from capkit.cli import main
from capkit.fault_tolerance.heartbeats import attempts, read_verdict

pytestmark = pytest.mark.integration

MODEL = [
    "model.width=32", "model.num_layers=1", "model.image_encoder.image_size=32", "model.image_encoder.channels=[8,8]",
    "model.image_encoder.blocks=[0,0]", "model.image_encoder.width=32",
]  # fmt: skip


def manifest(folder, split, num_images):
    rows = []
    for number in range(num_images):
        path = folder / f"{split}{number}.png"
        Image.fromarray(np.full((32, 32, 3), 40 * number, np.uint8)).save(path)
        rows.append({"key": path.name, "image": str(path), "captions": ["a grey picture"]})
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"data.{split}.path={folder / f'{split}.jsonl'}"


def test_an_image_that_one_rank_alone_cannot_read_ends_both_with_one_message(tmp_path, capfd):
    splits = [manifest(tmp_path, split, count) for split, count in (("train", 4), ("val", 2), ("test", 1))]
    (tmp_path / "val1.png").write_bytes(b"")  # of two ranks the second has it
    run = tmp_path / "run"
    command = [
        *splits, *MODEL, "data=manifest", "data.transform.size=32", "data.batch_size=4", "data.num_workers=0",
        "data.max_skipped=0", "trainer=ddp_cpu", "metric=[]", "controls=0", "max_steps=4", "val_every=2",
        "decoding.max_length=6", "callback.checkpoints.every_steps=1", f"run_dir={run}",
    ]  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        main(command)
    told = capfd.readouterr().err
    assert ended.value.code == 2
    assert told.count("error: 1 of 2 val examples cannot be used") == 1
    assert "Traceback" not in told and "Connection closed" not in told
    (attempt,) = attempts(run)
    verdict = read_verdict(attempt / "verdicts.jsonl")
    assert (verdict.kind, verdict.ranks, verdict.status) == ("error", [1], 2)
