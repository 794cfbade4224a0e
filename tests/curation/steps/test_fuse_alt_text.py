import json

import pytest

from capkit.curation.base import Step, check_sources, scope_of
from capkit.curation.steps.blend_captions import BlendCaptions
from capkit.curation.steps.fuse_alt_text import FuseAltText
from capkit.data.records import Caption, Record
from capkit.data.sources.capsfusion import CapsFusionTexts
from capkit.errors import UsageError
from capkit.llm.base import Answer, Question
from capkit.llm.cost import guessed_tokens
from capkit.llm.prompts import Prompt
from capkit.sceneworld.chat.sections import sections
from capkit.sceneworld.llm import SceneLM
from capkit.text.tokenizers import word_tokenizer

ALT, SYNTHETIC = "Amritsar: Protesters use kites #Gallery", "a man holding up two kites"


class Says:
    """Replies with one text to each question, or fails on alt-texts with "fail" in them; may count words as tokens."""

    def __init__(self, reply='{"caption": "Protesters hold up kites in Amritsar."}'):
        self.reply, self.asked = reply, []

    def about(self):
        return {"model": "says", "reply": self.reply}

    def ask(self, questions):
        self.asked += [question.text for question in questions]
        return [
            Answer(None, "it gave up") if "fail" in q.text.split("[alt_text]")[1] else Answer(self.reply)
            for q in questions
        ]


class CountsWords(Says):
    def count_tokens(self, question):
        return len(question.text.split())


def record(key, alt=ALT, synthetic=SYNTHETIC, **fields):
    captions = [("alt_text", alt), ("synthetic", synthetic)]
    return Record(key, captions=[Caption(text, source) for source, text in captions if text is not None], **fields)


def fused(tmp_path, model, given, **settings):
    failures, step = [], FuseAltText(model, cache_dir=str(tmp_path / "answers"), **settings)
    step.attach_failures(failures.append)
    return list(step(lambda: given)), failures, step


def test_two_captions_chosen_by_their_source_become_one(tmp_path):
    """Whatever their order, and whatever else the record has; a step's source counts by its beginning."""
    model = Says()
    given = [
        Record("0", captions=[Caption("x", "superhuman"), Caption(" ", "human"), Caption("pão  doce", "human", "pt"),
                              Caption("y", "human"), Caption("some bread", "blendcap/blend_v1/m")]),
    ]  # fmt: skip
    (first,), failures, step = fused(tmp_path, model, given, alt_text="human", synthetic="blendcap")
    assert [sections(text) for text in model.asked] == [{"alt_text": "pão doce", "synthetic": "some bread"}]
    assert first.captions == [Caption("Protesters hold up kites in Amritsar.", "capsfusion/fuse_alt_text_v1/says")]
    assert not failures and (step.counts["text_asked"], step.counts["prompts_cut"]) == (1, 0)
    (kept,), _, _ = fused(tmp_path, model, given, alt_text="human", synthetic="blendcap", keep=True)
    assert kept.captions == [*given[0].captions, *first.captions] and len(model.asked) == 1


def test_records_without_the_two_or_an_answer_are_listed(tmp_path):
    given = [record("0", alt=None), record("1", synthetic=" "), record("2", "fail"), record("3"), Record("4")]
    records, failures, _ = fused(tmp_path, Says(), given)
    assert [r.key for r in records] == ["3"]
    assert sorted((failure.key, failure.reason) for failure in failures) == [
        ("0", "no caption, or only empty ones, by alt_text"), ("1", "no caption, or only empty ones, by synthetic"),
        ("2", "it gave up"), ("4", "no caption, or only empty ones, by alt_text and synthetic"),
    ]  # fmt: skip


def test_a_reply_is_json_or_a_text_as_the_prompt_asks_for(tmp_path):
    prompt = tmp_path / "capsfus_llama.txt"
    prompt.write_text("Sentence 1: $alt_text\nSentence 2: $synthetic\nNew Sentence: [alt_text]")
    settings = {"prompt": str(prompt), "reply": "text"}
    (first,), _, _ = fused(tmp_path, Says(" Kites in Amritsar.\n"), [record("0")], **settings)
    assert first.captions == [Caption("Kites in Amritsar.", "capsfusion/capsfus_llama/says")]
    _, (failure,), _ = fused(tmp_path, Says("Kites in Amritsar."), [record("0")])
    assert "not one JSON object" in failure.reason and failure.said == "Kites in Amritsar."


# the length of prompts -----------------------------------------------------------------------------------------------

AROUND = len(Prompt("fuse_alt_text_v1", ["alt_text", "synthetic"]).fill(alt_text="", synthetic=SYNTHETIC).split())


@pytest.mark.parametrize("words", [20, 255 - AROUND, 256 - AROUND, 257 - AROUND, 999])
def test_a_prompt_of_256_tokens_stays_whole_and_a_longer_one_loses_the_alt_texts_end(tmp_path, words):
    """The released program cuts ids[:-(total - 256)] where total >= 256: at 256 that is ids[:-0], which is nothing."""
    alt = [f"w{number}" for number in range(words)]
    model = CountsWords()
    _, _, step = fused(tmp_path, model, [record("0", " ".join(alt))])
    total = AROUND + words
    read = sections(model.asked[0])
    assert read["alt_text"].split() == (alt if total <= 256 else alt[: 256 - AROUND]) and read["synthetic"] == SYNTHETIC
    assert len(model.asked[0].split()) == min(total, 256) and step.counts["prompts_cut"] == (total > 256)
    theirs = alt[: -(total - 256)] if total >= 256 else alt
    assert (theirs == read["alt_text"].split()) == (total != 256) and (total != 256 or theirs == [])


