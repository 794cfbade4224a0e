import json

import pytest
from judge_models import Says

from capkit.errors import UsageError
from capkit.judges.claims import Claim, Decomposer, Failed
from capkit.judges.decomposers import ChatDecomposer, SentenceDecomposer, sentences
from capkit.sceneworld.judges import SceneDecomposer
from capkit.sceneworld.llm import SceneLM


def listed(*claims):
    return json.dumps({"claims": [{"claim": text, "seen": seen} for text, seen in claims]})


def test_a_chat_model_lists_claims_in_order_equal_ones_too(tmp_path):
    said = listed(("A dog.", True), ("A dog.", True), ("It looks happy.", False))
    model = Says(lambda given, sample: said if given["text"] == "two dogs" else None)
    decomposer = ChatDecomposer(model, cache_dir=str(tmp_path))
    found = list(decomposer.decompose([(1, "two dogs"), (2, "lost"), (3, " \n")]))
    assert found[0] == (1, [Claim("A dog."), Claim("A dog."), Claim("It looks happy.", is_seen=False)])
    assert found[1][0] == 2 and isinstance(found[1][1], Failed) and found[1][1].reason == "claims: no answer"
    assert found[2] == (3, []) and len(model.asked) == 2, "a text without words is not asked about"
    assert isinstance(decomposer, Decomposer)


@pytest.mark.parametrize(
    "said", ['{"claims": [{"claim": "a dog"}]}', '["a dog"]', "1. a dog", '{"claims": [{"claim": ""}]}']
)
def test_a_reply_of_another_form_is_a_failure(tmp_path, said):
    ((_, found),) = ChatDecomposer(Says(lambda *_: said), cache_dir=str(tmp_path)).decompose([(0, "a dog")])
    assert isinstance(found, Failed) and "unparsable" in found.reason and found.said == said


def test_more_claims_than_allowed_are_refused_and_asked_again(tmp_path):
    model = Says(lambda _, sample: listed(*[("A dog.", True)] * (3 - sample)))
    decomposer = ChatDecomposer(model, max_claims=2, retries=1, cache_dir=str(tmp_path))
    assert list(decomposer.decompose([(0, "a dog")])) == [(0, [Claim("A dog.")] * 2)]
    assert len(model.asked) == 2


def test_scene_facts_by_rule_and_by_the_scene_model_are_the_same(tmp_path):
    text = (
        "There are two shapes. A large red circle is in the top left. It is to the left of a small star. "
        "How calm it looks!"
    )
    wanted = [
        Claim("object_0 is a circle."), Claim("object_0 is red."), Claim("object_0 is in the top left."),
        Claim("object_0 is large."), Claim("object_1 is a star."), Claim("object_1 is small."),
        Claim("object_0 is left of object_1."), Claim("the number of objects is 2."),
        Claim("How calm it looks!", is_seen=False),
    ]  # fmt: skip
    ((_, found),) = SceneDecomposer().decompose([(0, text)])
    assert found == wanted
    ((_, asked),) = ChatDecomposer(SceneLM(), cache_dir=str(tmp_path)).decompose([(0, text)])
    assert asked == wanted


def test_sentences_end_at_marks_and_not_at_abbreviations_or_numbers():
    text = 'A pole of 3.5 m. Is it red? "Yes!" The sign, e.g. a dog, is old ...  ! A bird'
    assert sentences(text) == ["A pole of 3.5 m.", "Is it red?", '"Yes!', "The sign, e.g. a dog, is old ...", "A bird"]
    assert list(SentenceDecomposer().decompose([(0, "A dog. It runs."), (1, "")])) == [
        (0, [Claim("A dog."), Claim("It runs.")]),
        (1, []),
    ]


def test_a_decomposer_without_a_model_says_what_to_add():
    with pytest.raises(UsageError, match="add text_lm=hf, server or scene"):
        ChatDecomposer()
