"""PromptCap's step: what is asked of whom, what stays by the soft score, examples, and the released file."""

import json

import pytest
import torch

from capkit.curation.questions import Split
from capkit.curation.steps.guide_captions import GuideCaptions
from capkit.data.records import Caption, Record
from capkit.data.vqa import GuidedRow, read_guided, write_guided
from capkit.errors import UsageError
from capkit.llm.base import Answer
from capkit.sceneworld.chat.sections import sections
from capkit.text.asked import GENERIC, guided_prompt

RED = "what color is the ball?"


class Model:
    """Says `said(sections, sample)`; None fails."""

    takes_pictures = False

    def __init__(self, said, name="model", draws=False):
        self.said, self.name, self.draws, self.asked = said, name, draws, []

    def about(self):
        return {"model": self.name}

    def ask(self, questions):
        self.asked += questions
        told = [self.said(sections(question.text), question.sample) for question in questions]
        return [Answer(None, "gave up") if text is None else Answer(text) for text in told]


class Encoder:
    """Texts by how many of these words they have."""

    def __init__(self, name="words"):
        self.name = name

    def fingerprint_fields(self, side):
        return {"side": side, "encoder": self.name}

    def encode_text(self, texts):
        words = ("color", "ball", "cat", "many")
        return torch.tensor([[0.01 + text.count(word) for word in words] for text in texts])


def vqa(question=RED, answers=("red",) * 10, identity="7"):
    return {"question_id": identity, "question": question, "answers": list(answers)}


def record(*asked, key="1", captions=("a ball",)):
    return Record(key, captions=[Caption(text) for text in captions], metadata={"vqa": list(asked) or [vqa()]})


def by_last_word(given, sample):
    """A reader that answers with the caption's last word."""
    return given["caption"].split()[-1]


def run(folder, records, writer, reader=by_last_word, **settings):
    failures = []
    reader = reader if isinstance(reader, Model) else Model(reader, "reader")
    step = GuideCaptions(writer, reader, cache_dir=str(folder / "answers"), **settings)
    step.attach_failures(failures.append)
    return list(step(lambda: records)), failures, step


def told(record):
    return [(caption.text, caption.prompt, caption.score) for caption in record.captions]


def test_a_caption_that_leads_to_the_answer_stays_with_its_question_as_prompt(tmp_path):
    writer = Model(lambda given, sample: "the ball is red", "writer")
    (after,), failures, step = run(tmp_path, [record()], writer)
    assert told(after) == [("a ball", GENERIC, None), ("the ball is red", guided_prompt(RED), 1.0)] and not failures
    assert after.captions[1].source == "promptcap/guide_caption_v1/writer"
    (asked,) = writer.asked
    assert asked.text.endswith(f"[captions]\na ball\n\n[question]\n{RED}\n\n[answer]\nred")
    assert step.counts["candidates"] == step.counts["kept"] == 1


def test_the_best_of_greedy_and_sampled_candidates_stay_if_good_enough(tmp_path):
    said = ["the ball is rod", "the ball is red", "a thing", "so red"]
    sampler = Model(lambda given, sample: said[sample], "sampler", draws=True)
    writer = Model(lambda given, sample: "it is rod", "writer")
    (after,), _, step = run(tmp_path, [record()], writer, sampler=sampler, num_samples=4)
    assert [text for text, _, _ in told(after)[1:]] == ["the ball is red", "so red"]  # rod scores 2/3
    assert step.counts["candidates"] == 5
    (after,), _, step = run(tmp_path / "b", [record()], writer)
    assert told(after)[1][2] == pytest.approx(2 / 3)
    (after,), _, step = run(tmp_path / "c", [record()], writer, min_score=0.7)
    assert len(after.captions) == 1 and step.counts["questions_without"] == 1


def test_a_caption_that_does_worse_than_a_plain_one_goes(tmp_path):
    writer = Model(lambda given, sample: "it is rod", "writer")
    (after,), _, _ = run(tmp_path, [record(captions=("a ball", "all is red"))], writer)
    assert [text for text, _, _ in told(after)] == ["a ball", "all is red"]


def test_answers_that_fail_take_out_their_caption_alone(tmp_path):
    sampler = Model(lambda given, sample: [None, "all red"][sample], "sampler", draws=True)
    reader = Model(lambda given, sample: None if "rod" in given["caption"] else "red", "reader")
    writer = Model(lambda given, sample: "it is rod", "writer")
    (after,), failures, _ = run(tmp_path, [record()], writer, reader, sampler=sampler, num_samples=2)
    assert [text for text, _, _ in told(after)] == ["a ball", "all red"]
    assert {failure.reason for failure in failures} == {f"sample: {RED}: gave up", f"read: {RED}: gave up"}


