import json

import numpy as np
import pytest

from capkit.errors import UsageError
from capkit.judges.chat_verifier import ChatVerifier
from capkit.judges.claims import Claim, Failed
from capkit.judges.decomposers import ChatDecomposer
from capkit.judges.matchers import ChatMatcher
from capkit.judges.verdicts import CONTRADICTED, ENTAILED
from capkit.metrics.bootstrap import bootstrap_intervals
from capkit.metrics.dcscore import DCScore, claim_share, dcscore_of, read_oracle_facts
from capkit.metrics.judged_pictures import rows_by_name
from capkit.sceneworld.judges import SceneDecomposer, SceneMatcher, SceneVerifier
from capkit.sceneworld.language.captions import caption, references
from capkit.sceneworld.llm import SceneLM, SceneVision
from capkit.sceneworld.world.scene import WorldOptions, make_scene
from capkit.text.checked import ScoreWarning

LEGACY = 1e-8


# the formula, by hand -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("true", "match", "facts", "precision", "recall"),
    [
        ((1, 0), (0, 0), 2, 1 / 2, 1 / 4),  # two claims on one fact, one wrong: it takes half of the fact
        ((1, 1), (0, 0), 1, 1, 1),  # said twice, known once
        ((1, 1), (0, None), 2, 1, 2 / 3),  # true and unmatched: 1 of 2 facts, and 1 of 1 more
        ((1, 0), (0, None), 2, 1 / 2, 1 / 2),  # wrong and unmatched
        ((0, 0), (0, 1), 2, 0, 0),  # all wrong
        ((), (), 2, 0, 0),  # none
        ((1, 1, 1), (0, 1, 2), 3, 1, 1),  # the oracle itself
        ((1,), (None,), 0, 1, 1),  # nothing was known
        ((0,), (None,), 0, 0, 0),
    ],
)
def test_precision_and_recall_by_hand(true, match, facts, precision, recall):
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0
    assert claim_share([bool(x) for x in true], match, facts) == pytest.approx((precision, recall, f1))


def test_over_what_is_seen_only_claims_that_are_seen_share_a_fact():
    """An opinion on the fact of a seen claim: the released program halves the seen claim's weight."""
    ((every, seen),) = dcscore_of([True, False], [[True, True]], [[0, 0]], 1)
    assert every == seen == (1, 1, 1)
    ((every, seen),) = dcscore_of([True, False], [[True, True]], [[0, 0]], 1, legacy=True)
    assert seen == pytest.approx((1, 1 / 2, 1 / (1.5 + LEGACY)), abs=1e-15)
    assert every == (1, 1, 2 / (2 + LEGACY)), "and F1 has 1e-8 in its denominator"


def test_there_is_a_pair_for_each_verification_and_matching_and_nothing_seen_is_0():
    pairs = dcscore_of([False], [[True], [False]], [[0], [None], [0]], 1)
    assert [every.f1 for every, _ in pairs] == [1, 2 * 1 * 0.5 / 1.5, 1, 0, 0, 0]
    assert {seen for _, seen in pairs} == {(0, 0, 0)}


# the steps ------------------------------------------------------------------------------------------------------------


class Parts:
    """A caption "a b!" claims its words; "!" is an opinion; "lost" fails. True are capitals; a fact of
    the same letter is matched. By samples: the third matching matches nothing, the second verification denies."""

    def __init__(self, num_samples=1, by="both"):
        self.num_samples, self.by, self.seen = num_samples, by, []

    def about(self):
        return {"parts": self.num_samples}

    def decompose(self, texts):
        for item, text in texts:
            words = [Claim(word.strip("!"), not word.endswith("!")) for word in text.split()]
            yield item, Failed("claims: lost", "?") if text == "lost" else words

    def match(self, cases):
        for item, (claims, facts) in cases:
            places = [next((i for i, fact in enumerate(facts) if fact.lower() == c.text.lower()), None) for c in claims]
            bad = Failed("match: lost") if any(claim.text == "unmatchable" for claim in claims) else None
            yield item, [bad or (places if sample < 2 else [None] * len(claims)) for sample in range(self.num_samples)]

    def verify(self, cases):
        for item, (claims, evidence) in cases:
            self.seen.append(evidence)
            labels = [
                [ENTAILED if c.text.isupper() and s != 1 else CONTRADICTED for c in claims]
                for s in range(self.num_samples)
            ]
            yield item, labels