def test_a_model_that_counts_nothing_gets_its_tokens_guessed_or_counted_by_a_tokenizer(tmp_path):
    alt = " ".join(f"w{number}" for number in range(400))
    model = Says()
    fused(tmp_path, model, [record("0", alt)])
    cut = guessed_tokens(Question(model.asked[0]))
    assert 250 < cut <= 256  # the next word would not fit: at most 5 bytes
    tokenizer = word_tokenizer([alt])
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    fused(tmp_path, model, [record("0", alt)], tokenizer=str(tmp_path / "tokenizer"))
    assert len(tokenizer(model.asked[1], add_special_tokens=False).input_ids) == 256 - 16  # of a chat template
    fused(tmp_path, model, [record("0", alt)], max_prompt_tokens=None)
    assert sections(model.asked[2])["alt_text"] == alt
    with pytest.raises(UsageError, match="CountsWords does; leave it out"):
        FuseAltText(CountsWords(), tokenizer=str(tmp_path / "tokenizer"))


def test_a_word_that_is_too_long_by_itself_loses_letters_and_a_prompt_that_is_too_long_is_told(tmp_path):
    model = Says()
    (_,), failures, _ = fused(tmp_path, model, [record("0", "啊" * 500)])
    read = sections(model.asked[0])["alt_text"]
    assert read == "啊" * len(read) and guessed_tokens(Question(model.asked[0])) == 256 and not failures
    records, (failure,), _ = fused(tmp_path, model, [record("0", synthetic="so " * 300)])
    assert not records and "without its alt-text the prompt has more than max_prompt_tokens=256" in failure.reason


# what is told before anything is asked -------------------------------------------------------------------------------


def test_a_step_whose_sources_no_record_can_have_is_told_before_anything_is_asked(tmp_path):
    """One record must have both; what an earlier step writes counts."""
    fuse = FuseAltText(Says(), cache_dir=str(tmp_path))
    after_blend = FuseAltText(Says(), synthetic="blendcap", cache_dir=str(tmp_path))
    blend = BlendCaptions(Says(), cache_dir=str(tmp_path))
    both, alt, synthetic = record("0"), record("1", synthetic=None), record("2", alt=None)
    check_sources({"fuse_alt_text": fuse}, lambda: [alt, both])
    check_sources({"blend_captions": blend, "fuse_alt_text": after_blend}, lambda: [alt])
    for steps, records, sources in (
        ({"fuse_alt_text": fuse}, [alt, synthetic], "alt_text and synthetic"),
        ({"fuse_alt_text": after_blend, "blend_captions": blend}, [both], "alt_text and blendcap"),
        ({"blend_captions": blend, "fuse_alt_text": after_blend}, [synthetic], "alt_text"),
    ):
        with pytest.raises(UsageError, match=f"step fuse_alt_text needs records with captions by {sources}, which"):
            check_sources(steps, lambda records=records: records)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"text_lm": None}, "text_lm="),
        ({"reply": "jsn"}, "expected reply to be one of json, text"),
        ({"alt_text": "synthetic"}, "two sources of captions"),
        ({"prompt": "blend_v1"}, r"expected the fields \$alt_text, \$synthetic"),
        ({"released_file": "out.csv"}, "ends in .parquet or .json"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path, settings, reason):
    with pytest.raises(UsageError, match=reason):
        FuseAltText(**{"text_lm": SceneLM(), "cache_dir": str(tmp_path), **settings})


def test_it_is_a_step_on_records_and_on_all_where_it_writes_one_file(tmp_path):
    step = FuseAltText(SceneLM(), cache_dir=str(tmp_path))
    assert isinstance(step, Step) and scope_of(step) == "record"
    assert scope_of(FuseAltText(SceneLM(), released_file=str(tmp_path / "a.json"), cache_dir=str(tmp_path))) == "all"


# the released formats ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["json", "parquet"])
def test_what_is_written_as_released_is_read_again(tmp_path, ending):
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    file = tmp_path / f"fused.{ending}"
    given = [record("0", 'a "quoted" ü', metadata={"url": "http://a/b.jpg"}), record("1", "fail"), record("2")]
    fused(tmp_path, Says(), given, released_file=str(file))
    source = CapsFusionTexts(str(file))
    rows = [source.record(index) for index in range(len(source))]
    said = "Protesters hold up kites in Amritsar."
    assert [[(c.source, c.text) for c in row.captions] for row in rows] == [
        [("alt_text", alt), ("synthetic", SYNTHETIC), ("capsfusion", said)] for alt in ('a "quoted" ü', ALT)
    ]
    assert [row.metadata for row in rows] == ([{"url": "http://a/b.jpg"}, {}] if ending == "parquet" else [{}, {}])
    fused(tmp_path, Says(), [record("1", "fail")], released_file=str(file))
    assert len(CapsFusionTexts(str(file))) == 0
    if ending == "json":
        assert json.loads(file.read_text()) == []
