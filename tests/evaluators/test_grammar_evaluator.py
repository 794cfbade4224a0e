"""Shares of edits found, against counts made here; edits that SceneWorld's parser accepts stand apart."""

import json

import pytest
import torch

from capkit.data.sources.mismatched import Mismatched
from capkit.errors import UsageError
from capkit.evaluators.grammar import EditedCaption, Grammar, grammar_numbers
from capkit.models.dual_encoders.grammar_head import GrammarHead
from capkit.sceneworld.language.captions import references
from capkit.sceneworld.language.parser import parse
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.scene import WorldOptions, make_scene
from capkit.text.corruption import KINDS
from capkit.utils.rng import stable_hash

STAMPS = [("a", ["A hen.", "A big dog barks."], {}), ("b", ["Rope", "A hen."], {}), ("c", ["the old man sleeps"], {})]


class Judge:
    """P(grammatical) by a rule of the test; counts the texts it was asked about."""

    name, prompt, max_length = "rule", "", 9

    def __init__(self, rule, limit=10**9):
        self.rule, self.limit, self.grammar_head, self.seen = rule, limit, GrammarHead(2), []
        with torch.no_grad():
            for weight in self.grammar_head.parameters():
                weight.fill_(1.0)

    def grammatical(self, texts):
        self.seen += texts
        if len(self.seen) > self.limit:
            raise KeyboardInterrupt
        return torch.tensor([float(self.rule(text)) for text in texts])

    def preprocess(self, images):
        raise AssertionError("pictures are not needed")

    encode_image = encode_text = preprocess

    def is_cut(self, texts):
        return [False] * len(texts)

    def to(self, device):
        return self

    def fingerprint_fields(self, side):
        return {"side": side, "weights": "rule"}


def edit(kind, caption, text, rejected=None):
    return EditedCaption(kind, caption, text, rejected)


def test_numbers_by_hand():
    captions = ["one two three four", "five"]
    edited = [
        edit("shuffle", captions[0], "two one three four", True),
        edit("insert", captions[0], "one two three big four", False),
        edit("insert", captions[1], "five five", True),
    ]
    probability = {captions[0]: 0.9, captions[1]: 0.4}
    probability |= {"two one three four": 0.2, "one two three big four": 0.9, "five five": 0.3}
    numbers = grammar_numbers(captions, edited, probability, long=4)
    assert numbers["captions"] == 2 and numbers["false_alarms"] == 1 / 2
    assert numbers["edits"] == 2 / 3
    # insert: one of two found; of its two captions one passes. .9 against .9 is a tie, .3 is less than .4.
    assert (numbers["insert"], numbers["insert_balanced"], numbers["insert_paired"]) == (1 / 2, 1 / 2, 3 / 4)
    assert numbers["shuffle_long"] == 1 and numbers["rejected"] == 1 and numbers["rejected_insert_balanced"] == 1 / 2
    assert numbers["accepted"] == 0 and numbers["accepted_count"] == 1 and numbers["rejected_count"] == 2
    assert not [name for name in numbers if name.startswith(("remove", "repeat", "rejected_swap"))]


def test_a_judge_that_knows_the_captions_gets_everything_right(tmp_path, listed, data_of, rows_in):
    known = {text for _, texts, _ in STAMPS for text in texts}
    data = data_of(train=listed(STAMPS), test=listed(STAMPS))
    numbers = Grammar()(Judge(known.__contains__), data, tmp_path)
    assert numbers["grammar_captions"] == 4 and numbers["grammar_false_alarms"] == 0  # "A hen." is one caption
    assert all(numbers[f"grammar_{kind}{end}"] == 1 for kind in KINDS for end in ("", "_balanced", "_paired"))
    assert not [name for name in numbers if name.startswith("grammar_rejected_") and name != "grammar_rejected_count"]
    rows = rows_in(tmp_path / "grammar.jsonl")
    assert len(rows) == 4 + 5 * 4 - 2  # "Rope" can be neither shuffled nor shortened
    assert [row["text"] for row in rows if row["kind"] == "caption"] == [
        "A hen.",
        "A big dog barks.",
        *("Rope", STAMPS[2][1][0]),
    ]
    assert all(row["text"] != row["caption"] for row in rows if row["kind"] != "caption")
    assert json.loads((tmp_path / "grammar.json").read_text())["provenance"]["split"] == "test"


