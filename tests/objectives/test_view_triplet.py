"""The triplet term over views of one object: by hand, against a naive version, however a step is cut."""

import math

import pytest
import torch

from capkit.errors import UsageError
from capkit.models.captioners.encoder_decoder import EncoderDecoder
from capkit.objectives.cross_entropy import CrossEntropy
from capkit.objectives.view_triplet import ViewTriplet, batch_hard, view_features
from capkit.text.tokenizers import encode_captions, word_tokenizer
from capkit.types import CaptionBatch, Context


def test_batch_hard_by_hand():
    """On a line: views of object 7 at 0 and 3, of 9 at 4 and 4, one unnamed at 0. Margin 2.

    0: farthest view 3 away, nearest other object 4 away: 2 + 3 - 4 = 1. 3: 2 + 3 - 1 = 4. Each 4: 2 + 0 - 1 = 1.
    """
    places = torch.tensor([[0.0], [3.0], [4.0], [4.0], [0.0]], requires_grad=True)
    losses, is_anchor = batch_hard(places, torch.tensor([7, 7, 9, 9, -1]), 2.0)
    assert losses.tolist() == [1.0, 4.0, 1.0, 1.0, 0.0]
    assert is_anchor.tolist() == [True, True, True, True, False]
    losses.sum().backward()
    assert places.grad.isfinite().all()  # two views at one place: no division by their distance 0
    # 0: -1 to come nearer to 3 (twice), +1 away from 4 is of its own anchor: d/dx0 of (3 - x0) + (3 - x0) - (4 - x0).
    assert places.grad[0].item() == -1.0 and places.grad[4].item() == 0.0


def test_without_another_view_or_another_object_there_is_no_triplet():
    losses, is_anchor = batch_hard(torch.randn(3, 2), torch.tensor([1, 2, 3]), 2.0)
    assert losses.tolist() == [0.0] * 3 and not is_anchor.any()
    losses, is_anchor = batch_hard(torch.randn(3, 2), torch.tensor([1, 1, 1]), 2.0)
    assert losses.tolist() == [0.0] * 3 and not is_anchor.any()


def naive(features, objects, margin):
    """The mean over anchors, by loops."""
    losses = []
    for i in range(len(objects)):
        far = [(features[i] - features[j]).norm() for j in range(len(objects)) if j != i and objects[j] == objects[i]]
        near = [(features[i] - features[j]).norm() for j in range(len(objects)) if objects[j] != objects[i]]
        if far and near:
            losses.append(torch.clamp(margin + max(far) - min(near), min=0))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("objects", [[0, 0, 1, 1], [0, 1, 0, 2, 2, 0, 3], [5, 5, 5, 6]])
def test_it_equals_a_naive_version_with_gradient(objects):
    features = torch.randn(len(objects), 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one, other = features.clone().requires_grad_(), features.clone().requires_grad_()
    losses, is_anchor = batch_hard(one, torch.tensor(objects), 1.0)
    mean, expected = losses.sum() / is_anchor.sum(), naive(other, objects, 1.0)
    assert mean > 0
    mean.backward()
    expected.backward()
    torch.testing.assert_close(mean, expected)
    torch.testing.assert_close(one.grad, other.grad)


def test_neither_the_order_nor_a_shift_of_all_features_matters():
    features = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    objects, order = torch.tensor([0, 1, 0, 2, 1, 2]), torch.tensor([5, 2, 0, 4, 1, 3])
    losses, _ = batch_hard(features, objects, 2.0)
    torch.testing.assert_close(batch_hard(features[order], objects[order], 2.0)[0], losses[order])
    torch.testing.assert_close(batch_hard(features + 3.0, objects, 2.0)[0], losses)


def test_features_are_the_mean_of_the_states_that_may_be_attended():
    states = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [50.0, 60.0]]])
    masked = Context(states, torch.tensor([[True, True, False]]), ["k"])
    assert view_features(masked).tolist() == [[2.0, 3.0]]
    assert view_features(Context(states, None, ["k"])).tolist() == [[18.0, 22.0]]
    with pytest.raises(UsageError, match="a captioner that reads text alone"):
        view_features(Context(states[:, :0], None, ["k"]))


CAPTIONS = [["a red circle"], ["a circle"], ["the blue square"], ["a blue square on black"]] * 2
OBJECTS = torch.tensor([1, 1, 2, 2, 1, 3, 3, -1])


