import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from judge_models import Says, by_number
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

from capkit.errors import UsageError
from capkit.judges.chat_verifier import ChatVerifier
from capkit.judges.claims import Claim, Failed
from capkit.judges.ensemble import Ensemble
from capkit.judges.matchers import ChatMatcher, Matcher
from capkit.judges.nli import inference_labels
from capkit.judges.nli_verifier import NLIVerifier
from capkit.judges.verdicts import CONTRADICTED, ENTAILED, NEUTRAL, Evidence, Verdict, Verifier
from capkit.llm.base import Picture
from capkit.llm.chat_server import ChatServer
from capkit.sceneworld.judges import SceneMatcher, SceneVerifier
from capkit.sceneworld.language.captions import caption
from capkit.sceneworld.language.claims import claim_of, claims_in
from capkit.sceneworld.language.facts import scene_facts
from capkit.sceneworld.llm import SceneLM, SceneVision
from capkit.sceneworld.world.options import COLORS
from capkit.sceneworld.world.scene import WorldOptions, make_scene
from capkit.testing.stand_in_server import Reply, StandInServer, chat_reply

RED, BIG = Claim("The dog is red."), Claim("The dog is big.")
TEXT = Evidence("a red dog")


def claims(*texts):
    return [Claim(text) for text in texts]


def one(verifier, case):
    ((_, (verdicts,)),) = verifier.verify([(0, case)])
    return verdicts


# chat models ----------------------------------------------------------------------------------------------------------


def test_a_list_is_one_question_and_its_verdicts_go_by_number(tmp_path):
    model = Says(lambda given, _: '{"2": "neutral", "1": "Entailed"}')
    verifier = ChatVerifier(model, cache_dir=str(tmp_path))
    assert one(verifier, ([RED, BIG], TEXT)) == [ENTAILED, NEUTRAL]
    assert len(model.asked) == 1 and "1. The dog is red.\n2. The dog is big." in model.asked[0].text
    assert isinstance(verifier, Verifier)


def test_one_by_one_each_claim_is_a_question_and_a_missing_verdict_fails_the_case(tmp_path):
    model = Says(lambda given, _: {RED.text: "entailed", BIG.text: "contradicted"}.get(given["claim"]))
    verifier = ChatVerifier(model, form="single", cache_dir=str(tmp_path))
    assert one(verifier, ([BIG, RED, BIG], TEXT)) == [CONTRADICTED, ENTAILED, CONTRADICTED]
    assert len(model.asked) == 2, "equal claims are asked once"
    assert isinstance(one(verifier, ([RED, Claim("?")], TEXT)), Failed)


@pytest.mark.parametrize(
    "said", [by_number("entailed"), by_number(*["entailed"] * 3), "entailed", by_number("yes", "no")]
)
def test_verdicts_that_are_not_one_for_each_claim_are_a_failure(tmp_path, said):
    assert isinstance(one(ChatVerifier(Says(lambda *_: said), cache_dir=str(tmp_path)), ([RED, BIG], TEXT)), Failed)


def test_samples_are_lists_of_their_own_and_nothing_is_asked_about_no_claims(tmp_path):
    model = Says(lambda _, sample: [by_number("true", "true"), None, by_number("true", "false")][sample])
    verifier = ChatVerifier(model, "picture", num_samples=3, cache_dir=str(tmp_path))
    picture = Evidence(picture=lambda: Picture(np.zeros((2, 2, 3), np.uint8)))
    ((item, samples), (other, empty)) = verifier.verify([("a", ([RED, BIG], picture)), ("b", ([], picture))])
    assert (item, other) == ("a", "b") and empty == [[], [], []]
    assert samples[0] == [ENTAILED] * 2 and isinstance(samples[1], Failed) and samples[2] == [ENTAILED, CONTRADICTED]
    assert len(model.asked) == 3 and all(len(question.pictures) == 1 for question in model.asked)


def test_the_probability_of_true_is_that_of_the_first_token_where_a_server_gives_it(tmp_path, monkeypatch):
    """.6 of "true" and .1 of " True" to .2 of "false": .7 / .9; the rest is no verdict."""
    monkeypatch.setenv("no_proxy", "*")
    likely = {"true": 0.6, " True": 0.1, "false": 0.2, "maybe": 0.1}
    tokens = [{"token": token, "logprob": math.log(chance)} for token, chance in likely.items()]

    def reply(prompt):
        body = json.loads(chat_reply("true"))
        body["choices"][0]["logprobs"] = (
            {"content": [{"token": "true", "top_logprobs": tokens}]} if RED.text in prompt else None
        )
        return Reply(json.dumps(body))

    with StandInServer(reply) as server:
        for _ in range(2):  # the second time from the store
            model = ChatServer(server.url, "tiny", top_logprobs=4)
            verifier = ChatVerifier(model, "picture", "single", cache_dir=str(tmp_path))
            picture = Evidence(picture=lambda: Picture(np.zeros((2, 2, 3), np.uint8)))
            red, big = one(verifier, ([RED, BIG], picture))
            assert red.entailed == pytest.approx(0.7 / 0.9) and red.contradicted == pytest.approx(0.2 / 0.9)
            assert big == ENTAILED, "a server that gives none"
        assert len(server.requests) == 2 and server.requests[0]["body"]["top_logprobs"] == 4


