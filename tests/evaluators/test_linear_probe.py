import numpy as np
import pytest
import torch
from torch import nn

from capkit.data.transforms import ImageTransform
from capkit.errors import UsageError
from capkit.evaluators.linear_probe import LinearProbe
from capkit.evaluators.logistic import Logistic, best_strength, fit_logistic
from capkit.models.dual_encoders.two_tower import TwoTower
from capkit.testing.models import two_tower


def newton(features, labels, strength, steps=50):
    """Two classes: minimises the same loss in (w1 - w0) by Newton's method. |W|^2 = |w|^2 / 2 at the minimum."""
    x = np.concatenate([features, np.ones((len(features), 1))], 1)
    penalty = np.diag([strength / 2] * features.shape[1] + [0])
    w = np.zeros(x.shape[1])
    for _ in range(steps):
        p = 1 / (1 + np.exp(-x @ w))
        gradient = x.T @ (p - labels) + penalty @ w
        w -= np.linalg.solve(x.T @ (x * (p * (1 - p))[:, None]) + penalty, gradient)
    return w


@pytest.mark.parametrize("strength", [0.1, 1.0, 30.0])
def test_two_classes_equal_newtons_method(strength):
    random = np.random.default_rng(0)
    features = random.normal(size=(41, 3))
    labels = (features[:, 0] + random.normal(size=41) > 0).astype(int)
    probe = fit_logistic(torch.tensor(features), torch.tensor(labels), 2, strength)
    wanted = newton(features, labels, strength)
    difference = torch.cat([probe.weight[1] - probe.weight[0], (probe.bias[1] - probe.bias[0])[None]])
    np.testing.assert_allclose(difference.numpy(), wanted, rtol=1e-4, atol=1e-6)


def test_many_classes_stand_at_a_point_without_slope():
    torch.manual_seed(0)
    features, labels = torch.randn(60, 5), torch.randint(4, (60,))
    probe = fit_logistic(features, labels, 4, 2.0)
    weight = probe.weight.clone().requires_grad_()
    logits = features.double() @ weight.T + probe.bias
    loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum") + weight.square().sum()
    loss.backward()
    assert weight.grad.abs().max() < 1e-4


def test_where_it_starts_changes_nothing():
    torch.manual_seed(0)
    features, labels = torch.randn(60, 5), torch.randint(3, (60,))
    start = Logistic(torch.randn(3, 5, dtype=torch.float64), torch.randn(3, dtype=torch.float64))
    one, other = fit_logistic(features, labels, 3, 1.0), fit_logistic(features, labels, 3, 1.0, start)
    assert torch.allclose(one.weight, other.weight, atol=1e-5)


@pytest.mark.parametrize("peak", [-5.3, -2, 0.126, 3.7, 6])
def test_the_sweep_finds_a_single_peak_to_an_eighth_of_a_decade(peak):
    asked = []

    def accuracy(strength):
        asked.append(strength)
        return -abs(np.log10(strength) - peak)

    assert abs(np.log10(best_strength(accuracy)) - peak) <= 1 / 8
    assert len(asked) == len(set(asked)) <= 7 + 2 * 4


def test_of_equally_good_strengths_the_strongest_is_taken():
    assert best_strength(lambda strength: 1.0 if strength <= 10 else 0.0) == 10.0


def split_rows(names, noise, random):
    return [(f"{i}", [], {"kind": name}) for i, name in enumerate(names)]


def test_a_separable_world_is_learned_and_a_shuffled_one_is_not(table, listed, data_of, tmp_path, rows_in):
    random = np.random.default_rng(0)
    kinds = ["a", "b", "c"] * 20
    axis = {"a": 0, "b": 1, "c": 2}
    images = [(np.eye(6)[axis[kind]] + 0.2 * random.normal(size=6)).tolist() for kind in kinds]
    source = listed([(f"{i}", [], {"kind": kind}) for i, kind in enumerate(kinds)])
    encoder = table(images)
    data = data_of(train=source, val=source, test=source)
    numbers = LinearProbe("{kind}")(encoder, data, tmp_path)
    assert numbers["linear_probe_top1"] > 0.95
    assert numbers["linear_probe_chance"] == pytest.approx(1 / 3)
    assert len(encoder.seen_images) == 60, "a picture in three splits is encoded once"
    assert rows_in(tmp_path / "linear_probe.jsonl")[1]["label"] == "b"
    shuffled = random.permutation(kinds)
    control = listed([(f"{i}", [], {"kind": kind}) for i, kind in enumerate(shuffled)])
    mixed = LinearProbe("{kind}", train=control, val=control)(encoder, data, tmp_path / "control")
    assert mixed["linear_probe_top1"] < 0.6
    assert LinearProbe("{kind}")(table(images), data, tmp_path / "again") == numbers


def test_a_label_that_train_lacks_is_an_error_of_the_probe_and_not_of_the_run(table, listed, data_of, tmp_path):
    rows = [("0", [], {"kind": "a"}), ("1", [], {"kind": "b"})]
    other = [*rows, ("2", [], {"kind": "new"})]
    encoder = table(np.eye(3).tolist())
    data = data_of(train=listed(rows), val=listed(other), test=listed(other))
    assert LinearProbe("{kind}")(encoder, data, tmp_path)["linear_probe_top1"] == pytest.approx(2 / 3)
    with pytest.raises(UsageError, match="2 or more classes in train"):
        LinearProbe("{kind}", train=listed(rows[:1]))(encoder, data, tmp_path)


class Colors(nn.Module):
    """A tower whose features are the mean red, green and blue of a picture."""

    width = 3

    def forward(self, pixels):
        return pixels.mean((2, 3))[:, None]


@pytest.fixture
def blind_to_blue():
    """A dual encoder whose projection, unlike its tower, does not know how blue a picture is."""
    model = TwoTower(two_tower().text_tower, Colors(), embed_dim=12, transform=ImageTransform(4)).eval()
    with torch.no_grad():
        model.image_projection.weight[:, 2] = 0
    return model


def test_the_tower_knows_what_the_projection_lost(blind_to_blue, listed, data_of, tmp_path):
    random = np.random.default_rng(0)
    rows = [(f"{i}", [], {"blue": "much" if i % 2 else "little"}) for i in range(80)]
    source = listed(rows)
    colors = [[*random.integers(0, 255, 2), 200 if i % 2 else 60] for i in range(80)]
    source.image = lambda index: np.full((4, 4, 3), colors[index], np.uint8)
    data = data_of(train=source, val=source, test=source)

    def top1(features):  # both in one folder: embeddings that were kept must not pass for features of the tower
        return LinearProbe("{blue}", features=features)(blind_to_blue, data, tmp_path)["linear_probe_top1"]

    assert top1("embedding") < 0.7 and top1("tower") == 1


def test_features_of_another_kind_or_of_an_encoder_without_them_are_refused(table, listed, data_of, tmp_path):
    with pytest.raises(UsageError, match="expected features=embedding or features=tower, got 'pooled'"):
        LinearProbe("{kind}", features="pooled")
    source = listed([(f"{i}", [], {"kind": "ab"[i]}) for i in range(2)])
    data = data_of(train=source, val=source, test=source)
    with pytest.raises(UsageError, match="expected an encoder with features before its projection, got TableEncoder"):
        LinearProbe("{kind}", features="tower")(table([[1.0, 0], [0, 1.0]]), data, tmp_path)
