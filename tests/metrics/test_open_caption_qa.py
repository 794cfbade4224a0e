"""Open questions answered from captions: scores by hand, and no answer in what a captioner is given."""

import json

import numpy as np
import pytest
from PIL import Image

from capkit.data.datamodule import CaptionDataModule
from capkit.data.sources.vqa import VQAQuestions
from capkit.data.transforms import ImageTransform
from capkit.errors import UsageError
from capkit.llm.base import Answer
from capkit.metrics.open_caption_qa import OpenCaptionQA
from capkit.metrics.scoring import score_rows
from capkit.text.asked import guided_prompt
from capkit.text.prompt_encoder import PromptEncoder
from capkit.text.tokenizers import encode_captions, word_tokenizer

ASKED = {70: (7, "what color is it?"), 71: (7, "is it open?"), 80: (8, "how many?")}
GOLD = {70: ["vermilion"] * 9 + ["red"], 71: ["certainly"] * 10, 80: ["seventeen"] * 10}


class LastWord:
    """Answers with the caption's last word; says nothing to an empty caption."""

    def __init__(self):
        self.asked = []

    def about(self):
        return {"model": "last word"}

    def ask(self, questions):
        self.asked += [question.text for question in questions]
        return [self.answer(question.text) for question in questions]

    def answer(self, text):
        caption = text.partition("[caption]")[2].partition("[question]")[0].split()
        return Answer(caption[-1]) if caption else Answer(None, failure="silent")


@pytest.fixture
def files(tmp_path):
    questions = [{"question_id": q, "image_id": image, "question": text} for q, (image, text) in ASKED.items()]
    answers = [
        {"question_id": q, "image_id": ASKED[q][0], "answers": [{"answer": gold} for gold in golds]}
        for q, golds in GOLD.items()
    ]
    captions = [{"image_id": image, "caption": "a thing"} for image in (7, 8)]
    content = {
        "questions.json": {"questions": questions}, "annotations.json": {"annotations": answers},
        "captions.json": {"annotations": captions},
        "aokvqa.json": [{**row, "direct_answers": GOLD[row["question_id"]]} for row in questions],
    }  # fmt: skip
    for name, value in content.items():
        (tmp_path / name).write_text(json.dumps(value))
    (tmp_path / "images").mkdir()
    for image in (7, 8):
        Image.fromarray(np.full((4, 4, 3), image, np.uint8)).save(tmp_path / f"images/{image:012d}.jpg")
    return tmp_path


def metric(files, model=None, questions="questions.json", annotations="annotations.json", **settings):
    given = None if annotations is None else str(files / annotations)
    settings = {"max_failed": 0.5, "cache_dir": str(files / "answers"), **settings}
    return OpenCaptionQA(str(files / questions), given, model or LastWord(), **settings)


def rows(**captions):
    return [
        {"key": key, "caption": text, "references": [], "metadata": {}}
        for key, text in ((name.replace("_", "<->"), text) for name, text in captions.items())
    ]


GUIDED = {"k7_70": "a vermilion", "k7_71": "it is shut", "k8_80": "there are seventeen"}


def by_question(**changes):
    return rows(**{name.removeprefix("k"): text for name, text in (GUIDED | changes).items()})


@pytest.mark.parametrize("form", [("questions.json", "annotations.json"), ("aokvqa.json", None)])
def test_scores_by_hand(files, form):
    """Vermilion and seventeen are right; from shut to certainly there are 8 edits, of 9 letters: 1/9."""
    found = score_rows(by_question(), {"qa": metric(files, None, *form)})
    assert found["caption_qa_hard"] == pytest.approx(2 / 3)
    assert found["caption_qa_soft"] == pytest.approx((1 + 1 / 9 + 1) / 3)
    assert found["caption_qa_asked"] == 3 and found["caption_qa_failed"] == 0


def test_an_answer_that_cannot_be_read_is_in_no_mean(files):
    found = score_rows(by_question(k7_71=""), {"qa": metric(files)})
    assert found["caption_qa_hard"] == 1 and found["caption_qa_failed"] == 1


def test_a_pictures_caption_answers_all_its_questions(files):
    model = LastWord()
    found = score_rows(rows(**{"7": "a vermilion", "8": "two"}), {"qa": metric(files, model)})
    assert len(model.asked) == 3 and found["caption_qa_hard"] == pytest.approx(1 / 3)


def test_questions_without_a_caption_count_as_with_an_empty_one_and_strangers_are_errors(files):
    with pytest.warns(match="2 pictures with questions have no caption"):
        found = score_rows(by_question()[:1], {"qa": metric(files, max_failed=1.0)})
    assert found["caption_qa_asked"] == 3
    ignored = score_rows(by_question()[:1], {"qa": metric(files, missing="ignore")})
    assert ignored["caption_qa_asked"] == 1 and ignored["caption_qa_hard"] == 1
    with pytest.raises(UsageError, match="have no questions"):
        score_rows(rows(**{"9<->1": "a"}), {"qa": metric(files)})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"annotations": None}, "expected answers, got none"),
        ({"questions": "absent.json"}, "no file"),
        ({"annotations": "captions.json"}, "no 'question_id'"),
    ],
)
def test_files_without_answers_are_errors_before_anything_is_asked(files, settings, message):
    with pytest.raises(UsageError, match=message):
        metric(files, **settings)


def test_needs_are_named():
    with pytest.raises(UsageError, match="needs questions"):
        OpenCaptionQA(text_lm=LastWord())
    with pytest.raises(UsageError, match="needs a language model"):
        OpenCaptionQA("questions.json")


def everything(batch):
    """All that a captioner could look at, as text: every field, and token ids as words."""
    told = [repr(value) for value in vars(batch).values()]
    for name in ("tokens", "prompts"):
        ids = getattr(batch, name)
        told += [] if ids is None else [TOKENIZER.decode(row) for rows in ids for row in rows]
    return " ".join(told)


TOKENIZER = word_tokenizer(
    ["a thing", *(guided_prompt(text) for _, text in ASKED.values()), *(gold for of in GOLD.values() for gold in of)]
)


@pytest.mark.parametrize("annotations", ["annotations.json", None])
def test_no_answer_is_in_reach_of_the_captioner_at_test(files, annotations):
    """The words of the answers are in its vocabulary and nowhere in its batch; the metric alone has read them."""
    source = VQAQuestions(
        str(files / "images"), str(files / "questions.json"),
        None if annotations is None else str(files / annotations), str(files / "captions.json"), asked="guided",
    )  # fmt: skip
    data = CaptionDataModule(train=source, val=source, test=source, batch_size=3, transform=ImageTransform(4))
    data.attach(
        encode=lambda text: encode_captions(TOKENIZER, text, prompt="", max_length=8),
        encode_prompt=PromptEncoder(TOKENIZER, 24),
    )
    data.prepare_data()
    data.setup("test")
    told = "".join(everything(batch) for batch in data.eval_dataloader("test"))
    assert all(text in told for _, text in ASKED.values())  # the questions are what it is given
    assert not [gold for golds in GOLD.values() for gold in golds if gold in told]
    keys = [source.record(index).key for index in range(len(source))]
    captions = {"7<->70": "a vermilion", "7<->71": "it is certainly", "8<->80": "seventeen"}
    found = [{"key": key, "caption": captions[key], "references": [], "metadata": {}} for key in keys]
    assert score_rows(found, {"qa": metric(files)})["caption_qa_hard"] == 1
