import pytest
import torch
from camu_helpers import CAPTIONS, meme_batch, small_camu, small_encoder

from capkit.errors import UsageError
from capkit.methods.memes.caption_choice import gumbel_noise
from capkit.methods.memes.model import CrossModalFusion, MemeScores
from capkit.models.tuning.policy import Tuning


def test_fusion_equals_its_definition():
    fusion = CrossModalFusion(6, 5, 8, num_heads=1, dropout=0.0)
    image, text = torch.randn(3, 4, 6), torch.randn(3, 2, 5)
    i, t = fusion.image_projection(image), fusion.text_projection(text)

    def attend(layer, query, other):
        wq, wk, wv = layer.in_proj_weight.chunk(3)
        weights = ((query @ wq.T) @ (other @ wk.T).transpose(1, 2) / 8**0.5).softmax(-1)
        return layer.out_proj(weights @ (other @ wv.T))

    seen = i + attend(fusion.image_attends, i, t), t + attend(fusion.text_attends, t, i)
    assert torch.allclose(fusion(image, text), torch.cat([part.mean(1) for part in seen], -1), atol=1e-6)
    with pytest.raises(UsageError, match="divisible"):
        CrossModalFusion(6, 5, 8, num_heads=3, dropout=0.0)


def test_fusion_does_not_depend_on_the_order_of_image_tokens():
    fusion = CrossModalFusion(6, 5, 8, 2, 0.0)
    image, text = torch.randn(2, 5, 6), torch.randn(2, 1, 5)
    assert torch.allclose(fusion(image[:, [3, 1, 4, 0, 2]], text), fusion(image, text), atol=1e-6)


def test_evaluation_is_deterministic_and_training_draws():
    model = small_camu(dropout=0.5).eval()
    batch = meme_batch(model)
    assert torch.equal(model(batch).logits, model(batch).logits)
    noises = [gumbel_noise(0, step, batch.keys, 2) for step in range(20)]
    assert len({tuple(model(batch, noise).selected.tolist()) for noise in noises}) > 1


def test_candidates_may_come_in_any_order():
    model = small_camu().eval()
    scores = model(meme_batch(model))
    turned = model(meme_batch(model, [row[::-1] for row in CAPTIONS]))
    assert torch.allclose(turned.logits, scores.logits, atol=1e-6)
    present = scores.has_caption
    assert torch.equal(1 - turned.selected[present], scores.selected[present])


def test_only_the_chosen_caption_is_read():
    model = small_camu().eval()
    scores = model(meme_batch(model))
    read = [[row[place]] if place >= 0 else [""] for row, place in zip(CAPTIONS, scores.selected.tolist(), strict=True)]
    assert torch.allclose(model(meme_batch(model, read)).logits, scores.logits, atol=1e-5)


def test_more_empty_candidates_and_more_padding_change_nothing():
    model = small_camu().eval()
    scores = model(meme_batch(model))
    wider = model(meme_batch(model, [[*row, "", ""] for row in CAPTIONS]))
    assert torch.allclose(wider.logits, scores.logits, atol=1e-6) and torch.equal(wider.selected, scores.selected)


def test_empty_captions_are_never_chosen_and_a_meme_without_any_is_still_classified():
    model = small_camu().eval()
    scores = model(meme_batch(model))
    assert scores.selected[2] == 1 and scores.selected[3] == 0 and scores.selected[4] == -1
    assert scores.has_caption.tolist() == [True] * 4 + [False] + [True] * 3
    assert scores.selected_scores[4] == 0 and scores.logits.isfinite().all()
    alone = model(meme_batch(model, [[""]] * 8))
    assert torch.allclose(alone.logits[4], scores.logits[4], atol=1e-6)
    assert len(set(alone.logits.tolist())) > 1, "its picture counts"


@pytest.mark.parametrize(
    ("tuning", "trained"),
    [
        (Tuning("projection"), set()),
        (Tuning("last_n", n=2), {"layers.1", "layers.2", "final_layer_norm"}),
        (Tuning("last_n", n=1), {"layers.2", "final_layer_norm"}),
        (Tuning("full"), {"embeddings", "layers.0", "layers.1", "layers.2", "final_layer_norm"}),
    ],
)
def test_gradients_reach_what_is_tuned_and_nothing_else(tuning, trained):
    model = small_camu(tuning)
    batch = meme_batch(model)
    scores = model(batch, gumbel_noise(0, 0, batch.keys, 2))
    (scores.logits.square().sum() + scores.selected_scores.sum()).backward()
    got = {name for name, p in model.named_parameters() if p.grad is not None}
    text = {name for name in got if name.startswith("encoder.text_tower.")}
    assert {part for part in trained if any(f".{part}." in name for name in text)} == trained
    assert all(any(f".{part}." in name for part in trained) for name in text)
    rest = {name.split(".")[1] if name.startswith("encoder.") else name.split(".")[0] for name in got - text}
    assert rest == {"text_projection", "scorer", "fusion", "head", "no_caption"}


def test_lora_trains_adapters_in_place_of_layers():
    model = small_camu(Tuning("lora", rank=2))
    scores = model(meme_batch(model))
    scores.logits.sum().backward()
    names = {n for n, p in model.named_parameters() if p.grad is not None and n.startswith("encoder.text_tower.")}
    assert names and all("lora_" in name for name in names)


def test_every_trained_parameter_gets_a_gradient_in_every_batch():
    """DDP waits for all of them: also for `no_caption` where each meme has one, and without any caption at all."""
    for captions in (CAPTIONS, [["a", "red"]] * 4, [["", ""]] * 4):
        model = small_camu()
        batch = meme_batch(model, captions)
        scores = model(batch, gumbel_noise(0, 0, batch.keys, 2))
        (scores.logits.sum() + scores.selected_scores.sum()).backward()
        assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]


def test_the_choice_of_a_caption_gets_a_gradient_from_the_classification():
    model = small_camu()
    batch = meme_batch(model)
    model(batch, gumbel_noise(0, 0, batch.keys, 2)).logits.square().sum().backward()
    assert model.scorer.layers[-1].weight.grad.abs().sum() > 0


def test_frozen_parts_stay_in_eval_mode():
    model = small_camu().train()
    assert not model.encoder.image_tower.training and model.fusion.training and model.encoder.text_projection.training


def test_pooled_images_and_cosine_selection():
    model = small_camu(selection="cosine", image_tokens="pooled").eval()
    batch = meme_batch(model)
    scores = model(batch)
    cosines = torch.einsum("bd,kd->bk", scores.images, model.encoder.encode_text(["a red ball", "a ball"]))
    assert torch.allclose(scores.scores[0], 100 * cosines[0], atol=1e-3)
    for wrong in ({"selection": "random"}, {"image_tokens": "grid"}, {"tau": 0.0}):
        with pytest.raises(UsageError):
            small_camu(**wrong)


def test_micro_batches_join_to_the_whole():
    model = small_camu().eval()
    batch = meme_batch(model)
    whole, parts = model(batch), MemeScores.join([model(batch[:3]), model(batch[3:])])
    assert torch.allclose(whole.logits, parts.logits, atol=1e-6) and torch.equal(whole.selected, parts.selected)


def test_the_encoder_keeps_its_own_frozen_weights():
    encoder = small_encoder(Tuning("projection"))
    assert not any(p.requires_grad for p in encoder.text_tower.parameters())
