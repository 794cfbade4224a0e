"""Modules that train a captioner of any family for a few steps: by likelihood, and by rewards of its samples."""

from rl_steps import Overlap

from capkit.decoding.config import Decoding
from capkit.objectives.cross_entropy import CrossEntropy
from capkit.objectives.policy.ppo import PPO
from capkit.objectives.policy.self_critical import SelfCritical
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Constant
from capkit.scorers.reward import Reward, RewardTerm
from capkit.train.mle_module import MLEModule
from capkit.train.rl.module import RLModule

SAMPLED = Decoding("sample", max_length=5)
OBJECTIVES = {
    "likelihood": lambda: CrossEntropy(0.1),
    "self_critical": lambda: SelfCritical(SAMPLED, num_samples=2),
    "grpo": lambda: PPO(SAMPLED, num_samples=3, baseline="group", kl="k3", kl_weight=0.1),
}


class Told(RLModule):
    """Keeps what each step logs."""

    def training_step(self, batch, batch_idx):
        self.told = super().training_step(batch, batch_idx)
        return self.told


def module_of(model, objective, micro_batch_size=None):
    parts = {
        "objective": OBJECTIVES[objective](),
        "optimizer": AdamW(lr=1e-2, weight_decay=0.0),
        "schedule": Constant(),
        "decoding": Decoding(max_length=5),
        "metrics": None,
        "micro_batch_size": micro_batch_size,
        "seed": 0,
    }
    if objective == "likelihood":
        return MLEModule(model, **parts)
    module = Told(model, reward=Reward({"overlap": RewardTerm(Overlap())}), rollout_batch_size=None, **parts)
    module.keep_reference()
    return module