@pytest.fixture
def model():
    torch.manual_seed(1)
    tokenizer = word_tokenizer(["a red circle the blue square on black"])
    return EncoderDecoder(tokenizer, feature_width=6, width=16, num_heads=2, max_length=16, dropout=0.0)


@pytest.fixture
def batch(model):
    tokens, mask, length = encode_captions(model.tokenizer, CAPTIONS, "", 16)
    features = torch.randn(8, 5, 6, generator=torch.Generator().manual_seed(0))
    keys = [str(number) for number in range(8)]
    return CaptionBatch(keys, None, features, tokens, mask, length, objects=OBJECTS)


def gradient(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_it_is_the_likelihood_plus_the_weighted_mean_of_the_triplets(model, batch):
    """Divided by the number of targets, as the training step does; with gradient."""
    output = ViewTriplet(CrossEntropy(), weight=0.3, margin=2.0)(model, batch, 0)
    found = gradient(model, output.loss_sum / output.num_targets)
    likelihood = CrossEntropy()(model, batch, 0)
    known = OBJECTS >= 0
    triplet = naive(model.encode(batch).states.mean(1)[known], OBJECTS[known].tolist(), 2.0)
    loss = likelihood.loss_sum / likelihood.num_targets + 0.3 * triplet
    expected = gradient(model, loss)
    assert triplet > 0
    torch.testing.assert_close(output.loss_sum / output.num_targets, loss)
    torch.testing.assert_close(output.logs["triplet"], triplet.detach())
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)


def test_weight_0_is_the_likelihood(model, batch):
    found = gradient(model, ViewTriplet(CrossEntropy(), weight=0.0)(model, batch, 0).loss_sum)
    expected = gradient(model, CrossEntropy()(model, batch, 0).loss_sum)
    for name in found:
        torch.testing.assert_close(found[name], expected[name])


def test_the_pool_of_a_whole_step_in_one_part_is_that_of_the_batch(model, batch):
    objective = ViewTriplet(CrossEntropy(), weight=0.3)
    whole = objective(model, batch, 0)
    (part,) = objective.for_parts(model, [batch], 0)
    output = part(model, batch, 0)
    torch.testing.assert_close(output.loss_sum, whole.loss_sum)
    assert output.logs.keys() == whole.logs.keys() == {"triplet", "triplet_violations"}
    for name, value in output.logs.items():
        torch.testing.assert_close(value, whole.logs[name])


def test_micro_batches_that_split_every_object_give_the_gradient_of_the_whole(model, batch):
    objective = ViewTriplet(CrossEntropy(), weight=0.3)
    whole = objective(model, batch, 0)
    expected = gradient(model, whole.loss_sum / whole.num_targets)
    parts = [batch.select(rows) for rows in ([0, 2, 5], [7], [1, 3, 4, 6])]
    model.zero_grad()
    total = 0.0
    for part, own in zip(parts, objective.for_parts(model, parts, 0), strict=True):
        loss = own(model, part, 0).loss_sum / whole.num_targets
        loss.backward()
        total += loss.item()
    assert total == pytest.approx((whole.loss_sum / whole.num_targets).item(), rel=1e-5)
    for name, parameter in model.named_parameters():
        if name in expected:
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)


def test_a_validation_loss_is_the_likelihood_alone(model, batch):
    with torch.no_grad():
        found = ViewTriplet(CrossEntropy())(model, batch, 0)
        torch.testing.assert_close(found.loss_sum, CrossEntropy()(model, batch, 0).loss_sum)


def test_what_cannot_form_a_triplet_is_refused_with_the_fix(model, batch):
    objective = ViewTriplet(CrossEntropy())
    with pytest.raises(UsageError, match="got 8 images of 8; set curriculum=views"):
        batch.objects = torch.arange(8)
        objective.for_parts(model, [batch], 0)
    alone = objective(model, batch.select([0]), 0)  # one image, whose operations are counted before a run
    torch.testing.assert_close(alone.loss_sum, CrossEntropy()(model, batch.select([0]), 0).loss_sum)
    with pytest.raises(UsageError, match="expected records with `object`, got a batch without any"):
        batch.objects = None
        objective.for_parts(model, [batch], 0)
    for settings in ({"weight": -0.1}, {"margin": 0.0}, {"weight": math.nan}):
        with pytest.raises(UsageError):
            ViewTriplet(CrossEntropy(), **settings)