def test_what_a_verifier_looks_at_must_be_there(tmp_path):
    verifier = ChatVerifier(Says(lambda *_: by_number("true")), "both", cache_dir=str(tmp_path))
    with pytest.raises(UsageError, match="looks at pictures, and there are none"):
        one(verifier, ([RED], TEXT))
    with pytest.raises(UsageError, match="reads a text, and there is none"):
        one(ChatVerifier(Says(lambda *_: ""), cache_dir=str(tmp_path)), ([RED], Evidence()))
    with pytest.raises(UsageError, match="add vision_chat=hf, server or scene"):
        ChatVerifier(by="both")


def test_matches_go_by_number_and_a_fact_that_is_not_there_is_a_failure(tmp_path):
    matcher = ChatMatcher(
        Says(lambda _, sample: by_number(*[(2, 0), (0, 3)][sample])), num_samples=2, cache_dir=str(tmp_path)
    )
    ((_, (first, second)), (_, none)) = matcher.match([(0, ([RED, BIG], ["a", "b"])), (1, ([RED], []))])
    assert first == [1, None] and isinstance(second, Failed) and "from 0 to 2" in second.reason
    assert none == [[None], [None]] and isinstance(matcher, Matcher)


# ensembles ------------------------------------------------------------------------------------------------------------


class Fixed:
    by, num_samples = "text", 1

    def __init__(self, *labels):
        self.labels = labels

    def about(self):
        return {"labels": list(self.labels)}

    def verify(self, cases):
        for item, (given, _) in cases:
            yield (
                item,
                [Failed("lost") if "lost" in self.labels else [replace(label) for label in self.labels[: len(given)]]],
            )


def test_an_ensemble_keeps_the_share_of_yes_and_half_is_no_yes():
    three = Ensemble(
        {"a": Fixed(ENTAILED, ENTAILED), "b": Fixed(ENTAILED, NEUTRAL), "c": Fixed(CONTRADICTED, ENTAILED)}
    )
    first, second = one(three, ([RED, BIG], TEXT))
    assert first == Verdict(2 / 3, 1 / 3, 0.0) and first.is_true and second == Verdict(2 / 3, 0.0, 1 / 3)
    (half,) = one(Ensemble({"a": Fixed(ENTAILED), "b": Fixed(CONTRADICTED)}), ([RED], TEXT))
    assert half.entailed == 0.5 and not half.is_true and half.label == "contradicted"
    assert isinstance(one(Ensemble({"a": Fixed(ENTAILED), "b": Fixed("lost")}), ([RED], TEXT)), Failed)


def test_an_ensemble_asks_each_member_and_needs_members_of_one_kind(tmp_path):
    models = [Says(lambda *_: by_number("entailed"), name) for name in "ab"]
    pair = Ensemble({m.name: ChatVerifier(m, cache_dir=str(tmp_path)) for m in models})
    assert one(pair, ([RED], TEXT)) == [ENTAILED] and [len(model.asked) for model in models] == [1, 1]
    assert list(pair.askers) == ["a_verify", "b_verify"]
    with pytest.raises(UsageError, match="2 verifiers or more"):
        Ensemble({"a": Fixed(ENTAILED)})
    with pytest.raises(UsageError, match="judge by the same"):
        Ensemble({"a": Fixed(ENTAILED), "b": SceneVerifier("picture")})


# inference models -----------------------------------------------------------------------------------------------------

