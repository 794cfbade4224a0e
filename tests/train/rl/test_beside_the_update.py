"""What a step does in which order: pictures first, texts' numbers when the device has the update to do."""

import pytest
import torch
from rl_steps import OBJECTIVES, batches_of_all_ranks, module_of, trainer_of

from capkit.distributed.collectives import device_std_over_ranks, mean_and_std_over_ranks
from capkit.scorers.base import BaseScorer
from capkit.scorers.reward import Reward, RewardTerm
from capkit.train.rl import module as rl_module
from capkit.types import Pictures


class Seer(BaseScorer):
    """Notes what is asked of it; scores a caption by its length, on the host or by work of the device alone."""

    def __init__(self, asked, name, starts_first):
        self.asked, self.name, self.starts_first = asked, name, starts_first

    @property
    def viewer(self):
        return self

    def unseen(self, keys):
        return list(keys)

    def preprocess(self, keys):
        return Pictures(list(keys), list(keys), torch.zeros(len(keys), 3, 1, 1))

    def look(self, pictures):
        self.asked.append(f"{self.name} looks")

    def __call__(self, batch, samples):
        assert batch.pictures == {}, "pixels are held until the end of the step"
        self.asked.append(f"{self.name} scores")
        return torch.tensor([[float(len(text)) for text in texts] for texts in samples.texts])


@pytest.fixture
def order(monkeypatch):
    """What two steps did, in order."""
    asked = []
    terms = {"host": Seer(asked, "host", False), "device": Seer(asked, "device", True)}
    module = module_of(OBJECTIVES["greedy"](), Reward({name: RewardTerm(term) for name, term in terms.items()}))
    batches = batches_of_all_ranks(2)
    for batch in batches:
        batch.pictures = {"device": terms["device"].preprocess(batch.keys)}

    def noting(name, owner, label):
        function = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, **k: (asked.append(label), function(*a, **k))[1])

    noting("sample", module, "rollout")
    noting("backward_parts", module, "backward")
    noting("sample_numbers", rl_module, "texts")
    noting("update", module, "update")
    trainer_of("auto", 2, []).fit(module, torch.utils.data.DataLoader(batches, batch_size=None))
    return asked


def test_pictures_then_rollout_then_scores_and_texts_beside_the_update(order):
    step = ["device looks", "rollout", "device scores", "host scores", "backward", "texts", "update"]
    assert order == step * 2


@pytest.mark.parametrize("values", [[[1.0, 2.0], [4.0, float("nan")]], [[3.0, 3.0]], [[float("nan")]]])
def test_the_deviation_on_the_device_is_the_hosts(values):
    values = torch.tensor(values)
    found = device_std_over_ranks(values)
    wanted = torch.tensor(mean_and_std_over_ranks(values)[1], dtype=torch.float64)
    torch.testing.assert_close(found, wanted, equal_nan=True)
