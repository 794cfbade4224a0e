"""DreamLIP's experiments by their commands: at paper size on a small table, and captions by a model that sees.

On SceneWorld: test_experiments.py. On real photos: tests/tasks/test_stamps_run.py.
"""

import pytest
from PIL import Image

from capkit.cli import main
from capkit.data.records import read_manifest
from capkit.data.sub_captions import SubCaptions
from capkit.data.targets import targets_of

pytestmark = pytest.mark.integration


def test_at_paper_size_it_plans_a_run_on_the_released_tables(tmp_path, capsys):
    rows = ["image,raw,shortIB,longIB"]
    for number in range(20):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
        rows.append(f'{number}.png,a dog,a dog on a beach,"A dog runs. The sea is blue."')
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    inputs = [f"data.train.images={tmp_path}", f"data.train.captions={tmp_path / 'table.csv'}"]
    shares = ["data.train.val=.2", "data.train.test=.2"]
    cpu = ["trainer=cpu", "trainer.devices=1", "data.num_workers=0", "model.tokenizer=word"]
    words = ["experiment=dreamlip", *inputs, *shares, *cpu, "dry_run=true", f"run_dir={tmp_path / 'run'}"]
    assert main(words) == 0
    assert "1 ranks x 16 micro-batches of 256" in capsys.readouterr().out


def test_captions_by_a_model_that_sees_are_texts_to_draw_sentences_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = ["data=sceneworld", "data.train.count=4", "data.train.size=32"]
    words = ["curate", "experiment=dreamlip_recaption", *data, "vision_chat=scene", f"out={tmp_path / 'out'}"]
    assert main([*words, "splits=[train]"]) == 0
    draw = SubCaptions.of({"count": 8, "always": "grammar", "from": ["candidate/"]})
    for record in read_manifest(tmp_path / "out" / "train.jsonl"):
        kinds = ["/".join(caption.source.split("/")[:3]) for caption in record.captions[-2:]]
        assert kinds == ["candidate/short/dreamlip_short_v1", "candidate/long/dreamlip_long_v1"]
        texts = draw(targets_of(record, "images")[0], (0, 0, 0))
        assert [text.caption.source.split("/")[0] for text in texts] == ["grammar", *["candidate"] * 7]