WORDS = ["the", "dog", "is", "red", "big", "a", "."]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A model of transformers with random weights, and its labels in the order that BART's have."""
    path = tmp_path_factory.mktemp("tiny inference")
    (path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    torch.manual_seed(0)
    labels = {0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"}
    config = BertConfig(
        vocab_size=len(WORDS) + 5, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        id2label=labels, label2id={label: number for number, label in labels.items()}, initializer_range=1.0,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(path)
    BertTokenizerFast(str(path / "vocab.txt")).save_pretrained(path)
    return str(path)


def test_an_inference_model_reads_the_text_as_premise_and_its_labels_go_by_name(tiny):
    verifier = NLIVerifier(tiny)
    (_, ([red, big],)), (_, ([],)), (_, ([other],)) = verifier.verify(
        [(0, ([RED, BIG], TEXT)), (1, ([], TEXT)), (2, ([RED], Evidence("a big dog")))]
    )
    model, tokenizer = BertForSequenceClassification.from_pretrained(tiny), BertTokenizerFast.from_pretrained(tiny)
    for verdict, claim, text in ((red, RED, "a red dog"), (big, BIG, "a red dog"), (other, RED, "a big dog")):
        with torch.no_grad():
            expected = model(**tokenizer(text, claim.text, return_tensors="pt")).logits[0].softmax(-1).tolist()
        found = [verdict.contradicted, verdict.neutral, verdict.entailed]
        assert found == pytest.approx(expected, abs=1e-5)
    assert isinstance(verifier, Verifier)


def test_a_model_without_a_label_for_entailment_is_refused():
    assert inference_labels({0: "entailment", 1: "neutral", 2: "contradiction"}, "x") == (0, 2, 1)
    for labels in ({0: "entailment", 1: "not_entailment"}, {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}):
        with pytest.raises(UsageError, match="one label each named entailment, contradiction and neutral"):
            inference_labels(labels, "x")


def test_labels_are_told_before_a_model_is_loaded(tmp_path):
    BertConfig(id2label={0: "entailment", 1: "not_entailment"}).save_pretrained(tmp_path)  # without weights
    with pytest.raises(UsageError, match=r"expected one label each .* got \['entailment', 'not_entailment'\]"):
        NLIVerifier(str(tmp_path))


# SceneWorld's exact ones ----------------------------------------------------------------------------------------------

REFERENCE = (
    "There are three shapes. A large red circle is in the top left. A small blue star is in the bottom left. "
    "There is a green square. The background is white."
)


@pytest.mark.parametrize(
    ("claim", "verdict"),
    [
        ("A red circle.", ENTAILED),
        ("A blue circle.", CONTRADICTED),
        ("A large square.", NEUTRAL),  # its size is not said
        ("A moon.", CONTRADICTED),  # the three shapes are others
        ("The circle is above a star.", ENTAILED),  # by their places
        ("A star above a circle.", CONTRADICTED),
        ("A circle left of a star.", CONTRADICTED),  # one column
        ("A square left of a circle.", NEUTRAL),
        ("The background is black.", CONTRADICTED),
        ("The word sun is written.", NEUTRAL),
        ("It feels calm.", NEUTRAL),
    ],
)
def test_claims_in_words_by_a_text(claim, verdict, tmp_path):
    case = (claims(claim), Evidence(REFERENCE))
    assert one(SceneVerifier("text"), case) == [verdict]
    assert one(ChatVerifier(SceneLM(), cache_dir=str(tmp_path)), case) == [verdict]
    assert one(ChatVerifier(SceneLM(), form="single", cache_dir=str(tmp_path)), case) == [verdict]


def test_facts_of_one_object_belong_together():
    """ "A red star" of a red circle and a blue star is wrong, though each word is true of something."""
    together = claims("object_7 is a star.", "object_7 is red.", "object_2 is a circle.", "object_2 is red.")
    assert one(SceneVerifier("text"), (together, Evidence(REFERENCE))) == [ENTAILED, CONTRADICTED, ENTAILED, ENTAILED]


def scene_evidence(scene):
    return Evidence("", lambda: Picture(np.zeros((2, 2, 3), np.uint8), {"scene": scene.to_dict()}))


@pytest.mark.parametrize("index", range(6))
def test_all_facts_of_a_scene_are_true_of_it_and_a_colour_that_it_does_not_have_is_not(index, tmp_path):
    scene = make_scene(WorldOptions(), 0, "test", index)
    facts = scene_facts(scene)
    absent = sorted(set(COLORS) - {item.color for item in scene.objects})[0]
    wrong = [f"color:0={absent}" if fact.startswith("color:0=") else fact for fact in facts]
    for verifier in (SceneVerifier("picture"), ChatVerifier(SceneVision(), "picture", cache_dir=str(tmp_path))):
        assert one(verifier, (claims(*map(claim_of, facts)), scene_evidence(scene))) == [ENTAILED] * len(facts)
        expected = [CONTRADICTED if fact != old else ENTAILED for fact, old in zip(wrong, facts, strict=True)]
        assert one(verifier, (claims(*map(claim_of, wrong)), scene_evidence(scene))) == expected


def test_claims_are_matched_by_what_they_speak_of_not_by_what_they_say(tmp_path):
    scene = make_scene(WorldOptions(min_objects=3, max_objects=3), 0, "test", 1)
    facts = [text for text, _ in claims_in(caption(scene, "dense").text)]
    said = [text.replace("white", "black") for text in reversed(facts)]
    for matcher in (SceneMatcher(), ChatMatcher(SceneLM(), cache_dir=str(tmp_path))):
        ((_, (found,)),) = matcher.match([(0, (claims(*said, "the text is zebra.", "How calm!"), facts))])
        assert found == [*reversed(range(len(facts))), None, None]
    ((_, (found,)),) = SceneMatcher().match(
        [(0, (claims("object_5 is blue.", "object_5 is a circle."), ["object_0 is a circle.", "object_0 is red."]))]
    )
    assert found == [1, 0]
