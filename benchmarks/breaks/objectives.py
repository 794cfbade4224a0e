"""Breaks in losses: likelihood, policy gradients, contrastive objectives."""

from benchmarks.breaks.planted import Break

POLICY, CONTRASTIVE = "capkit/objectives/policy", "capkit/objectives/contrastive"
ADVANTAGES = ("tests/objectives/policy/test_advantages.py",)
POLICIES = ("tests/objectives/policy/test_policy_objectives.py",)
INFO_NCE = ("tests/objectives/contrastive/test_info_nce.py",)

BREAKS = [
    Break(
        "likelihood learns the prompt",
        "capkit/objectives/cross_entropy.py",
        "mask[..., : batch.prompt_length - 1] = False  # prompt_length counts BOS, which is no target",
        "pass",
        ("tests/objectives/test_cross_entropy.py",),
    ),
    Break(
        "policy gradient has the wrong sign",
        f"{POLICY}/self_critical.py",
        "self.reduce(-logprobs * advantages[..., None], loss_mask)",
        "self.reduce(logprobs * advantages[..., None], loss_mask)",
        POLICIES,
    ),
    Break(
        "greedy baseline is forgotten",
        f"{POLICY}/advantages.py",
        "return rewards.double() - greedy_rewards.double()[:, None]",
        "return rewards.double()",
        ADVANTAGES,
    ),
    Break(
        "leave-one-out baseline contains the sample itself",
        f"{POLICY}/advantages.py",
        "values - (total - values) / others",
        "values - total / (others + 1)",
        ADVANTAGES,
    ),
    Break(
        "group advantages divided by the variance",
        f"{POLICY}/advantages.py",
        "(centred.square().nanmean(-1, keepdim=True).sqrt() + EPSILON)",
        "(centred.square().nanmean(-1, keepdim=True) + EPSILON)",
        ADVANTAGES,
    ),
    Break(
        "group statistics across images",
        f"{POLICY}/advantages.py",
        "centred = values - values.nanmean(-1, keepdim=True)",
        "centred = values - values.nanmean()",
        ADVANTAGES,
    ),
    Break(
        "running mean is never updated",
        f"{POLICY}/advantages.py",
        "self.value = before + (mean - before) / (self.count + 1)",
        "self.value = before",
        ADVANTAGES,
    ),
    Break(
        "running baseline contains the batch that it judges",
        f"{POLICY}/advantages.py",
        "        self.count += 1\n        return before",
        "        self.count += 1\n        return self.value",
        ADVANTAGES,
    ),
    Break(
        "running baseline is lost on resume",
        f"{POLICY}/advantages.py",
        'self.value, self.count = float(state["value"]), int(state["count"])',
        'self.value, self.count = 0.0, int(state["count"])',
        ADVANTAGES,
    ),
    Break(
        "PPO takes the maximum",
        f"{POLICY}/ppo.py",
        "losses = -torch.minimum(ratio * gain, clipped * gain)",
        "losses = -torch.maximum(ratio * gain, clipped * gain)",
        POLICIES,
    ),
    Break(
        "PPO clips on one side",
        f"{POLICY}/ppo.py",
        "ratio.clamp(1 - self.clip_low, 1 + clip_high)",
        "ratio.clamp(max=1 + clip_high)",
        POLICIES,
    ),
    Break(
        "EOS is never learned",
        f"{POLICY}/base.py",
        "    if not learn_eos:\n",
        "    if True:\n",
        POLICIES,
    ),
    Break(
        "caption means divided by the padded length",
        f"{POLICY}/base.py",
        "per_caption / loss_mask.sum(-1).clamp(min=1)",
        "per_caption / loss_mask.shape[-1]",
        POLICIES,
    ),
    Break(
        "k3 with its direction reversed",
        f"{POLICY}/kl.py",
        "return (-difference).exp() - 1 + difference",
        "return difference.exp() - 1 - difference",
        ("tests/objectives/policy/test_kl_estimators.py",),
    ),
    Break(
        "InfoNCE without the captions' side",
        f"{CONTRASTIVE}/info_nce.py",
        'self.directions = [name for name in CANDIDATES if direction in ("both", name)]',
        'self.directions = ["image_to_text"]',
        INFO_NCE,
    ),
    Break(
        "InfoNCE ignores the logit scale",
        f"{CONTRASTIVE}/info_nce.py",
        "logits = pairs.logit_scale.float() * similarities(pairs.images[rows], captions.texts)",
        "logits = similarities(pairs.images[rows], captions.texts)",
        INFO_NCE,
    ),
    Break(
        "label smoothing over the positives",
        f"{CONTRASTIVE}/info_nce.py",
        "label_smoothing * on_candidates",
        "label_smoothing * on_positives",
        INFO_NCE,
    ),
    Break(
        "a tie counts as a hit",
        f"{CONTRASTIVE}/info_nce.py",
        "(self.best_positive > self.best_negative)",
        "(self.best_positive >= self.best_negative)",
        INFO_NCE,
    ),
    Break(
        "SigLIP divided by the pairs",
        f"{CONTRASTIVE}/siglip.py",
        "torch.stack(losses).sum() / num_images.clamp(min=1)",
        "torch.stack(losses).sum() / num_images.clamp(min=1) ** 2",
        ("tests/objectives/contrastive/test_siglip.py",),
    ),
    Break(
        "semi-hard mining takes the hardest",
        f"{CONTRASTIVE}/triplet.py",
        "farther = negative & (candidates < pair[:, None])",
        "farther = negative",
        ("tests/objectives/contrastive/test_triplet.py",),
    ),
]