def dcscore(**settings):
    parts = Parts(settings.pop("num_samples", 1))
    return DCScore(parts, parts, parts, **settings)


def rows(*captions, references=("A B",)):
    return list(captions), [list(references)] * len(captions), [{"key": str(i)} for i in range(len(captions))]


def test_the_score_of_three_captions_by_hand():
    """ "A b": 1/2, 1/2; "A C!": P 1, R 2/3 over all, 1/2 over what is seen; "": 0. Facts are A and B."""
    found = dcscore().score(*rows("A b", "A C!", ""))
    f1 = [1 / 2, 4 / 5, 0], [1 / 2, 2 / 3, 0]
    assert found["dcscore"] == pytest.approx(100 * (sum(f1[0]) + sum(f1[1])) / 2 / 3)
    assert found["dcscore_f1"] == pytest.approx(sum(f1[0]) / 3) and found["dcscore_f1_seen"] == pytest.approx(
        sum(f1[1]) / 3
    )
    assert found["dcscore_precision"] == pytest.approx(1.5 / 3) and found["dcscore_recall"] == pytest.approx(
        (1 / 2 + 2 / 3) / 3
    )
    assert found["dcscore_claims"] == pytest.approx(4 / 3)
    assert (found["dcscore_asked"], found["dcscore_failed"]) == (3, 0)


def test_the_oracle_itself_is_100_whatever_the_order():
    assert dcscore().score(*rows("B A", "A B"))["dcscore"] == 100


def test_the_mean_is_over_nine_pairs():
    """ "A": one of three verifications denies it, one of three matchings finds nothing: 2/3 of their mean."""
    matched, unmatched = 2 * 1 * (1 / 2) / (3 / 2), 2 * 1 * (1 / 3) / (4 / 3)
    found = dcscore(num_samples=3).score(*rows("A"))
    assert found["dcscore"] == pytest.approx(100 * 2 / 3 * (2 * matched + unmatched) / 3)


def test_models_that_follow_the_bundled_prompts_give_what_the_exact_parts_give(tmp_path):
    scenes = [make_scene(WorldOptions(min_objects=2), 0, "test", index) for index in range(8)]
    # Each caption is that of the scene two places on: some claims are true, some wrong, some of no fact.
    captions = [caption(scene, "human", index % 5).text for index, scene in enumerate(scenes)]
    blank = np.zeros((2, 2, 3), np.uint8)
    metadata = [{"key": str(i), "image": blank, "scene": scene.to_dict()} for i, scene in enumerate(scenes)]
    columns = captions[2:] + captions[:2], [references(scene, "dense") for scene in scenes], metadata
    exact = DCScore(SceneDecomposer(), SceneMatcher(), SceneVerifier("both")).score(*columns)
    assert 5 < exact["dcscore"] < 60
    kept = {"cache_dir": str(tmp_path)}

    def asked(form):
        verifier = ChatVerifier(SceneVision(), "both", form, **kept)
        return DCScore(ChatDecomposer(SceneLM(), **kept), ChatMatcher(SceneLM(), **kept), verifier).score(*columns)

    assert asked("list") == pytest.approx(exact)
    # One by one "object_1 is small" is true if anything is: claims lose what binds them to one object.
    assert asked("single")["dcscore"] > exact["dcscore"] + 5


def test_what_failed_is_counted_and_the_number_is_given_with_and_without_it():
    metric = dcscore(max_failed=0.5)
    found = metric.score(*rows("A B", "lost", "A B", "unmatchable"))
    assert (found["dcscore"], found["dcscore_failed_as_0"]) == (100, 50)
    assert (found["dcscore_asked"], found["dcscore_failed"]) == (4, 2)
    with pytest.warns(ScoreWarning, match="2 of 4 judgements failed"):
        assert "dcscore" not in dcscore(max_failed=0.4).score(*rows("A B", "lost", "A B", "lost"))


