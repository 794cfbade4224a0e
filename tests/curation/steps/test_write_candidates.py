import numpy as np
import pytest

from capkit.curation.steps.write_candidates import Generator, WriteCandidates
from capkit.data.images import BadImage
from capkit.data.records import Caption, Record, write_manifest
from capkit.errors import UsageError
from capkit.llm.base import Answer
from capkit.sceneworld.chat.sections import sections

GRAY = np.zeros((4, 4, 3), np.uint8)
TEXTS = {"figure_type": "line chart", "ocr": "loss 0.5", "mention": "See figure 2.", "paragraph": "one two three four",
         "categories": "cs.CL", "figure_description": "a line falls"}  # fmt: skip


class Says:
    """A model that says its name, or what a function of the question gives."""

    def __init__(self, name, reply=None, sees=False):
        self.name, self.reply, self.takes_pictures, self.asked = name, reply, sees, []

    def about(self):
        return {"model": self.name}

    def ask(self, questions):
        self.asked += questions
        return [Answer(self.reply(question) if self.reply else f"A {self.name} caption.") for question in questions]


def run(folder, records, generators, read=lambda key: GRAY, **settings):
    failures = []
    step = WriteCandidates(generators, cache_dir=str(folder / "answers"), **settings)
    step.attach_failures(failures.append)
    step.attach_images(read)
    return list(step(lambda: records)), failures, step


def figure(key="0", **texts):
    return Record(key, captions=[Caption("An author's caption.")], metadata={**TEXTS, **texts})


def test_each_generator_adds_a_caption_with_its_name_prompt_and_model(tmp_path):
    seeing, reading = Says("gpt", sees=True), Says("llama")
    generators = {"eye": Generator(seeing, "mlbcap_caption_v1", sees=True), "text": Generator(reading)}
    (record,), failures, step = run(tmp_path, [figure()], generators)
    assert [(c.source, c.text) for c in record.captions] == [
        ("human", "An author's caption."), ("candidate/eye/mlbcap_caption_v1/gpt", "A gpt caption."),
        ("candidate/text/mlbcap_text_v1/llama", "A llama caption."),
    ]  # fmt: skip
    assert not failures and step.counts["eye_asked"] == step.counts["text_asked"] == 1
    assert len(seeing.asked[0].pictures) == 1 and not reading.asked[0].pictures
    assert sections(reading.asked[0].text) == TEXTS
    assert sections(seeing.asked[0].text) == {**TEXTS, "examples": "(none)"}


def test_a_summariser_reads_the_paragraph_to_its_limit_and_the_ocr(tmp_path):
    model = Says("pegasus")
    run(tmp_path, [figure()], {"sum": Generator(model, "mlbcap_summary_v1", max_paragraph_words=3)})
    assert model.asked[0].text == "one two three loss 0.5"


def test_what_is_not_known_or_not_told_is_said_to_be_so(tmp_path):
    model = Says("llama")
    run(tmp_path, [figure(ocr="")], {"text": Generator(model)}, fields=["ocr", "mention"])
    given = sections(model.asked[0].text)
    assert given.pop("mention") == TEXTS["mention"] and set(given.values()) == {"(not known)"}


def test_a_generator_that_fails_leaves_the_others(tmp_path):
    broken, good = Says("broken", lambda question: "I'm sorry, I cannot."), Says("good")
    (record,), failures, _ = run(tmp_path, [figure()], {"a": Generator(broken), "b": Generator(good)}, keep=False)
    assert [c.source for c in record.captions] == ["candidate/b/mlbcap_text_v1/good"]
    assert [(f.key, f.reason) for f in failures] == [("0", "a: unparsable answer: a refusal")]


def test_without_any_candidate_or_picture_a_record_is_left_out(tmp_path):
    def read(key):
        if key == "1":
            raise BadImage("empty file (0 bytes)")
        return GRAY

    silent = Says("silent", lambda question: "", sees=True)
    records, failures, _ = run(tmp_path, [figure(), figure("1")], {"a": Generator(silent, sees=True)}, read)
    assert not records and {(f.key, f.reason) for f in failures} == {
        ("0", "a: unparsable answer: it is empty"), ("1", "picture: empty file (0 bytes)"),
        ("0", "no generator has a usable answer"),
    }  # fmt: skip


def test_a_describer_writes_the_description_that_is_missing(tmp_path):
    describer, model = Says("minicpm", sees=True), Says("llama")
    records = [figure(), figure("1", figure_description="")]
    after, _, _ = run(tmp_path, records, {"text": Generator(model)}, describer=describer)
    told = [sections(question.text)["figure_description"] for question in model.asked]
    assert told == [r.metadata["figure_description"] for r in after] == ["a line falls", "A minicpm caption."]
    assert [sections(q.text) for q in describer.asked] == [{k: TEXTS[k] for k in ("figure_type", "categories")}]


def test_examples_are_the_best_graded_captions_of_the_subject_and_not_the_figures_own(tmp_path):
    graded = [
        Record(
            str(i), captions=[Caption(f"Caption {i}.", score=6.0 if i % 2 else 5.0)], metadata={"categories": subject}
        )
        for i, subject in enumerate(["cs.CL"] * 9 + ["cs.CV"] * 2)
    ]
    write_manifest(tmp_path / "graded.jsonl", graded)
    settings = {"examples": str(tmp_path / "graded.jsonl"), "num_examples": 2}
    shown = {}
    for seed in (0, 1):
        model = Says("gpt", sees=True)
        generators = {"eye": Generator(model, "mlbcap_caption_v1", sees=True)}
        records = [figure(str(i), mention=f"See figure {i}.") for i in (1, 20, 21, 22)]
        run(tmp_path / str(seed), records, generators, seed=seed, **settings)
        shown[seed] = [sections(q.text)["examples"].splitlines() for q in model.asked]
        allowed = {f"Caption {i}." for i in (1, 3, 5, 7)}
        for key, lines in zip(("1", "20", "21", "22"), shown[seed], strict=True):
            texts = {line.partition(". ")[2] for line in lines}
            assert len(texts) == 2 and texts <= allowed - ({"Caption 1."} if key == "1" else set())
    assert shown[0] != shown[1]
    write_manifest(tmp_path / "low.jsonl", graded[:1])
    with pytest.raises(UsageError, match="no caption with the score 6"):
        WriteCandidates({"a": Generator(Says("a"))}, examples=str(tmp_path / "low.jsonl"), cache_dir=str(tmp_path))


def test_a_second_run_asks_nothing(tmp_path):
    first = run(tmp_path, [figure()], {"text": Generator(Says("llama"))})[0]
    again = Says("llama")
    assert run(tmp_path, [figure()], {"text": Generator(again)})[0] == first and not again.asked


@pytest.mark.parametrize("generators", [None, {}, {"a/b": Generator(Says("a"))}, {"describer": Generator(Says("a"))}])
def test_generators_need_names_of_their_own(tmp_path, generators):
    with pytest.raises(UsageError, match="generator"):
        WriteCandidates(generators, cache_dir=str(tmp_path))
