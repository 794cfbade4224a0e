import pytest
import torch
from pair_cases import CASES, Case, outcome, outcomes_of_rank, put_together

from capkit.errors import UsageError
from capkit.objectives.contrastive.info_nce import InfoNCE
from capkit.objectives.contrastive.pair_sum import PairSum
from capkit.objectives.contrastive.siglip import SigLIP
from capkit.optim.schedules import Linear, Steps
from capkit.testing.distributed import run_distributed
from capkit.types import PairLoss

CASE = CASES["uneven with duplicates"]


class Cosines:
    """A loss that is easy to add up: the sum of a rank's image coordinates."""

    def __call__(self, pairs, step):
        return PairLoss(pairs.images.sum(), {"step": torch.tensor(float(step))})


def test_loss_and_gradient_are_the_weighted_sums_of_the_terms():
    nce, siglip = outcome(InfoNCE(), CASE.pairs()), outcome(SigLIP(), CASE.pairs())
    both = outcome(PairSum({"nce": InfoNCE(), "siglip": SigLIP()}, {"siglip": 0.25}), CASE.pairs())
    torch.testing.assert_close(both["loss"], nce["loss"] + 0.25 * siglip["loss"])
    for name, gradient in both["gradients"].items():
        torch.testing.assert_close(gradient, nce["gradients"][name] + 0.25 * siglip["gradients"][name])
    torch.testing.assert_close(both["logs"]["siglip/loss"], siglip["loss"])  # raw, without the weight
    assert both["logs"]["nce/accuracy_t2i"] == nce["logs"]["accuracy_t2i"]
    assert "siglip/weight" not in both["logs"]


def test_hand_worked_weights_over_training():
    # Cosine terms c = sum of coordinates of one image (3, 4) = 7. Weight of a: 1 to 0 over 10 steps; b: 0, then 2 from
    # step 5 on. Step 5: (0.5 + 2) * 7 = 17.5. Step 0: 7.
    pairs = Case([0], [0]).pairs()
    pairs.images.data = torch.tensor([[3.0, 4.0]])
    objective = PairSum(
        {"a": Cosines(), "b": Cosines()}, {"a": Linear(1.0, 0.0), "b": Steps((0.5,), (0, 2))}, total_steps=10
    )
    at_5, at_0 = objective(pairs, 5), objective(pairs, 0)
    assert (float(at_5.loss.detach()), float(at_0.loss.detach())) == (17.5, 7.0)
    assert {name: float(value) for name, value in at_5.logs.items()} == {
        "a/loss": 7, "a/weight": 0.5, "a/step": 5, "b/loss": 7, "b/weight": 2, "b/step": 5
    }  # fmt: skip


@pytest.mark.integration
def test_two_processes_add_up_to_one():
    objective = PairSum({"nce": InfoNCE(chunk_rows=2), "siglip": SigLIP(chunk_rows=3)}, {"nce": 0.5})
    images, texts = [[0, 2, 4, 6, 1], [3, 5]], [[10, 0, 2, 5], [1, 3, 4, 6, 7, 8, 9]]
    parts = [part["sum"] for part in run_distributed(outcomes_of_rank, 2, {"sum": objective}, CASE, images, texts)]
    actual, expected = put_together(parts, images, texts), outcome(objective, CASE.pairs())
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-5)
    assert parts[0]["logs"] == parts[1]["logs"]


def test_wrong_names_and_a_schedule_without_its_steps_are_refused():
    with pytest.raises(UsageError, match="did you mean 'siglip'"):
        PairSum({"siglip": SigLIP()}, {"sigclip": 1.0})
    with pytest.raises(UsageError, match="total_steps"):
        PairSum({"siglip": SigLIP()}, {"siglip": Linear()})
    with pytest.raises(UsageError, match="at least one"):
        PairSum({})
