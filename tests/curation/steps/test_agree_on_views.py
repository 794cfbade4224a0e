"""One caption for all views of an object: which captions count, what the model is told, what becomes of its replies."""

import json

import pytest
from record_source import Records

from capkit.curation.base import Step
from capkit.curation.folder import CuratedFolder
from capkit.curation.shard_work import Work, curate
from capkit.curation.steps.agree_on_views import AgreeOnViews, banned_pattern
from capkit.data.records import Caption, Record
from capkit.errors import UsageError
from capkit.llm.base import Answer
from capkit.llm.ledger import Ledger
from capkit.sceneworld.llm import SceneLM

BANNED = {"living": ["cat", "man", "person"], "rooms": ["living room", "room"], "empty": None}


class Joiner:
    """Joins the captions that it is told by " / "; says other things where a caption asks for it."""

    def __init__(self):
        self.told = []

    def about(self):
        return {"model": "joiner"}

    def ask(self, questions):
        return [self._answer(json.loads(q.text.rpartition("[frequencies]\n")[2]), q.text) for q in questions]

    def _answer(self, frequencies, text):
        self.told.append(frequencies)
        said = " / ".join(caption for _, caption in frequencies)
        if "fail" in said:
            return Answer(None, "it gave up")
        if "odd" in said:
            return Answer(said)
        if "long" in said:
            return Answer("<Caption>" + "word " * 21 + "</Caption>")
        return Answer(f"Of course: <Caption>{said}</Caption>")


def views(name, *captions, start=0):
    return [
        Record(f"{name}-{start + i}", f"{i}.jpg", [Caption(text, "coca")], object=name)
        for i, text in enumerate(captions)
    ]


def agreed(records, cache, model=None, **settings):
    failures = []
    step = AgreeOnViews(model or Joiner(), settings.pop("banned_words", BANNED), cache_dir=str(cache), **settings)
    step.attach_failures(failures.append)
    return list(step(lambda: iter(records))), failures, step


def test_all_views_get_the_caption_that_the_model_made_of_the_frequencies(tmp_path):
    model = Joiner()
    records = [*views("e1/3", "a sofa", "a red  sofa", "a sofa"), *views("e1/4", "a bed")]
    found, failures, step = agreed(records, tmp_path, model)
    assert model.told == [[[2, "a sofa"], [1, "a red sofa"]], [[1, "a bed"]]]
    assert [record.key for record in found] == [record.key for record in records] and not failures
    assert {c for record in found[:3] for c in record.captions} == {
        Caption("a sofa / a red sofa", "embodied/embodied_agree_v1/joiner")
    }
    assert [(r.image, r.object) for r in found] == [(r.image, r.object) for r in records]
    numbers = {name: step.counts[name] for name in ("objects", "agreed", "captions_banned", "most_frequent")}
    assert numbers == {"objects": 2, "agreed": 2, "captions_banned": 0, "most_frequent": 0}
    assert isinstance(step, Step) and step.scope == "group"


@pytest.mark.parametrize(
    ("caption", "is_banned"),
    [
        ("a cat on a sofa", True),
        ("two Cats", True),
        ("a lamp in a good location", False),  # the released program: "cat" is in "location"
        ("a catalogue", False),
        ("a mantel with a clock", False),  # and "man" in "mantel"
        ("a man's hat", True),
        ("a man-made lake", True),
        ("two persons", True),
        ("a sofa in a  living   room", True),
        ("roomy", False),
        ("", False),
    ],
)
def test_words_are_banned_as_a_whole(caption, is_banned):
    pattern = banned_pattern([word for words in BANNED.values() for word in words or ()])
    assert bool(pattern.search(caption)) == is_banned
    assert banned_pattern([]) is None


def test_captions_with_a_banned_word_do_not_count(tmp_path):
    model = Joiner()
    records = views("o", "a cat", "a cat", "a cat", "a location", "a sofa")
    found, failures, step = agreed(records, tmp_path, model)
    assert model.told == [[[1, "a location"], [1, "a sofa"]]]
    assert len(found) == 5 and not failures and step.counts["captions_banned"] == 3
    assert found[0].captions[0].text == "a location / a sofa"


def test_an_object_whose_captions_were_all_banned_is_a_failure_of_each_view(tmp_path):
    found, failures, step = agreed([*views("o", "a cat", "a man"), *views("p", "a bed")], tmp_path)
    assert [record.object for record in found] == ["p"]
    assert [(f.key, f.step) for f in failures] == [("o-0", "agree_on_views"), ("o-1", "agree_on_views")]
    assert failures[0].reason == "every caption of its object has a banned word, such as 'cat' in 'a cat'"
    assert (step.counts["objects"], step.counts["agreed"]) == (2, 1)


def test_objects_without_captions_are_failures_and_nothing_is_asked(tmp_path):
    model = Joiner()
    records = [*views("o", " ", ""), Record("q", object="q"), *views("p", "a bed")]
    found, failures, _ = agreed(records, tmp_path, model)
    assert model.told == [[[1, "a bed"]]] and len(found) == 1
    assert [f.key for f in failures] == ["o-0", "o-1", "q"]
    assert {f.reason for f in failures} == {"its object has no caption, or only empty ones"}


@pytest.mark.parametrize("word", ["odd", "long"])  # no tags; 21 words between them
def test_a_reply_that_is_none_gives_the_most_frequent_caption(tmp_path, word):
    records = views("o", f"an {word} sofa", "a sofa", "a bed", "a sofa")
    found, failures, step = agreed(records, tmp_path)
    assert {c for record in found for c in record.captions} == {Caption("a sofa", "embodied/most_frequent")}
    assert not failures and step.counts["most_frequent"] == 1
    tie, _, _ = agreed(views("o", "a bed", f"an {word} sofa"), tmp_path)
    assert tie[0].captions[0].text == "a bed"  # of equally frequent ones the first


