"""Fidelity by hand, from models of transformers and from rules."""

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

from capkit.errors import UsageError
from capkit.judges.base import ContradictionJudge
from capkit.judges.nli import NLIModel
from capkit.sceneworld.judges import SceneRules
from capkit.scorers.base import Scorer
from capkit.scorers.nli import NLI, fidelity
from capkit.types import CaptionBatch, Samples

WORDS = ["a", "the", "dog", "cat", "car", "runs", "sleeps", "on", "grass", "red", "big", "house", "(", ")"]
MNLI = {0: "contradiction", 1: "neutral", 2: "entailment"}


def save(path, labels):
    (path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS) + 5,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        id2label=labels,
        label2id={label: number for number, label in labels.items()},
        initializer_range=1.0,  # probabilities far from 1 / 3
    )
    BertForSequenceClassification(config).save_pretrained(path)
    BertTokenizerFast(str(path / "vocab.txt")).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("tiny nli"), MNLI)


class Table:
    """A judge that knows the probability of each pair, and is asked of no other."""

    def __init__(self, table):
        self.table = table

    def contradiction(self, premises, hypotheses):
        return torch.tensor([self.table[pair] for pair in zip(premises, hypotheses, strict=True)])

    def to(self, device):
        return self

    def provenance(self):
        return {"judge": "table"}


def batch(references):
    return CaptionBatch([str(i) for i in range(len(references))], references=references)


def test_mochas_golden_value():
    # mean .2: 2 (1 - .2) - 1
    assert fidelity([0.1, 0.2, 0.3, 0.0, 0.4]) == pytest.approx(0.6)


def test_the_reference_is_the_premise_and_numbers_keep_their_places():
    # Uneven numbers of references: 1 - 2 (.1 + .3) / 2, then 1 - 2 x .5; the empty caption is asked about nowhere.
    table = {("r1", "c1"): 0.1, ("r2", "c1"): 0.3, ("r1", "c2"): 0.0, ("r2", "c2"): 1.0, ("r3", "c1"): 0.5}
    scores = NLI(Table(table))(batch([["r1", "r2"], ["r3"]]), Samples.from_texts([["c1", "c2"], ["", "c1"]]))
    assert scores.dtype == torch.float32
    wanted = torch.tensor([[0.6, 0.0], [torch.nan, 0.0]])
    torch.testing.assert_close(scores, wanted, equal_nan=True)


def test_captions_without_a_word_are_all_nan():
    assert NLI(Table({}))(batch([["r"]]), Samples.from_texts([["", " ."]])).isnan().all()


def test_an_image_without_references_is_refused():
    with pytest.raises(UsageError, match="at least one reference"):
        NLI(Table({}))(batch([[]]), Samples.from_texts([["c"]]))


def test_a_models_probabilities_equal_one_pair_at_a_time(folder):
    premises = ["a dog runs", "the cat sleeps on the grass", "a car", "a dog runs", "a red house"]
    hypotheses = ["a cat", "a dog runs on the big red car", "a car", "a cat", "grass"]
    judge = NLIModel(folder, batch_size=2)
    wanted = []
    for premise, hypothesis in zip(premises, hypotheses, strict=True):
        inputs = judge.tokenizer(premise, hypothesis, return_tensors="pt")
        with torch.no_grad():
            logits = judge.model(**inputs).logits[0]
        wanted.append(float(logits[0].exp() / logits.exp().sum()))
    found = judge.contradiction(premises, hypotheses)
    torch.testing.assert_close(found, torch.tensor(wanted), atol=1e-5, rtol=1e-5)
    assert found[0] == found[3] and found.max() - found.min() > 0.1


def test_the_label_is_found_by_its_name(folder, tmp_path):
    swapped = save(tmp_path, {0: "ENTAILMENT", 1: "NEUTRAL", 2: "CONTRADICTION"})  # same weights, other names
    judges = NLIModel(folder), NLIModel(swapped)
    assert [judge.label for judge in judges] == [0, 2]
    pair = ["a dog"], ["a cat"]
    inputs = judges[0].tokenizer(*pair, return_tensors="pt")
    probabilities = judges[0].model(**inputs).logits[0].softmax(-1)
    for judge, label in zip(judges, (0, 2), strict=True):
        assert float(judge.contradiction(*pair)) == pytest.approx(float(probabilities[label]), abs=1e-5)


def test_a_model_without_that_label_is_refused(tmp_path):
    path = save(tmp_path, {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"})
    with pytest.raises(UsageError, match=r"one label named contradiction.*LABEL_0"):
        NLIModel(path)


def test_a_special_token_that_a_caption_spells_out_is_text(folder):
    judge = NLIModel(folder)  # "[", "sep", "]" are three unknown words to it, as are the others
    spelled, unknown = judge.contradiction(["a dog"] * 2, ["a [SEP] dog", "a {zzz} dog"])
    assert spelled == unknown
    special = judge.contradiction(["a dog"], ["a dog"])
    assert spelled != special


def test_rules_judge_each_reference_by_itself():
    references = ["a red circle", "a circle", "a blue circle and a red circle", "a blue circle", "a star"]
    samples = Samples.from_texts([["a red circle", "a circle", "a green circle"]])
    # contradicted by 1, 0 and 3 of 5 references
    assert NLI(SceneRules())(batch([references]), samples).tolist() == [pytest.approx([0.6, 1.0, -0.2])]


def test_the_order_of_references_and_images_does_not_matter(folder):
    references = [["a dog runs", "the dog"], ["a car", "a red car on grass"], ["a house", "the big house"]]
    texts = [["a dog", "a cat"], ["a car runs", ""], ["grass", "a red house"]]
    scorer = NLI(NLIModel(folder, batch_size=4))
    scores = scorer(batch(references), Samples.from_texts(texts))
    turned = scorer(batch([image[::-1] for image in references[::-1]]), Samples.from_texts(texts[::-1]))
    torch.testing.assert_close(turned.flip(0), scores, equal_nan=True)


def test_judges_and_scorer_are_what_they_say(folder):
    judges = [NLIModel(folder), SceneRules()]
    assert all(isinstance(judge, ContradictionJudge) for judge in judges)
    scorer = NLI(judges[0])
    assert isinstance(scorer, Scorer) and scorer.to("cpu") is scorer
    assert scorer.provenance()["judge"] == folder and scorer.provenance()["label"] == "contradiction"
    assert not any(parameter.requires_grad for parameter in judges[0].model.parameters())
