"""Breaks in the training step: sampling, rewards of a rollout, learning rate, micro-batches, ranks."""

from benchmarks.breaks.planted import Break

RL, STEP = "capkit/train/rl/module.py", "capkit/train/train_module.py"
UPDATE = "capkit/train/rl/policy_module.py"
COLLECTIVES = "capkit/distributed/collectives.py"
RL_TESTS = ("tests/train/rl/test_rl_module.py",)
RL_SPLITS = ("tests/invariant/test_rl_splits.py",)

BREAKS = [
    Break(
        "learning rate does not follow the schedule",
        STEP,
        'group["lr"] = group["initial_lr"] * factor',
        'group["lr"] = group["initial_lr"]',
        ("tests/train/rl/test_rl_module.py::test_inner_updates_are_one_global_step_at_one_learning_rate",),
    ),
    Break(
        "dropout is seeded by the step alone",
        STEP,
        'stable_hash(self.seed, "step", self.global_step, rank())',
        'stable_hash(self.seed, "step", 0, rank())',
        ("tests/invariant/test_batch_splits.py::test_dropout_differs_from_step_to_step",),
    ),
    Break(
        "samples without a reward are learned",
        RL,
        " & ~advantages.isnan()[..., None]",
        "",
        RL_TESTS,
    ),
    Break(
        "KL is added to the reward",
        RL,
        "rewards - self._kl_weight(step) * kl",
        "rewards + self._kl_weight(step) * kl",
        RL_TESTS,
    ),
    Break(
        "the greedy caption gets the reward of the last sample",
        RL,
        "scores.total[:, num_samples].to(self.device)",
        "scores.total[:, num_samples - 1].to(self.device)",
        RL_TESTS,
    ),
    Break(
        "every step samples with the same random numbers",
        RL,
        "seed=self._rollout_seed(step)",
        "seed=self._rollout_seed(0)",
        RL_TESTS,
    ),
    Break(
        "the old policy follows the new one",
        UPDATE,
        "part.advantages, None, (logprobs, part.old_logprobs)",
        "part.advantages, None, (logprobs, logprobs.detach())",
        RL_TESTS,
    ),
    Break(
        "log-probabilities ignore the truncation of sampling",
        UPDATE,
        "logprobs = self._logprobs(self.model, context, samples, samples.support)",
        "logprobs = self._logprobs(self.model, context, samples, None)",
        RL_TESTS,
    ),
    Break(
        "each rank divides by its own targets",
        UPDATE,
        "totals = all_reduce_sum(torch.stack(on_device))",
        "totals = torch.stack(on_device)",
        RL_SPLITS,
    ),
    Break(
        "sampling takes the token after the drawn one",
        "capkit/decoding/sampling.py",
        "return (block * BLOCK + torch.minimum(place, last)).squeeze(-1)",
        "return (block * BLOCK + torch.minimum(place + 1, last)).squeeze(-1)",
        ("tests/decoding/test_sampling.py",),
    ),
    Break(
        "top-p is ignored",
        "capkit/decoding/sampling.py",
        "    if decoding.top_p < 1.0:\n",
        "    if False:\n",
        ("tests/decoding/test_sampling.py",),
    ),
    Break(
        "reward weights are ignored",
        "capkit/scorers/reward.py",
        "weighted = {name: weights[name] * shaped[name] for name in shaped}",
        "weighted = {name: shaped[name] for name in shaped}",
        ("tests/scorers/test_reward_terms.py",),
    ),
    Break(
        "geometric mean without its root",
        "capkit/scorers/reward.py",
        "return (logs / sum(weights[name] for name in shaped)).exp()",
        "return logs.exp()",
        ("tests/scorers/test_reward_terms.py",),
    ),
    Break(
        "normalised rewards keep their mean",
        "capkit/scorers/reward.py",
        "else (scores - mean) / deviation",
        "else scores / deviation",
        ("tests/scorers/test_reward_terms.py",),
    ),
    Break(
        "a gathered row's gradient is this rank's alone",
        COLLECTIVES,
        "return ctx.layout.reduce_scatter(gradient), None",
        "return gradient[ctx.layout.own], None",
        ("tests/distributed/test_distributed.py",),
    ),
    Break(
        "gathered rows are padded",
        COLLECTIVES,
        "return torch.cat([part[:count] for part, count in zip(gathered, self.counts, strict=True)])",
        "return torch.cat(gathered)",
        ("tests/distributed/test_distributed.py",),
    ),
    Break(
        "standard deviation of one rank",
        COLLECTIVES,
        "(squares,) = added((kept - mean).square().sum())",
        "squares = float((kept - mean).square().sum())",
        ("tests/distributed/test_means_over_ranks.py", "tests/objectives/policy/test_advantages.py"),
    ),
    Break(
        "unused parameters leave the graph",
        COLLECTIVES,
        "return _TouchAll.apply(loss, *(parameter for parameter in parameters if parameter.requires_grad))",
        "return loss",
        ("tests/train/test_unused_parameters.py",),
    ),
]