def test_intervals_are_of_the_same_number():
    metric, given = dcscore(), rows(*["A B", "", "A"] * 10)
    low, high = bootstrap_intervals(metric.image_sums(*given), num_resamples=200)["dcscore"]
    assert low < metric.score(*given)["dcscore"] < high


def test_files_of_pictures_are_what_the_released_program_sums_up(tmp_path):
    given = rows("A b", "lost", "A C!")
    metric = dcscore(max_failed=0.5)
    metric.write(tmp_path, given)
    # What compute_results.py does with them.
    results = [json.loads(path.read_text()) for path in (tmp_path / "eval_details").glob("*.json")]
    valid = [row["eval_details"] for row in results if row["valid"]]
    score = sum((row["f1_score_relevant"] + row["f1_score"]) / 2 for row in valid) / len(valid)
    assert len(results) == 3 and len(valid) == 2 and 100 * score == pytest.approx(metric.score(*given)["dcscore"])
    first = json.loads((tmp_path / "eval_details" / "0.json").read_text())
    assert first["human_annotated_oracle_atomic_facts"][1] == {"id": 1, "fact": "B", "relevance": 1}
    assert first["eval_details"]["matched_oracle_ids"] == [[0, 1]] and first["eval_details"]["verifications"] == [
        [1, 0]
    ]
    assert first["eval_details"]["probabilities"] == [[1.0, 0.0]]
    lost = json.loads((tmp_path / "eval_details" / "1.json").read_text())["eval_details"]
    assert lost == {"error": "claims: lost", "said": "?"}


# the released file ----------------------------------------------------------------------------------------------------


def facts_file(tmp_path, *facts):
    path = tmp_path / "human_annotated_oracle_facts.jsonl"
    lines = [{"image_name": name, "oracle_caption": f"of {name}", "oracle_facts": list(given)} for name, given in facts]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_facts_come_from_the_released_file_and_need_no_references(tmp_path):
    parts = Parts()
    file = facts_file(tmp_path, ("x/1.jpg", "AB"), ("2.jpg", "C"))
    metric = DCScore(parts, parts, parts, file)
    found = metric.score(
        ["C", "A B"], [[], []], [{"key": "2"}, {"key": "1.jpg", "image": lambda: np.zeros((2, 2, 3), np.uint8)}]
    )
    assert found["dcscore"] == 100 and not metric.needs_references
    assert [evidence.text for evidence in parts.seen] == ["of 2.jpg", "of x/1.jpg"]
    assert parts.seen[0].picture is None and parts.seen[1].picture().pixels.shape == (2, 2, 3)


def test_numbers_are_quoted_with_their_parts_and_the_file_of_facts(tmp_path):
    parts = Parts(3)
    file = facts_file(tmp_path, ("1.jpg", "A"))
    quoted = DCScore(parts, parts, parts, file, legacy=True).provenance()
    path, checksum = quoted.pop("oracle_facts")
    assert path == file and len(checksum) > 8
    about = {"parts": 3}
    assert quoted == {"decomposer": about, "matcher": about, "verifier": about, "legacy": True, "max_failed": 0.05}


def test_facts_of_other_pictures_are_refused_before_anything_is_asked(tmp_path):
    metric = DCScore(Parts(), Parts(), None or Parts(), facts_file(tmp_path, ("1.jpg", "A")))
    with pytest.raises(UsageError, match=r"4 of 5 of none or several of them: 2, 3, 4; it has 1\.jpg"):
        metric.score(["A"] * 5, [[]] * 5, [{"key": key} for key in "12345"])
    with pytest.raises(UsageError, match="1 of 1"):
        rows_by_name(["a/1.jpg", "b/1.jpg"], ["1"], "file")


@pytest.mark.parametrize("facts", [[("1.jpg", "A"), ("1.jpg", "B")], [("1.jpg", "")]])
def test_a_file_with_an_image_twice_or_without_facts_is_refused(tmp_path, facts):
    with pytest.raises(UsageError, match=r"comes twice|has no facts"):
        read_oracle_facts(facts_file(tmp_path, *facts))


def test_missing_parts_are_named():
    with pytest.raises(UsageError, match=r"add decomposer=\.\.\., matcher="):
        DCScore(Parts(), None, Parts())
