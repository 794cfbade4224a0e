import ast
import csv
import json

import pytest

from capkit.errors import UsageError
from capkit.judges.chat_verifier import ChatVerifier
from capkit.judges.claims import Claim, Failed
from capkit.judges.decomposers import ChatDecomposer
from capkit.judges.verdicts import CONTRADICTED, ENTAILED, NEUTRAL
from capkit.metrics.dnli import DNLI, label_of
from capkit.sceneworld.llm import SceneLM
from capkit.sceneworld.world.options import COLORS

VERDICTS = {"e": ENTAILED, "c": CONTRADICTED, "n": NEUTRAL}


class Letters:
    """A text claims its letters; capitals are opinions. e is entailed, c contradicted, n neutral; a claim ? is lost."""

    by, num_samples = "text", 1

    def __init__(self):
        self.references = []

    def about(self):
        return {"letters": 1}

    def decompose(self, texts):
        for item, text in texts:
            yield item, Failed("claims: lost") if text == "lost" else [Claim(x.lower(), x.islower()) for x in text]

    def verify(self, cases):
        for item, (claims, evidence) in cases:
            self.references.append(evidence.text)
            is_lost = any(claim.text == "?" for claim in claims)
            yield item, [Failed("verify: lost") if is_lost else [VERDICTS[claim.text] for claim in claims]]


def dnli(**settings):
    return DNLI(Letters(), Letters(), max_failed=0.5, **settings)


def rows(*pairs):
    captions, references = zip(*pairs, strict=True)
    return list(captions), [[text] for text in references], [{"key": str(i)} for i in range(len(pairs))]


def test_shares_by_hand():
    """eecn of 2 claims: 2/4 and 2/2 entailed; ce of 4: 1/2 and 1/4. A seen n is contradicted as published."""
    found = dnli().score(*rows(("eecn", "xx"), ("ce", "xxxx")))
    assert found["dnli_entailed_precision"] == (2 / 4 + 1 / 2) / 2
    assert found["dnli_entailed_recall"] == (2 / 2 + 1 / 4) / 2
    assert found["dnli_contradicted_precision"] == (2 / 4 + 1 / 2) / 2
    assert found["dnli_contradicted_recall"] == (2 / 2 + 1 / 4) / 2
    assert found["dnli_neutral_recall"] == 0
    apart = dnli(neutral_is="new").score(*rows(("eecn", "xx"), ("ce", "xxxx")))
    assert apart["dnli_contradicted_precision"] == (1 / 4 + 1 / 2) / 2 and apart["dnli_neutral_recall"] == (1 / 2) / 2
    assert apart["dnli_entailed_precision"] == found["dnli_entailed_precision"]


def test_an_opinion_that_the_reference_does_not_tell_is_neutral_as_published():
    assert dnli().score(*rows(("eN", "xx")))["dnli_neutral_recall"] == 1 / 2
    assert label_of(Claim("n", is_seen=False), NEUTRAL, "opinion") == "neutral"
    assert (
        label_of(Claim("n"), NEUTRAL, "opinion") == "contradicted" and label_of(Claim("n"), NEUTRAL, "new") == "neutral"
    )
    assert label_of(Claim("c", is_seen=False), CONTRADICTED, "opinion") == "contradicted"


def test_what_failed_is_left_out_and_counted():
    """The released program takes -1 of -1 claims, a share of 1, for what it cannot read: entailed and contradicted."""
    given = rows(("e", "x"), ("c", "x"), ("e?", "x"), ("lost", "x"), ("ee", "xx"), ("ee", "xx"))
    found = dnli().score(*given)
    assert (found["dnli_asked"], found["dnli_failed"]) == (6, 2)
    assert found["dnli_entailed_precision"] == 3 / 4 and found["dnli_contradicted_precision"] == 1 / 4
    as_published = (3 + 1 + 1) / 6, (1 + 1 + 1) / 6
    assert as_published[1] - found["dnli_contradicted_precision"] == 1 / 4