def test_whoever_counts_words_cannot_tell_a_shuffled_caption(tmp_path, listed, data_of):
    scenes = [make_scene(WorldOptions(), 0, "test", index) for index in range(30)]
    rows = [(f"{i}", references(scene), {"scene": scene.to_dict()}) for i, scene in enumerate(scenes)]
    data = data_of(train=listed(rows), test=listed(rows))
    numbers = Grammar()(Judge(lambda text: stable_hash(*sorted(text.split())) % 3 > 0), data, tmp_path)
    # The comma moves with its word, the words are the same.
    assert numbers["grammar_shuffle_balanced"] == numbers["grammar_shuffle_paired"] == 0.5
    assert 0.2 < numbers["grammar_false_alarms"] < 0.5


def test_edits_are_divided_by_what_the_data_source_rejects(tmp_path, data_of, rows_in):
    source = SceneWorld("test", 20, cache_dir=str(tmp_path / "scenes"))
    data = data_of(train=source, test=Mismatched(source, share=0.5))
    numbers = Grammar(num_captions=50)(Judge(lambda text: not parse(text).unparsed), data, tmp_path)
    edits = [row for row in rows_in(tmp_path / "grammar.jsonl") if row["kind"] != "caption"]
    unparsed = [bool(parse(row["text"]).unparsed) for row in edits]
    rejected = [row["rejected"] for row in edits]
    assert all(r for u, r in zip(unparsed, rejected, strict=True) if u) and sum(rejected) > sum(unparsed) > 100
    assert numbers["grammar_accepted"] == 0 and numbers["grammar_accepted_count"] == len(edits) - sum(rejected) > 20
    assert numbers["grammar_rejected"] == pytest.approx(sum(unparsed) / sum(rejected))


def test_a_killed_evaluation_goes_on_where_it_was(tmp_path, listed, data_of):
    rows = [(f"{i}", [f"a b c d e f{i}"], {}) for i in range(120)]
    data = data_of(train=listed(rows), test=listed(rows))

    def rule(text):
        return 1 / (1 + len(text) % 7)

    whole = Grammar()(Judge(rule), data, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        Grammar()(Judge(rule, limit=400), data, tmp_path / "killed")
    again = Judge(rule)
    assert Grammar()(again, data, tmp_path / "killed") == whole
    assert 0 < len(again.seen) < 720 - 200


def test_another_head_is_asked_again(tmp_path, listed, data_of):
    data = data_of(train=listed(STAMPS), test=listed(STAMPS))
    Grammar()(Judge(lambda text: 1.0), data, tmp_path)
    other = Judge(lambda text: 0.0)
    with torch.no_grad():
        other.grammar_head.hidden.weight.fill_(2.0)
    assert Grammar()(other, data, tmp_path)["grammar_false_alarms"] == 1


def test_what_cannot_be_evaluated_is_told(tmp_path, table, listed, data_of):
    data = data_of(train=listed(STAMPS), test=listed(STAMPS))
    with pytest.raises(UsageError, match="needs a dual encoder with a grammar head"):
        Grammar()(table([[1.0]]), data, tmp_path)
    with pytest.raises(UsageError, match="the test split has none"):
        Grammar()(Judge(bool), data_of(train=listed(STAMPS), test=listed([("a", [], {})])), tmp_path)
    with pytest.raises(UsageError, match="num_captions: expected an integer of at least 1"):
        Grammar(num_captions=0)