def test_records_without_captions_or_questions_are_reported(tmp_path):
    records = [record(captions=()), Record("2", captions=[Caption("a ball")]), record(key="3")]
    after, failures, _ = run(tmp_path, records, Model(lambda given, sample: "red", "writer"))
    assert [r.key for r in after] == ["3"]
    assert [(f.key, f.reason.split(";")[0]) for f in failures] == [
        ("1", "no caption"),
        ("2", "no question with answers"),
    ]


def solved(image_id, question, caption, answer="yes", scores=(0.0, 1.0)):
    return GuidedRow("q", image_id, question, answer, ["plain"], [caption], list(scores), [0.0, 1.0])


def test_examples_are_the_most_alike_last_and_never_of_the_same_picture(tmp_path):
    rows = [
        solved("6", "what color is the ball of the other?", "a ball", scores=(0.0, 0.5)),  # not solved
        solved("9", "is there a cat?", "a cat"),
        solved("1", RED, "the answer itself"),  # the record's own picture
        solved("8", "what color is the ball there?", "a blue ball", "blue"),
        solved("7", "how many?", "many"),
    ]
    write_guided(tmp_path / "solved.json", rows)
    reader = Model(by_last_word, "reader")
    settings = {"examples": str(tmp_path / "solved.json"), "encoder": Encoder(), "num_examples": 2}
    run(tmp_path, [record()], Model(lambda given, sample: "it is red", "writer"), reader, **settings)
    before = reader.asked[0].text.partition("[caption]")[0]
    assert "the answer itself" not in before and before.count("Caption: ") == 2
    assert before.rindex("a blue ball") > before.index("Caption: ")
    assert before.rstrip().endswith("Question: what color is the ball there?\nAnswer: blue")


def test_examples_and_what_they_are_compared_by_are_what_a_result_depends_on(tmp_path):
    """So that a run does not go on behind another file of the same name, or with another encoder."""

    def of(caption, encoder):
        write_guided(tmp_path / "solved.json", [solved("9", RED, caption)])
        models = {"text_lm": Model(by_last_word), "reader": Model(by_last_word)}
        return GuideCaptions(**models, examples=str(tmp_path / "solved.json"), encoder=encoder).fingerprint_fields()

    assert of("a cat", Encoder()) == of("a cat", Encoder()) != of("a dog", Encoder())
    assert of("a cat", Encoder()) != of("a cat", Encoder("others"))


def test_examples_of_which_none_is_solved_are_an_error(tmp_path):
    write_guided(tmp_path / "solved.json", [solved("9", RED, "a cat", scores=(1.0, 0.5))])
    settings = {"examples": str(tmp_path / "solved.json"), "encoder": Encoder()}
    with pytest.raises(UsageError, match=r"whose soft score is 0\.6 at least, got none"):
        run(tmp_path, [record()], Model(by_last_word, "writer"), **settings)


def test_a_candidate_may_be_what_a_plain_caption_says(tmp_path):
    """It answers the question as well, and it is asked about once."""
    reader = Model(by_last_word, "reader")
    plain = ("a ball", "all is red")
    (after,), _, _ = run(tmp_path, [record(captions=plain)], Model(lambda given, sample: "all is red", "w"), reader)
    assert told(after)[2:] == [("all is red", guided_prompt(RED), 1.0)] and len(reader.asked) == 2


def test_the_released_file_has_the_programs_rows(tmp_path):
    file = tmp_path / "guided.json"
    writer = Model(lambda given, sample: "it is red", "writer")
    _, _, step = run(tmp_path, [record(captions=("a ball", "a rod"))], writer, released_file=str(file))
    assert step.scope == "all"
    (row,) = json.loads(file.read_text())
    assert row == {
        "question_id": "7",
        "image_id": "1",
        "question": RED,
        "answer": "red",
        "coco_captions": ["a ball", "a rod"],
        "prompt_guided_captions": ["it is red"],
        "soft_scores": [pytest.approx(0.0), pytest.approx(2 / 3), 1.0],
        "hard_scores": [0.0, 0.0, 1.0],
    }
    assert read_guided(file)[0].prompt_guided_captions == ["it is red"]


