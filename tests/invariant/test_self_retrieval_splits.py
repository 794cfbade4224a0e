"""Steps by self-retrieval on bags are the same on one process and on two, where shares are uneven: five images."""

import functools

import pytest
import torch
from rl_steps import OBJECTIVES, Keep, Outcome, batches_of_all_ranks, differences, module_of, trainer_of
from torch.utils.data import DataLoader

from capkit.distributed.collectives import rank, world_size
from capkit.scorers.reward import Reward, RewardTerm
from capkit.scorers.self_retrieval import SelfRetrieval
from capkit.scorers.shuffled import Shuffled
from capkit.testing.distributed import run_distributed
from capkit.utils.rng import generator

NUM_IMAGES, WIDTH = 5, 6


class WordJudge:
    """A text is the sum of its words' directions, a picture a direction of its own; both drawn from what they are."""

    name, prompt, max_length, logit_scale = "words", "", 20, 4.0

    def preprocess(self, images):
        return torch.tensor([float(image[0, 0, 0]) for image in images])

    def encode_image(self, pixels):
        return torch.stack([self._direction("picture", int(value)) for value in pixels])

    def encode_text(self, texts):
        rows = [sum((self._direction("word", word) for word in text.split()), torch.ones(WIDTH) / 9) for text in texts]
        return torch.nn.functional.normalize(torch.stack(rows), dim=-1)

    def is_cut(self, texts):
        return [False] * len(texts)

    def to(self, device):
        return self

    def fingerprint_fields(self, side):
        return {"side": side}

    @staticmethod
    def _direction(*of):
        row = torch.tensor(generator(0, *of).normal(size=WIDTH)).float()
        return row / row.norm()


def read(key):
    return torch.full((1, 1, 3), int(key), dtype=torch.uint8).numpy()


def self_retrieval(**settings):
    scorer = SelfRetrieval(WordJudge(), **settings)
    scorer.attach_images(read)
    return scorer


# objective and scorer: the paper's form, a form in which captions compete as well, the pool with a queue, the control
CASES = {
    "log_softmax": ("running_mean", lambda: self_retrieval()),
    "two_sided_greedy": ("greedy", lambda: self_retrieval(form="two_sided")),
    "queue_whitened": ("whiten", lambda: self_retrieval(queue_size=3)),
    "shuffled": ("leave_one_out", lambda: Shuffled(self_retrieval())),
}


def train(case: str, strategy: str = "auto") -> Outcome:
    objective, scorer = CASES[case]
    keep = Keep()
    module = module_of(OBJECTIVES[objective](), reward=Reward({"self_retrieval": RewardTerm(scorer())}))
    rows = list(range(rank(), NUM_IMAGES, world_size()))
    batches = [batch.select(rows) for batch in batches_of_all_ranks(2)]
    trainer_of(strategy, 2, [keep]).fit(module, DataLoader(batches, batch_size=None))
    return keep.outcome


def several() -> list[Outcome]:
    return [train(case, "ddp") for case in CASES]


@pytest.fixture(scope="module")
def two_ranks() -> dict[str, list[Outcome]]:
    outcomes = run_distributed(several, 2, timeout_s=300)
    return {case: list(ranks) for case, *ranks in zip(CASES, *outcomes, strict=True)}


whole = functools.cache(train)


@pytest.mark.integration
@pytest.mark.parametrize("case", CASES)
def test_two_processes_with_three_and_two_images_equal_one_with_five(two_ranks, case):
    """Captions, advantages, what is logged (rewards, pool, gradient norm) and the weights after two steps."""
    first, second = two_ranks[case]
    assert [len(step) for step in first.rollouts + second.rollouts] == [3, 3, 2, 2]
    for alone, one, other in zip(whole(case).rollouts, first.rollouts, second.rollouts, strict=True):
        together = one | other
        assert together.keys() == alone.keys()
        for key, (written, worth) in alone.items():
            assert together[key][0] == written
            torch.testing.assert_close(torch.tensor(together[key][1]), torch.tensor(worth), atol=1e-4, rtol=0)
    assert first.rows == second.rows
    assert differences(whole(case), first) == []


def test_the_pool_is_the_global_batch_and_rewards_have_a_gradient():
    for case in CASES:
        rows = whole(case).rows
        assert all(row["grad_norm"] > 1e-3 and row["reward/std"] > 1e-3 for row in rows)
        assert rows[0]["reward/self_retrieval_pool"] == NUM_IMAGES
    assert whole("shuffled").rows[0]["reward/total"] != pytest.approx(
        train("log_softmax").rows[0]["reward/total"], abs=1e-3
    )