def test_a_model_that_gave_no_answer_is_a_failure(tmp_path):
    found, failures, step = agreed([*views("o", "fail", "a sofa"), *views("p", "a bed")], tmp_path)
    assert [record.object for record in found] == ["p"] and [f.reason for f in failures] == ["it gave up"] * 2
    assert step.counts["agreed"] == 1


def test_20_words_are_the_most_and_the_prompt_says_so(tmp_path):
    twenty = " ".join(["word"] * 20)
    found, _, step = agreed(views("o", twenty), tmp_path)
    assert found[0].captions[0] == Caption(twenty, step._source)
    (question,) = step._questions(next(step._objects(lambda: views("o", "a bed"))))
    assert "at most 20 words" in question.text and question.text.endswith('[frequencies]\n[[1, "a bed"]]')


def test_captions_can_be_kept_and_those_of_another_language_do_not_count(tmp_path):
    records = views("o", "ein Sofa", "a sofa")
    records[0].captions = [Caption("ein Sofa", "coca", "de")]
    found, _, _ = agreed(records, tmp_path, keep=True)
    assert [[c.text for c in record.captions] for record in found] == [["ein Sofa", "ein Sofa"], ["a sofa", "ein Sofa"]]
    assert found[0].captions[-1].language == "de"


def test_the_table_has_episode_object_and_caption(tmp_path):
    table = tmp_path / "pseudo.csv"
    records = [*views("gibson/12/3", 'a "red" sofa, soft'), *views("lamp", "a lamp"), *views("x/9", "a cat")]
    _, failures, step = agreed(records, tmp_path, csv_file=str(table))
    rows = table.read_text().splitlines()
    assert rows == [
        "episode_id,object_id,pseudo_caption",
        'gibson/12,3,"a ""red"" sofa, soft"',
        ",lamp,a lamp",
    ]
    assert step.scope == "all" and len(failures) == 1


def test_a_dry_run_writes_no_table(tmp_path):
    step = AgreeOnViews(Joiner(), csv_file=str(tmp_path / "pseudo.csv"), cache_dir=str(tmp_path))
    step.askers["text"].account = Ledger(is_dry=True).account("text", Joiner())
    assert len(list(step(lambda: views("o", "a bed", "a sofa")))) == 2
    assert not (tmp_path / "pseudo.csv").exists()


def test_shards_and_another_start_give_the_same_files(tmp_path):
    records = [view for i in range(5) for view in views(f"o{i}", f"a sofa {i}", "a cat", f"a bed {i}")]
    records[3:6] = views("o1", "a cat", "a man", "a cat")

    def files(out, num_shards):
        for shard in range(num_shards):
            step = AgreeOnViews(Joiner(), BANNED, cache_dir=str(tmp_path / out))
            folder = CuratedFolder(tmp_path / out, "train", shard, num_shards)
            curate(Work(Records(records), {"agree_on_views": step}, folder, Ledger(), {}))
        folder.merge()
        return [(tmp_path / out / name).read_bytes() for name in ("train.jsonl", "train.failures.jsonl")]

    whole = files("one", 1)
    assert len(whole[0].splitlines()) == 12 and len(whole[1].splitlines()) == 3
    assert files("four", 4) == whole and files("one", 1) == whole


def test_what_is_missing_is_said_with_the_fix(tmp_path):
    with pytest.raises(UsageError, match="agree_on_views needs a language model; add text_lm=hf"):
        AgreeOnViews()
    with pytest.raises(UsageError, match="expected banned words, got ''"):
        AgreeOnViews(Joiner(), {"living": [""]}, cache_dir=str(tmp_path))
    with pytest.raises(UsageError, match="expected banned words, got False; leave it out, or quote it"):
        banned_pattern([False])  # what yaml makes of `no`
    step = AgreeOnViews(Joiner(), cache_dir=str(tmp_path))
    with pytest.raises(UsageError, match="record 'k' does not say what it shows; give each record of the manifest"):
        list(step(lambda: [Record("k", captions=[Caption("a bed")])]))
    with pytest.raises(UsageError, match="retries=2 asks a refused question again"):
        AgreeOnViews(Joiner(), retries=2, cache_dir=str(tmp_path))


# SceneWorld's model ---------------------------------------------------------------------------------------------------


def scene_said(tmp_path, *captions):
    (found, *_), _, _ = agreed(views("o", *captions), tmp_path, SceneLM(), banned_words=None)
    return found.captions[0].text


def test_scene_lm_takes_the_plurality_of_each_fact(tmp_path):
    assert scene_said(tmp_path, "a red circle", "there is a red circle", "a blue circle", "picture of a square") == (
        "there is a red circle."
    )
    # two colours that are equally frequent: the one that came first
    assert scene_said(tmp_path, "a blue circle", "a red circle", "circle") == "there is a blue circle."
    # one wording three times counts three times
    assert scene_said(tmp_path, "red star", "a red star", "a green star", "a green star", "a green star") == (
        "there is a green star."
    )


def test_scene_lm_lets_captions_of_several_objects_have_no_vote(tmp_path):
    assert scene_said(tmp_path, "a red circle and a red square", "a blue star") == "there is a blue star."
    found, failures, _ = agreed(views("o", "img 204"), tmp_path, SceneLM(), banned_words=None)
    assert not found and failures[0].reason == "no caption is about one object of SceneWorld"