def test_the_released_file_has_the_captions_that_were_answered_from(tmp_path):
    file = tmp_path / "guided.json"
    said = {"a ball": "red", "a rod": None, "it is red": "red", "it is rod": None}
    reader = Model(lambda given, sample: said[given["caption"]], "reader")
    sampler = Model(lambda given, sample: ["it is rod", "it is red"][sample], "sampler", draws=True)
    writer = Model(lambda given, sample: None, "writer")
    settings = {"sampler": sampler, "num_samples": 2, "released_file": str(file)}
    run(tmp_path, [record(captions=("a ball", "a rod"))], writer, reader, **settings)
    (row,) = read_guided(file)
    assert (row.coco_captions, row.prompt_guided_captions) == (["a ball"], ["it is red"])
    assert row.soft_scores == row.hard_scores == [1.0, 1.0]


def test_the_most_frequent_answer_is_told_to_the_writer_alone(tmp_path):
    writer, reader = Model(lambda given, sample: "it is red", "writer"), Model(by_last_word, "reader")
    run(tmp_path, [record(vqa(answers=("blue", "red", "red")))], writer, reader)
    assert sections(writer.asked[0].text)["answer"] == "red"
    assert all("answer" not in sections(question.text) for question in reader.asked)


def test_plain_captions_may_be_left_out(tmp_path):
    (after,), _, _ = run(tmp_path, [record()], Model(lambda given, sample: "it is red", "writer"), generic=None)
    assert told(after) == [("it is red", guided_prompt(RED), 1.0)]


def test_a_dry_run_writes_no_released_file(tmp_path):
    writer, reader = Model(lambda given, sample: "it is red", "writer"), Model(by_last_word, "reader")
    step = GuideCaptions(writer, reader, cache_dir=str(tmp_path), released_file=str(tmp_path / "guided.json"))
    step.attach_split(Split("train", lambda split: {}, is_dry=True))
    assert len(list(step(lambda: [record()]))) == 1 and not (tmp_path / "guided.json").exists()


def test_a_released_file_of_another_split_is_refused_and_kept(tmp_path):
    file = tmp_path / "guided.json"
    writer, reader = Model(lambda given, sample: "it is red", "writer"), Model(by_last_word, "reader")
    run(tmp_path, [record()], writer, reader, released_file=str(file))
    before = file.read_text()
    step = GuideCaptions(writer, reader, cache_dir=str(tmp_path), released_file=str(file))
    with pytest.raises(UsageError, match=r"the pictures of split val, got .*guided.json.* of others \(such as 1\)"):
        step.attach_split(Split("val", {"val": {"2": "b.jpg"}}.__getitem__))
    step.attach_split(Split("val", {"val": {"1": "a.jpg"}}.__getitem__))  # its own, written again
    assert file.read_text() == before


def test_pictures_of_the_test_split_are_refused(tmp_path):
    step = GuideCaptions(Model(by_last_word), Model(by_last_word), cache_dir=str(tmp_path))
    with pytest.raises(UsageError, match="1 pictures of the test split"):
        step.attach_split(Split("train", lambda split: {"1": "a.jpg"}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"soft_scores": [1.0]}, "row 1: expected a number of soft_scores for each of 2 captions, got 1"),
        ({"hard_scores": [1.0, "1"]}, "row 1: expected a number as 'hard_scores', got '1'"),
        ({"prompt_guided_captions": [7]}, "row 1: expected text as 'prompt_guided_captions', got 7"),
    ],
)
def test_a_released_file_of_another_form_is_an_error(tmp_path, change, message):
    row = {"question_id": 1, "image_id": 2, "question": "q", "answer": "a", "coco_captions": ["x"]}
    row |= {"prompt_guided_captions": ["y"], "soft_scores": [1.0, 1.0], "hard_scores": [1.0, 1.0], **change}
    (tmp_path / "g.json").write_text(json.dumps([row]))
    with pytest.raises(UsageError, match=message):
        read_guided(tmp_path / "g.json")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "needs a model that writes"),
        ({"template": "no field"}, r"expected a prompt with \$question"),
        ({"examples": "x.json"}, "chosen by likeness"),
    ],
)
def test_what_cannot_run_is_told_first(settings, message):
    models = {} if not settings else {"text_lm": Model(by_last_word), "reader": Model(by_last_word)}
    with pytest.raises(UsageError, match=message):
        GuideCaptions(**models, **settings)