def test_captions_and_references_without_claims_have_no_share():
    found = dnli().score(*rows(("", "xx"), ("ee", "xx"), ("e", "")))
    assert found["dnli_entailed_precision"] == 1 and found["dnli_entailed_recall"] == (0 + 1) / 2
    assert found["dnli_without_claims"] == 1


def test_a_caption_is_judged_by_its_own_reference():
    metric = dnli()
    metric.score(*rows(("e", "x"), ("c", "xy"), ("n", "z")))
    assert sorted(metric.verifier.references) == ["x", "xy", "z"]


def test_the_released_programs_files_give_its_numbers(tmp_path):
    given = rows(("eecn", "xx"), ("lost", "x"), ("ceN", "xxxx"))
    metric = dnli()
    metric.write(tmp_path, given)

    def table(name):
        return list(csv.DictReader((tmp_path / name).open(newline="")))

    expected, generated = table("gt_propositions.csv"), table("generated_descriptions_propositions.csv")
    assert [len(ast.literal_eval(row["gt_propositions"])["propositions"]) for row in expected] == [2, 4]
    assert generated[0]["generated_description"] == "eecn" and generated[1]["original_description"] == "xxxx"
    # What the program's print_ratio does with them.
    means = {}
    for kind in ("entailed", "contradicted", "neutral"):
        counts = [float(row[f"{kind}_propositions"]) for row in generated]
        for name, table_of in (("precision", generated), ("recall", expected)):
            shares = [n / float(row["total_propositions"]) for n, row in zip(counts, table_of, strict=True)]
            means[f"mean_{kind}_propositions_{name}"] = sum(shares) / len(shares)
    written = json.loads((tmp_path / "propositions_metrics.json").read_text())
    assert len(written) == 5 and written == pytest.approx({name: means[name] for name in written})
    assert written["mean_contradicted_propositions_precision"] == metric.score(*given)["dnli_contradicted_precision"]
    kept = [json.loads(line) for line in (tmp_path / "dnli.jsonl").read_text().splitlines()]
    assert kept[0]["probabilities"][3] == {"entailed": 0.0, "contradicted": 0.0, "neutral": 1.0}, (
        "as judged, not as counted"
    )
    parsed = table("generated_descriptions_propositions_parsed.csv")
    assert [row["judgment"] for row in parsed] == [
        "Entailed", "Entailed", "Contradicted", "Contradicted", "Contradicted", "Entailed", "Neutral",
    ]  # fmt: skip
    assert ast.literal_eval(generated[1]["propositions"])["propositions"][0] == {
        "id": 1, "proposition": "c", "judgment": "Contradicted",
    }  # fmt: skip


class Mortal:
    """SceneWorld's language model, which dies of its question number `last`."""

    def __init__(self, last):
        self.last, self.asked = last, 0

    def about(self):
        return {"model": "mortal"}

    def ask(self, questions):
        self.asked += len(questions)
        if self.asked >= self.last:
            raise RuntimeError("killed")
        return SceneLM().ask(questions)


def test_a_run_that_died_goes_on_where_it_stopped_and_comes_to_the_same_numbers(tmp_path):
    given = rows(*((f"a {color} circle and a star", "a red circle") for color in COLORS))

    def score(model, folder):
        cache = {"cache_dir": str(tmp_path / folder), "batch_size": 1}
        return DNLI(ChatDecomposer(model, **cache), ChatVerifier(model, **cache)).score(*given)

    whole = Mortal(last=100)
    wanted, first, second = score(whole, "whole"), Mortal(last=10), Mortal(last=100)
    with pytest.raises(RuntimeError, match="killed"):
        score(first, "killed")
    assert score(second, "killed") == wanted and second.asked == whole.asked - (first.asked - 1)


def test_a_verifier_that_looks_at_pictures_is_refused():
    seeing = Letters()
    seeing.by = "both"
    with pytest.raises(UsageError, match="got a verifier by both"):
        DNLI(Letters(), seeing)
    with pytest.raises(UsageError, match="add decomposer=chat or scene"):
        DNLI(Letters())
