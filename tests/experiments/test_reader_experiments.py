"""CaptionQA's and Prism's experiments by their commands, against a stand-in for the paper's reader."""

import json

import pytest

from capkit.cli import main
from capkit.testing.stand_in_server import StandInServer

pytestmark = pytest.mark.integration

QUESTIONS = [
    {
        "id": "nat_1",
        "questions": [{"question": "color?", "choices": ["red", "blue"], "answer": "red", "category": "a"}],
    },
    {"id": "nat_2", "questions": [{"question": "is it?", "choices": ["yes", "no"], "answer": "no", "category": "a"}]},
]
BENCHMARK = [
    {"image": "a.png", "prompt": "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>How much?<|im_end|>\n"
     "<|im_start|>assistant\n", "answer": "20"},
]  # fmt: skip


def reads(prompt):
    """The letter of the option that stands in the caption, else Z, which is none."""
    caption, _, rest = prompt.partition("\n\nQuestion:")
    lines = [line for line in rest.splitlines() if line[1:3] == ". "]
    return next((line[0] for line in lines if line[3:] in caption), "Z")


def test_caption_qa_by_its_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "captions.json").write_text(json.dumps({"nat_1": "a red ball", "nat_2": "no ball"}))
    (tmp_path / "questions.json").write_text(json.dumps(QUESTIONS))
    with StandInServer(reads) as server:
        words = [
            "score", "experiment=caption_qa", "predictions=captions.json",
            "metric.caption_qa.questions=questions.json", f"reader.model.url={server.url}", "out=numbers.json",
        ]  # fmt: skip
        assert main([*words, "dry_run=true", "reader.model.price=[1,2]"]) == 0
        shown = capsys.readouterr().out
        assert "caption_qa/reader" in shown and "2 images: nothing asked" in shown
        assert server.requests == []
        assert main(words) == 0
        assert len(server.requests) == 2
        body = server.requests[0]["body"]
        assert body["temperature"] == 0 and body["max_tokens"] == 4 and body["model"] == "Qwen/Qwen2.5-72B-Instruct"
        group = ["question_set=file", "question_set.path=questions.json", "out=again.json"]
        assert main([*(word for word in words if "questions=" not in word), *group]) == 0
        assert len(server.requests) == 2, "the same questions, all kept"
    again = (tmp_path / "again.json").read_text()
    assert again == (tmp_path / "numbers.json").read_text()
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["caption_qa"] == 1 and numbers["caption_qa_asked"] == 2 and numbers["caption_qa_failed"] == 0
    assert numbers["intervals"]["caption_qa"] == [1, 1]
    assert set(json.loads((tmp_path / "numbers.judged" / "caption_qa_results.json").read_text())) == {"nat_1", "nat_2"}


def test_prism_by_its_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    captions = [{"image": "a.png", "caption": f"it is {number} euros"} for number in (20, 19.5, 15, 2000)]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, captions)))
    (tmp_path / "rows.json").write_text(json.dumps(BENCHMARK))

    def answer(prompt):
        assert "<|" not in prompt and "How much?" in prompt
        return "It says so: \\boxed{" + prompt.partition("it is ")[2].partition(" ")[0] + "}"

    with StandInServer(answer) as server:
        words = [
            "score", "experiment=prism", "predictions=captions.jsonl", "metric.prism.questions=rows.json",
            "metric.prism.match=number", f"text_lm.url={server.url}", "out=numbers.json",
        ]  # fmt: skip
        assert main(words) == 0
        assert {request["body"]["temperature"] for request in server.requests} == {1.0}
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    # 20 is right, 19.5 within 5 %, 15 is not, 2000 is at the scale .01
    assert numbers["prism"] == 0.75 and numbers["prism_best"] == 1 and numbers["prism_captions"] == 4
    assert numbers["prism_asked"] == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["experiment=caption_qa", "metric.caption_qa.questions=none.json"], "no such file or folder"),
        (["metric=[caption_qa]", "metric.caption_qa.questions=questions.json"], "needs a reader"),
        (
            ["metric=[caption_qa]", "reader=scene"],
            "needs questions; give metric.caption_qa.questions=FILE, or question_set=",
        ),
        (["metric=[prism]", "metric.prism.questions=rows.json"], "has open questions; add text_lm"),
        (["experiment=caption_qa", "metric.caption_qa.questions=rows.json"], "no 'id'"),
    ],
)
def test_what_is_missing_is_told_before_anything_is_asked(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "captions.json").write_text(json.dumps({"nat_1": "a red ball"}))
    (tmp_path / "questions.json").write_text(json.dumps(QUESTIONS))
    (tmp_path / "rows.json").write_text(json.dumps(BENCHMARK))
    assert main(["score", "predictions=captions.json", *words]) == 2
    assert message in capsys.readouterr().err
