import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from capkit.errors import UsageError
from capkit.methods.memes.caption_choice import CaptionScorer, CosineScorer, gumbel_noise, select


def test_the_scorer_has_three_hidden_layers_as_published():
    scorer = CaptionScorer(8, hidden_width=16, dropout=0.1)
    kinds = [nn.Linear, nn.LayerNorm, nn.GELU, nn.Dropout]
    hidden = list(scorer.layers)[:-1]
    assert len(hidden) == 12 and all(isinstance(m, kinds[i % 4]) for i, m in enumerate(hidden))
    assert all(parametrize.is_parametrized(m, "weight") for m in hidden if isinstance(m, nn.Linear))
    assert isinstance(scorer.layers[-1], nn.Linear) and scorer.layers[-1].out_features == 1
    with pytest.raises(UsageError):
        CaptionScorer(8, dropout=1.0)


def test_a_caption_is_scored_for_itself():
    scorer = CaptionScorer(8, 16).eval()
    captions, image = torch.randn(5, 4, 8), torch.randn(5, 8)
    order = [2, 0, 3, 1]
    assert torch.allclose(scorer(captions[:, order], image), scorer(captions, image)[:, order], atol=1e-6)
    assert torch.allclose(scorer(captions[1:2, 2:3], image[1:2])[0, 0], scorer(captions, image)[1, 2], atol=1e-6)


def test_the_cosine_scorer_prefers_the_caption_nearest_to_the_image():
    image = torch.tensor([[1.0, 0.0]])
    captions = torch.tensor([[[0.0, 1.0], [0.6, 0.8], [1.0, 0.0]]])
    assert torch.allclose(CosineScorer(10.0)(captions, image), torch.tensor([[0.0, 6.0, 10.0]]))


def test_without_noise_the_highest_present_score_is_chosen():
    scores = torch.tensor([[0.0, 2.0, 1.0], [5.0, 2.0, 1.0], [3.0, 1.0, 2.0]])
    present = torch.tensor([[True, True, True], [False, True, True], [False, False, False]])
    assert select(scores, present).tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize("tau", [0.01, 1.0, 20.0])
def test_a_masked_candidate_is_never_chosen_and_nothing_becomes_nan(tau):
    scores = torch.randn(300, 3, requires_grad=True)
    present = torch.rand(300, 3) < 0.5
    weights = select(scores * 50, present, gumbel_noise(0, 0, [str(i) for i in range(300)], 3), tau)
    assert (weights[~present] == 0).all()
    assert torch.allclose(weights.sum(-1), present.any(-1).float(), atol=1e-6)
    (weights * torch.randn(300, 3)).sum().backward()
    assert scores.grad.isfinite().all() and (scores.grad[~present] == 0).all()


def test_the_gradient_is_that_of_the_softmax_of_scores_and_noise():
    scores = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    noise, direction = gumbel_noise(3, 1, list("abcdefg"), 4).double(), torch.randn(7, 4, dtype=torch.float64)
    straight = torch.autograd.grad((select(scores, torch.ones(7, 4).bool(), noise, 0.7) * direction).sum(), scores)[0]
    soft = torch.autograd.grad((((scores + noise) / 0.7).softmax(-1) * direction).sum(), scores)[0]
    assert torch.allclose(straight, soft) and soft.abs().max() > 0


def test_choices_are_samples_of_the_softmax_of_the_scores():
    scores = torch.tensor([0.0, 1.0, -0.5])
    keys = [f"meme {i}" for i in range(20_000)]
    noise = gumbel_noise(0, 5, keys, 3)
    chosen = select(scores.expand(len(keys), 3), torch.ones(len(keys), 3).bool(), noise)
    assert np.allclose(chosen.mean(0), scores.softmax(-1), atol=0.01)
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.02)  # Euler's constant, the mean of Gumbel noise


def test_noise_belongs_to_seed_step_meme_and_place_whatever_the_batch():
    whole = gumbel_noise(0, 7, ["a", "b", "c", "d"], 3)
    assert torch.equal(gumbel_noise(0, 7, ["d", "b"], 3), whole[[3, 1]])
    assert torch.equal(gumbel_noise(0, 7, ["a"], 2)[0], whole[0, :2])
    assert not torch.equal(gumbel_noise(1, 7, ["a"], 3), whole[:1]) and not torch.equal(
        gumbel_noise(0, 8, ["a"], 3), whole[:1]
    )
