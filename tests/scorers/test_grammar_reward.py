"""P(grammatical) as a score: what training saw of a caption is what the reward sees of it."""

import math
from dataclasses import replace

import pytest
import torch

from capkit.data.negatives import EditedCaptions
from capkit.errors import UsageError
from capkit.models.dual_encoders.grammar_head import GrammarHead, grammar_probability
from capkit.models.dual_encoders.text_towers.hf import HFTextTower
from capkit.models.dual_encoders.two_tower import TwoTower
from capkit.models.tuning.policy import Tuning
from capkit.objectives.contrastive.info_nce import InfoNCE
from capkit.objectives.contrastive.pair_sum import PairSum
from capkit.objectives.grammar import GrammarCrossEntropy
from capkit.scorers.grammar import Grammar
from capkit.text.tokenizers import word_tokenizer
from capkit.types import CaptionBatch, Samples

CAPTIONS = ["a red circle", "a blue square above a red circle", "there is a small star", "a circle"]
CONFIG = dict(
    model_type="clip_text_model", hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
    max_position_embeddings=16, projection_dim=16,
)  # fmt: skip


def encoder(prompt="a photo depicts", grammar_head=True):
    torch.manual_seed(0)
    tower = HFTextTower(config=CONFIG, tokenizer=word_tokenizer([*CAPTIONS, "a photo depicts"]))
    return TwoTower(tower, feature_width=4, embed_dim=8, grammar_head=grammar_head, prompt=prompt).eval()


def training_batch(model):
    """Captions and their edits as a data worker makes them, prompt and all."""
    negatives = EditedCaptions()
    negatives.fit(CAPTIONS)
    edited = [negatives([text], (0, 0, i)) for i, text in enumerate(CAPTIONS)]
    tokens, mask, _ = model.encode([[text] for text in CAPTIONS])
    negative_tokens, negative_mask, _ = model.encode(edited)
    batch = CaptionBatch(
        [str(i) for i in range(len(CAPTIONS))],
        features=torch.randn(len(CAPTIONS), 2, 4),
        tokens=tokens,
        mask=mask,
        negative_tokens=negative_tokens,
        negative_mask=negative_mask,
    )
    return batch, [text for row in edited for text in row]


def score(model, texts):
    return Grammar(model)(CaptionBatch([str(i) for i in range(len(texts))]), Samples.from_texts(texts))


@pytest.mark.parametrize("prompt", ["", "a photo depicts"])
def test_the_reward_is_the_softmax_of_the_logits_that_training_had(prompt):
    model = encoder(prompt)
    batch, edited = training_batch(model)
    pairs = model(batch)
    for name, texts in (("grammar_logits", CAPTIONS), ("grammar_negative_logits", edited)):
        wanted = pairs.extras[name].softmax(-1)[:, 1]
        torch.testing.assert_close(score(model, [[text] for text in texts])[:, 0], wanted)


@pytest.mark.parametrize("grammar_head", [True, False])
def test_edits_are_embedded_as_captions_are(grammar_head):
    model = encoder(grammar_head=grammar_head)
    batch, edited = training_batch(model)
    pairs = model(batch)
    torch.testing.assert_close(pairs.extras["negative_texts"], model.encode_text(edited))
    again = model(replace(batch, tokens=batch.negative_tokens, mask=batch.negative_mask))
    assert torch.equal(pairs.extras["negative_text_ids"], again.text_ids)
    assert ("grammar_negative_logits" in pairs.extras) == grammar_head


def test_both_losses_reach_the_text_tower_and_none_the_image_side():
    torch.manual_seed(0)
    model = encoder()
    model.tune(image=Tuning("frozen"))
    batch, _ = training_batch(model)
    objective = PairSum({"info_nce": InfoNCE(), "grammar": GrammarCrossEntropy()})
    objective(model(batch), 0).loss.backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {"text_projection.weight", "scale.log_scale", "grammar_head.hidden.weight"} <= with_gradient
    assert any(name.startswith("text_tower.") for name in with_gradient)
    assert not [name for name in with_gradient if name.startswith("image_")]
    assert set(dict(model.named_parameters())) - with_gradient == {"image_projection.weight"}


def test_another_prompt_gives_other_scores():
    texts = [[text] for text in CAPTIONS]
    assert not torch.allclose(score(encoder(""), texts), score(encoder("a photo depicts"), texts), atol=1e-4)


def test_the_head_reads_the_pooled_feature_before_its_projection():
    model = encoder()
    before = score(model, [CAPTIONS])
    with torch.no_grad():
        model.text_projection.weight.zero_()
    assert torch.equal(score(model, [CAPTIONS]), before)
    with torch.no_grad():
        model.grammar_head.hidden.weight.zero_()
    assert score(model, [CAPTIONS]).tolist() == [[0.5] * 4]


def test_the_head_by_hand():
    # h = (1, 2): hidden [[1, 0], [0, -1]] gives (1, -2), ReLU (1, 0); classes [[0, 5], [log 3, 7]] give (0, log 3).
    head = GrammarHead(2)
    assert [name for name, _ in head.named_parameters()] == ["hidden.weight", "classes.weight"]  # no biases
    with torch.no_grad():
        head.hidden.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, -1.0]]))
        head.classes.weight.copy_(torch.tensor([[0.0, 5.0], [math.log(3), 7.0]]))
        assert float(grammar_probability(head(torch.tensor([[1.0, 2.0]])))) == pytest.approx(3 / 4)


def test_scores_keep_the_samples_places_and_a_caption_without_words_is_nan():
    model = encoder()
    alone = [float(score(model, [[text]])) for text in CAPTIONS]
    together = score(model, [[CAPTIONS[0], ""], [" .", CAPTIONS[3]], [CAPTIONS[1], CAPTIONS[0]]])
    wanted = torch.tensor([[alone[0], torch.nan], [torch.nan, alone[3]], [alone[1], alone[0]]])
    torch.testing.assert_close(together, wanted, equal_nan=True)
    assert score(model, [["", ""]]).isnan().all()


def test_an_encoder_without_a_head_is_refused():
    with pytest.raises(UsageError, match=r"grammar head.*experiment=grammar_clip"):
        Grammar(encoder(grammar_head=False))


def test_scores_say_what_they_must_be_quoted_with():
    assert Grammar(encoder()).provenance() == {"scorer": "TwoTower", "prompt": "a photo depicts", "max_length": 16}
