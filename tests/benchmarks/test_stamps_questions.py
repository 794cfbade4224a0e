"""benchmarks/stamps/questions.py asks what it says: choices, captions of others, accuracy, paired differences."""

import json

import numpy as np
import pytest

from benchmarks.stamps import questions as stamps

CAPTIONS = {f"animals/{n}": f"A red {noun}." for n, noun in enumerate(["hen", "cow", "dog", "cat", "owl"])}
NOUNS = ["hen", "cow", "dog", "cat", "owl"]


def test_a_question_has_the_head_noun_and_three_of_other_captions_that_its_own_has_not():
    captions = CAPTIONS | {"animals/5": "A cow and a dog.", "space/6": "We remember."}
    asked = stamps.questions(captions, [*NOUNS, "cow", None])
    assert list(asked) == [*CAPTIONS, "animals/5"], "none about a caption without a noun"
    for key, (question,) in asked.items():
        right, *wrong = question["choices"]
        assert question["answer"] == right in captions[key] and question["category"] == "animals"
        assert len({right, *wrong}) == 4 and not [word for word in wrong if word in captions[key]]
    assert asked["animals/0"] == stamps.questions(CAPTIONS, NOUNS)["animals/0"], (
        "pictures of other nouns change nothing"
    )
    assert stamps.questions(CAPTIONS, NOUNS) != stamps.questions(CAPTIONS, NOUNS, seed=1)


def test_captions_of_other_pictures_are_those_of_people(tmp_path):
    folder = tmp_path / "predictions"
    folder.mkdir()
    references = {"annotations": [{"image_id": key, "caption": text} for key, text in CAPTIONS.items()]}
    for name in ("test", "test_untrained"):
        (folder / f"{name}.json").write_text(json.dumps([{"image_id": key, "caption": name} for key in CAPTIONS]))
        (folder / f"{name}_references.json").write_text(json.dumps(references))
    keys = list(CAPTIONS)[:4]
    found = stamps.captioners(tmp_path, keys)
    assert found[stamps.HUMAN] == [CAPTIONS[key] for key in keys] and found["stamps_mle"] == ["test"] * 4
    assert found[stamps.UNTRAINED] == ["test_untrained"] * 4 and found[stamps.EMPTY] == [""] * 4
    other = found[stamps.OTHER]
    assert sorted(other) == sorted(found[stamps.HUMAN])
    assert all(mine != theirs for mine, theirs in zip(found[stamps.HUMAN], other, strict=True))


def test_accuracy_and_the_paired_difference_to_an_empty_caption():
    right = {stamps.HUMAN: np.array([1.0, 1, 1, 0]), stamps.EMPTY: np.array([1.0, 0, 0, 0])}
    rows = stamps.rows_of(right)
    assert rows[stamps.HUMAN]["accuracy"][0] == 0.75 and rows[stamps.HUMAN]["more"][0] == 0.5
    low, high = rows[stamps.HUMAN]["more"][1:]
    assert 0 <= low < 0.5 < high <= 1 and rows[stamps.EMPTY]["more"] == (0, 0, 0)


def test_head_nouns_by_spacys_parser():
    pytest.importorskip(stamps.MODEL)
    captions = [
        "A knight’s helmet.",
        "A fire truck.",
        "An astronaut making a spacewalk!",
        "We remember those who died.",
    ]
    assert stamps.head_nouns(captions) == ["helmet", "truck", "astronaut", None]
