"""Weighted sum of a policy objective and the likelihood of the references, so that RL keeps the language fluent."""

from capkit.errors import UsageError
from capkit.objectives.base import Objective
from capkit.objectives.policy.base import PolicyObjective
from capkit.optim.schedules import Schedule
from capkit.utils.ranges import NonNegativeFloat, check_ranges


@check_ranges
class WeightedSum:
    """policy_weight * L_policy + likelihood_weight * L_likelihood, each divided by its own number of targets.

    The likelihood is that of the batch's reference captions. Weights may be Schedules. REINFORCE plus cross-entropy is
    the mixed objective of Paulus et al. 2017 (arXiv 1705.04304, equation 16).
    """

    def __init__(
        self,
        policy: PolicyObjective,
        likelihood: Objective,
        policy_weight: NonNegativeFloat | Schedule = 1.0,
        likelihood_weight: NonNegativeFloat | Schedule = 0.1,
    ) -> None:
        if isinstance(likelihood, PolicyObjective):
            raise UsageError(
                "objective.likelihood expected an objective on references, got a policy objective; use cross_entropy"
            )
        self.policy, self.likelihood = policy, likelihood
        self.policy_weight, self.likelihood_weight = policy_weight, likelihood_weight
