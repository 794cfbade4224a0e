"""The blocks of Python on pages of docs run, with what a page takes for granted: arrays, captions, files, a judge.

Those of other pages: `ELSEWHERE` in test_doc_blocks.py.
"""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from doc_blocks import ROOT, blocks
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from capkit.data.datamodule import CaptionDataModule
from capkit.data.transforms import ImageTransform
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.testing.models import HF_CONFIGS, TEXT, tokenizer, two_tower
from capkit.types import CaptionBatch, Samples

CAPTIONS = ["a red circle", "two blue squares", "a green star"]


def run(page, names, replaced=("", ""), number=1):
    """Runs the page's block of Python of this number, from 1; returns the names that it leaves."""
    found = [block for block in blocks(ROOT / page) if block.language == "python"]
    block = found[number - 1]
    assert replaced[0] in block.text
    exec(compile(block.text.replace(*replaced), block.place, "exec"), names)
    return names


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def pictures(count):
    return [np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8) for number in range(count)]


def test_each_page_has_as_many_blocks_as_are_run_here():
    pages = {
        "docs/bags.md": 1, "docs/encoders_evaluation.md": 1, "docs/experts.md": 1, "docs/metrics.md": 2,
        "docs/metrics_alone.md": 1, "docs/metrics_retrieval.md": 1, "docs/ptb_tokenizer.md": 1,
        "docs/sceneworld.md": 1, "docs/views.md": 1,
    }  # fmt: skip
    found = {page: sum(block.language == "python" for block in blocks(ROOT / page)) for page in pages}
    assert found == pages


def test_bags_are_mined_from_vectors(capsys):
    vectors = np.random.default_rng(0).normal(size=(130, 8)).astype(np.float32)
    names = run("docs/bags.md", {"vectors": vectors / np.linalg.norm(vectors, axis=1, keepdims=True)})
    assert names["bags"].shape[1] == 5 and names["neighbors"].shape == (130, 100)
    assert capsys.readouterr().out.strip()


def test_an_evaluator_is_a_function():
    data = CaptionDataModule(test=SceneWorld("test", count=6, size=32), transform=ImageTransform(32), batch_size=4)
    names = run("docs/encoders_evaluation.md", {"encoder": two_tower(), "data": data}, ("1000", "6"))
    assert 0 <= names["numbers"]["retrieval_t2i_r1"] <= 1


def test_captions_that_experts_added_to_are_found(tmp_path, capsys):
    (tmp_path / "data/fused").mkdir(parents=True)
    added = [{"expert": "rapidocr", "text": "EXIT", "score": 0.4}]
    rows = [
        {"key": "a", "image": "a.png", "captions": [{"text": "a door, EXIT", "added": added}]},
        {"key": "b", "image": "b.png", "captions": [{"text": "a door", "added": [{**added[0], "score": 0.9}]}]},
    ]
    (tmp_path / "data/fused/train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    run("docs/experts.md", {})
    assert capsys.readouterr().out == "a a door, EXIT\n"


def test_metrics_take_lists_of_words():
    names = run("docs/metrics.md", {})
    assert names["rouge_l"](names["predictions"], names["references"]) > 0.5


def test_document_frequencies_go_through_a_file():
    batch = CaptionBatch(list("abc"), references=[[text, f"{text} here"] for text in CAPTIONS])
    samples = Samples.from_texts([[text, "nothing"] for text in CAPTIONS])
    names = {"references_of_training_images": batch.references, "batch": batch, "samples": samples}
    rewards = run("docs/metrics.md", names, number=2)["rewards"]
    assert rewards.shape == (3, 2) and bool((rewards[:, 0] > rewards[:, 1]).all())


def test_metrics_alone_print_what_the_page_says(capsys):
    run("docs/metrics_alone.md", {})
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_judge_by_name_scores_retrieval(tmp_path):
    torch.manual_seed(0)
    words = tokenizer()
    config = CLIPConfig(**{**HF_CONFIGS["clip"], "text_config": {**TEXT, "vocab_size": len(words)}})
    CLIPModel(config).save_pretrained(tmp_path / "judge")
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
        tmp_path / "judge"
    )
    words.save_pretrained(tmp_path / "judge")
    names = {"pictures": pictures(3), "captions": CAPTIONS, "owner": torch.arange(3)}
    report = run("docs/metrics_retrieval.md", names, ("openai/clip-vit-base-patch32", "judge"))["report"]
    assert report


def test_ptb_words_are_those_that_the_page_shows():
    page = next(block for block in blocks(ROOT / "docs/ptb_tokenizer.md") if block.language == "python")
    call, comment = page.text.strip().rsplit("\n# ", 1)
    statements, last = call.rsplit("\n", 1)
    names = {}
    exec(statements, names)
    assert eval(last, names) == eval(comment)


def test_a_scene_is_made_drawn_told_and_scored():
    names = run("docs/sceneworld.md", {})
    assert names["picture"].shape == (64, 64, 3) and names["masks"](names["scene"], 64).dtype == bool
    assert len(names["texts"]) == 5


def test_frames_of_a_detector_become_views(tmp_path):
    (tmp_path / "frames").mkdir()
    instances = SimpleNamespace(
        infos=[{"id_episode": 12, "id_object": 3}], captions=["a red couch"],
        pred_boxes=[SimpleNamespace(tensor=torch.tensor([[4.0, 2.0, 20.0, 40.0]]))],
    )  # fmt: skip
    frame = {"image": np.zeros((20, 40, 3), np.uint8), "instances": instances}
    np.savez(tmp_path / "frames/0031.npz", np.array(frame, dtype=object))
    run("docs/views.md", {})
    row = json.loads((tmp_path / "views.jsonl").read_text())
    assert row == {
        "image": "0031.png",
        "box": pytest.approx([0.1, 0.1, 0.5, 1.0]),
        "object": "12/3",
        "caption": "a red couch",
    }
