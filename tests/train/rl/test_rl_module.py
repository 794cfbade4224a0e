"""RLModule: what one step computes, against loops, and what it leaves alone."""

import copy
import math

import pytest
import torch
from rl_steps import (
    OBJECTIVES,
    SAMPLED,
    TRUNCATED,
    Keep,
    Overlap,
    batches_of_all_ranks,
    captioner,
    differences,
    loader,
    module_of,
    train,
    trainer_of,
)
from torch.utils.data import DataLoader

from capkit.decoding.config import Decoding
from capkit.distributed.strategies import SingleDevice
from capkit.errors import UsageError
from capkit.models.tuning.lora import adapters_off, only_adapters_train
from capkit.objectives.cross_entropy import CrossEntropy
from capkit.objectives.policy.kl import kl_loss
from capkit.objectives.policy.ppo import PPO
from capkit.objectives.policy.self_critical import SelfCritical
from capkit.objectives.policy.weighted_sum import WeightedSum
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Linear
from capkit.scorers.reward import Reward, RewardError, RewardTerm
from capkit.scorers.shuffled import Shuffled
from capkit.scorers.text_rules import Length
from capkit.train.rl.module import RLModule
from capkit.train.rl.policy_module import PolicyModule

ALWAYS = {
    "loss", "grad_norm", "reward/overlap", "reward/overlap_weighted", "reward/total", "reward/std", "reward/failed",
    "reward/zero_spread", "rl/entropy", "rl/logprob_gap", "rl/length", "rl/repetition", "rl/distinct_2",
    "rl/bad_endings", "rl/hit_max_length",
}  # fmt: skip


def run(module, num_steps=1, precision="32-true"):
    keep = Keep()
    trainer_of("auto", num_steps, [keep], precision).fit(module, loader(num_steps))
    return keep.outcome


class Attached:
    """What a module asks its trainer for outside of a fit."""

    max_steps = 10
    strategy = None


def attached(module):
    module.__dict__["_trainer"], module.rollouts = Attached(), []
    module.strategy = SingleDevice(module, module.model, None)
    return module


def rolled_out(objective, **settings):
    """A module, its rollout of the first batch, and what it logged."""
    module = attached(module_of(objective, **settings))
    rollout, logs = module.rollout(batches_of_all_ranks(1)[0], step=0)
    return module, rollout, {name: float(value) for name, value in logs.items()}


# -- what a step is


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_step_trains_and_logs_under_the_names_that_the_docs_give(objective):
    outcome = train(objective, num_steps=1)
    row, policy = outcome.rows[0], OBJECTIVES[objective]()
    policy = policy.policy if isinstance(policy, WeightedSum) else policy
    names = set(ALWAYS)
    names |= {"reward/greedy"} if policy.needs_greedy else set()
    names |= {"rl/kl"} if policy.kl != "none" else set()
    names |= {"rl/baseline"} if objective == "running_mean" else set()
    assert names <= set(row)
    assert all(math.isfinite(value) for value in row.values())
    before = captioner().state_dict()
    assert sum(not torch.equal(weight, before[name.removeprefix("model.")]) for name, weight in outcome.weights.items())


@pytest.mark.parametrize("rollout", [SAMPLED, TRUNCATED])
@pytest.mark.parametrize("reduction", ["token", "seq_mean", "seq_sum"])
def test_the_gradient_of_self_critical_training_is_that_of_loops_over_captions(rollout, reduction):
    objective = SelfCritical(rollout, num_samples=3, reduction=reduction)
    module, found, _ = rolled_out(objective)
    samples, model = found.samples, module.model
    greedy = module.sample(found.batch, Decoding(max_length=6, min_length=rollout.min_length))
    model.eval()
    losses, num_tokens, num_captions = [], 0, 0
    for b, key in enumerate(found.batch.keys):
        context = model.encode(found.batch[b : b + 1])
        refs = found.batch.references[b]
        baseline = 2.0 * Overlap().score(key, refs, greedy.texts[b][0])
        for k, text in enumerate(samples.texts[b]):
            advantage = 2.0 * Overlap().score(key, refs, text) - baseline
            if math.isnan(advantage):
                continue
            tokens, mask = samples.tokens[b : b + 1, k : k + 1], samples.mask[b : b + 1, k : k + 1]
            support = None if samples.support is None else samples.support[b : b + 1, k : k + 1]
            total = model.logprobs(context, tokens, mask, float(rollout.temperature), support).sum()
            length = int(mask.sum()) - 1
            losses.append(-advantage * (total / length if reduction == "seq_mean" else total))
            num_tokens, num_captions = num_tokens + length, num_captions + 1
    assert num_captions < 8 * 3 or rollout is TRUNCATED  # some captions could not be scored
    loss = sum(losses) / (num_tokens if reduction == "token" else num_captions)
    loss.backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    row = run(module_of(objective)).rows[0]
    assert row["loss"] == pytest.approx(loss.item(), rel=1e-4, abs=1e-6)
    assert row["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)


def test_likelihood_beside_the_policy_has_the_loss_of_the_references():
    row = train("weighted_sum", num_steps=2).rows
    module = module_of(OBJECTIVES["weighted_sum"]())
    batch = batches_of_all_ranks(1)[0]
    module.model.eval()
    losses = module.model.token_losses(module.model.encode(batch), batch.tokens, batch.mask, 0.1)
    expected = losses[batch.mask[..., 1:]].mean().item()
    assert row[0]["likelihood_loss"] == pytest.approx(expected, rel=1e-5)
    # The policy's weight falls from 1 to .5 over the run's two steps: 1, then .75.
    for step, weight in enumerate((1.0, 0.75)):
        wanted = weight * row[step]["policy_loss"] + 0.3 * row[step]["likelihood_loss"]
        assert row[step]["loss"] == pytest.approx(wanted, rel=1e-5)


def test_a_policy_learns_what_it_is_paid_for():
    reward = Reward({"short": RewardTerm(Length(shortest=0, longest=1, fall_off=5))})
    objective = SelfCritical(SAMPLED, num_samples=5, baseline="leave_one_out")
    rows = run(module_of(objective, reward, lr=0.02), num_steps=25).rows
    assert rows[0]["rl/length"] > 4
    assert rows[-1]["rl/length"] < 2
    assert rows[-1]["reward/short"] > rows[0]["reward/short"] + 0.3


# -- sampling is honest


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_sampled_and_teacher_forced_logprobs_agree(objective):
    assert train(objective, dropout=0.4, micro_batch_size=3).rows[0]["rl/logprob_gap"] < 1e-5


def test_the_greedy_caption_keeps_the_rules_of_length_and_repetition_that_samples_keep():
    rollout = Decoding("sample", max_length=7, min_length=6, no_repeat_ngram_size=1, temperature=0.5, top_k=20)
    scored = []

    class Spy(Overlap):
        def __call__(self, batch, samples):
            scored.append(samples)
            return super().__call__(batch, samples)

    rolled_out(SelfCritical(rollout, num_samples=2), reward=Reward({"overlap": RewardTerm(Spy())}))
    lengths = scored[0].mask.sum(-1) - 1 - scored[0].ended.long()
    assert lengths.shape == (8, 3)
    assert (lengths >= 6).all()
    for texts in scored[0].texts:
        assert all(len(set(text.split())) == len(text.split()) for text in texts)


def test_dropout_is_off_unless_asked_for():
    def rows(rate, **settings):
        return run(module_of(SelfCritical(SAMPLED, num_samples=3, **settings), dropout=rate)).rows[0]

    assert rows(0.4) == rows(0.0)
    with pytest.warns(UserWarning, match="log-probabilities differ by"):
        asked = rows(0.4, dropout=True)
    assert asked["rl/logprob_gap"] > 0.05
    assert asked["reward/total"] == rows(0.0)["reward/total"]  # it stays off while captions are written


def test_each_step_draws_other_captions_of_the_same_images_and_the_same_step_the_same():
    module, found, _ = rolled_out(SelfCritical(SAMPLED, num_samples=3))
    texts = [module.rollout(found.batch, step)[0].samples.texts for step in (0, 1)]
    assert texts[0] == found.samples.texts
    assert sum(one != other for one, other in zip(*texts, strict=True)) > 6


def test_a_gap_is_told_once_and_none_is_not_told(recwarn):
    run(module_of(SelfCritical(SAMPLED, num_samples=2, baseline="none", dropout=True), dropout=0.4), num_steps=3)
    assert sum("log-probabilities differ" in str(warning.message) for warning in recwarn) == 1
    recwarn.clear()
    train("greedy")
    assert not any("log-probabilities differ" in str(warning.message) for warning in recwarn)


def test_a_step_leaves_train_and_eval_modes_as_they_were():
    module = module_of(SelfCritical(SAMPLED, num_samples=2, baseline="none"), dropout=0.4)
    module.model.decoder.eval()
    modes = [part.training for part in module.model.modules()]
    assert len(set(modes)) == 2
    trainer_of("auto", 1, []).fit(module, loader(1))
    assert [part.training for part in module.model.modules()] == modes


def test_entropy_is_the_mean_surprise_of_learned_tokens():
    _, found, logs = rolled_out(SelfCritical(TRUNCATED, num_samples=3, baseline="leave_one_out"))
    values = [-lp for lp, is_learned in zip(found.samples.logprobs.flatten().tolist(),
              found.loss_mask.flatten().tolist(), strict=True) if is_learned]  # fmt: skip
    assert logs["rl/entropy"] == pytest.approx(sum(values) / len(values), rel=1e-5)


def test_captions_that_hit_the_cap_and_groups_without_spread_are_counted():
    class ByImage(Overlap):
        def score(self, key, references, text):
            return 0.1 * int(key) if int(key) < 6 else super().score(key, references, text)

    reward = Reward({"overlap": RewardTerm(ByImage())})
    _, found, logs = rolled_out(SelfCritical(SAMPLED, num_samples=3, baseline="group"), reward=reward)
    assert logs["rl/hit_max_length"] == pytest.approx((~found.samples.ended).float().mean().item())
    assert logs["reward/zero_spread"] == 6 / 8
    assert (found.advantages[:6] == 0).all()


# -- rewards that are missing, and that break


class Unscored:
    def __call__(self, batch, samples):
        return torch.full((len(batch), len(samples.texts[0])), math.nan)


@pytest.mark.parametrize("objective", sorted(set(OBJECTIVES) - {"weighted_sum"}))
def test_a_batch_without_any_reward_teaches_nothing_and_breaks_nothing(objective):
    module = module_of(OBJECTIVES[objective](), Reward({"overlap": RewardTerm(Unscored())}))
    outcome = run(module)
    assert outcome.rows[0]["reward/failed"] == 8 * module.objective.num_samples
    assert outcome.rows[0]["grad_norm"] == 0
    assert all(weight.isfinite().all() for weight in outcome.weights.values())


def test_the_likelihood_goes_on_where_no_caption_has_a_reward():
    outcome = run(module_of(OBJECTIVES["weighted_sum"](), Reward({"overlap": RewardTerm(Unscored())})))
    assert outcome.rows[0]["grad_norm"] > 0
    assert math.isfinite(outcome.rows[0]["loss"])


def test_captions_that_could_not_be_scored_are_counted_and_in_no_mean():
    _, found, logs = rolled_out(SelfCritical(SAMPLED, num_samples=3, baseline="none"))
    batch = found.batch
    scores = Overlap()(batch, found.samples)
    failed = int(scores.isnan().sum())
    assert failed > 0
    assert logs["reward/failed"] == failed
    assert logs["reward/overlap"] == pytest.approx(scores.nanmean().item())
    assert logs["reward/overlap_weighted"] == logs["reward/total"] == pytest.approx(2 * scores.nanmean().item())
    kept = 2 * scores[~scores.isnan()]
    assert logs["reward/std"] == pytest.approx(kept.std(correction=0).item(), rel=1e-5)
    assert not found.loss_mask[scores.isnan()].any()


class Fragile:
    def __call__(self, batch, samples):
        if any("one" in text.split() for texts in samples.texts for text in texts):
            raise ValueError("cannot bear it")
        return torch.zeros(len(batch), len(samples.texts[0]))


def test_a_reward_that_raises_stops_the_run_with_the_caption_that_broke_it():
    module = module_of(SelfCritical(SAMPLED, num_samples=3), Reward({"fragile": RewardTerm(Fragile())}))
    with pytest.raises(RewardError, match=r"reward fragile failed on image '\d', caption '[^']*one[^']*': ValueError"):
        run(module)


# -- the policy that the run started from


def test_the_reference_is_in_no_state_dict_and_no_optimizer():
    module = module_of(OBJECTIVES["ppo_k2"]())
    plain = module_of(OBJECTIVES["greedy"]())
    assert module.reference.frozen is not None
    assert plain.reference.frozen is None
    assert list(module.state_dict()) == list(plain.state_dict())
    assert len(list(module.parameters())) == len(list(plain.parameters()))


@pytest.mark.parametrize("objective", ["running_mean", "ppo_k1_reward", "ppo_k1_advantage", "ppo_k2", "ppo_k3", "dico"])
def test_the_distance_is_zero_before_the_first_update_and_grows(objective):
    first, second = (row["rl/kl"] for row in train(objective).rows)
    assert abs(first) < 1e-5
    assert second > 0.01


def test_dico_compares_with_the_policy_of_the_start():
    """By hand, of a policy that has moved; a step along the gradient then widens the margins of the same captions."""
    module, rollout, _ = rolled_out(OBJECTIVES["dico"]())
    module.manual_backward = torch.Tensor.backward
    for parameter in module.model.parameters():
        parameter.data += 0.05 * torch.sin(torch.arange(parameter.numel())).view_as(parameter)
    batch, mask = rollout.batch, rollout.loss_mask
    with torch.no_grad():
        now, before = (
            model.logprobs(model.encode(batch), rollout.samples.tokens, rollout.samples.mask)
            for model in (module.model, module.reference.frozen)
        )
    gained = (now - before).masked_fill(~mask, 0.0).sum(-1)
    margins = 0.5 * (rollout.advantages * gained).sum(-1)[mask.flatten(1).any(-1)]
    numbers = module.backward_parts([rollout], step=0, is_first=False)
    assert float(numbers["loss"]) == pytest.approx(float((1 + (-margins).exp()).log().mean()), rel=1e-5)
    assert float(numbers["rl/margin"]) == pytest.approx(float(margins.mean()), rel=1e-4)
    assert float(numbers["rl/accuracy"]) == pytest.approx(float((margins > 0).float().mean()))
    assert margins.abs().min() > 1e-4
    for parameter in module.model.parameters():
        if parameter.grad is not None:
            parameter.data -= 0.01 * parameter.grad
    again = module.backward_parts([rollout], step=0, is_first=False)
    assert again["loss"] < numbers["loss"] and again["rl/margin"] > numbers["rl/margin"]


@pytest.mark.parametrize("objective", ["running_mean", "ppo_k1_reward", "ppo_k1_advantage", "ppo_k2", "ppo_k3", "dico"])
def test_adapters_off_are_a_frozen_copy(objective):
    def adapted(with_copy):
        module = module_of(OBJECTIVES[objective](), lora=True, lr=0.05)
        assert module.reference.frozen is None
        if with_copy:
            module.reference.frozen = copy.deepcopy(module.model).eval().requires_grad_(False)
        return run(module, num_steps=3)

    switched, copied = adapted(False), adapted(True)
    assert differences(switched, copied, rtol=1e-5, atol=1e-6) == []
    assert switched.rows[-1]["rl/kl"] > 1e-3


def test_adapters_are_on_again_and_trainable_after_they_were_off():
    model = captioner(lora=True)
    assert only_adapters_train(model)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    batch = batches_of_all_ranks(1)[0]

    def logprobs():
        return model.logprobs(model.encode(batch), batch.tokens, batch.mask)

    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    with torch.no_grad():
        before = logprobs()
        with adapters_off(model):
            off = logprobs()
    plain = captioner()
    torch.testing.assert_close(off, plain.logprobs(plain.encode(batch), batch.tokens, batch.mask).detach())
    assert (off - before).abs().max() > 0.1
    assert torch.equal(logprobs().detach(), before)
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == trainable


def test_a_model_without_adapters_or_with_more_that_trains_needs_a_copy():
    assert not only_adapters_train(captioner())
    model = captioner(lora=True)
    next(p for p in model.parameters() if not p.requires_grad).requires_grad_(True)
    assert not only_adapters_train(model)


def moved(module):
    """The module with other weights than its reference has."""
    with torch.no_grad():
        for parameter in module.model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7))
    module.model.eval()
    return module


def distances(module, found):
    """log policy - log reference of each learned token, both untruncated at the rollout's temperature."""
    samples, temperature = found.samples, float(module.objective.rollout.temperature)
    values = [
        model.logprobs(model.encode(found.batch), samples.tokens, samples.mask, temperature)
        for model in (module.model, module.reference.frozen)
    ]
    return (values[0] - values[1]).masked_fill(~found.loss_mask, 0.0)


def test_k1_in_the_reward_charges_each_caption_its_own_distance():
    plain, charged = (
        PPO(TRUNCATED, num_samples=3, baseline="none", learn_eos=False, kl=kl, kl_weight=Linear(0.4, 0.2))
        for kl in ("k2", "k1_reward")
    )
    found = {}
    for objective in (plain, charged):
        module = attached(moved(module_of(objective, micro_batch_size=3)))
        found[objective.kl] = module, module.rollout(batches_of_all_ranks(1)[0], step=5)[0]
    module, rollout = found["k1_reward"]
    assert torch.equal(rollout.samples.tokens, found["k2"][1].samples.tokens)
    assert rollout.samples.ended.any()  # the end, which is not learned here, is not charged either
    # Half way from .4 to .2: .3.
    expected = found["k2"][1].advantages - 0.3 * distances(module, rollout).sum(-1).detach()
    torch.testing.assert_close(rollout.advantages, expected, atol=1e-5, rtol=1e-4)
    assert distances(module, rollout).sum(-1).abs().max() > 0.05


def charged_loss(module, found, old_logprobs, charges):
    """PPO in loops: the charges of a caption's learned tokens are taken from its advantage. Also pi_old."""
    samples, losses = found.samples, []
    temperature = float(module.objective.rollout.temperature)
    context = module.model.encode(found.batch)
    logprobs = module.model.logprobs(context, samples.tokens, samples.mask, temperature, samples.support)
    old_logprobs = logprobs.detach() if old_logprobs is None else old_logprobs
    for b, k in found.loss_mask.any(-1).nonzero().tolist():
        learned = found.loss_mask[b, k].nonzero()[:, 0].tolist()
        gain = found.advantages[b, k] - sum(charges[b, k, t] for t in learned)
        ratios = [(logprobs[b, k, t] - old_logprobs[b, k, t]).exp() for t in learned]
        terms = [-torch.minimum(ratio * gain, ratio.clamp(0.8, 1.2) * gain) for ratio in ratios]
        losses.append(sum(terms) / len(terms))
    return sum(losses) / len(losses), old_logprobs


def gradients(module):
    return {name: p.grad.clone() for name, p in module.model.named_parameters() if p.grad is not None}


def test_k1_in_the_advantage_charges_the_kl_of_the_policy_of_each_update():
    settings = {"num_samples": 3, "baseline": "none", "learn_eos": False, "reduction": "seq_mean"}
    charged = PPO(TRUNCATED, kl="k1_advantage", kl_weight=Linear(4.0, 2.0), **settings)
    module, plain = (
        attached(moved(module_of(objective, micro_batch_size=3))) for objective in (charged, PPO(TRUNCATED, **settings))
    )
    module.manual_backward = torch.Tensor.backward
    batch = batches_of_all_ranks(1)[0]
    rollout = module.rollout(batch, step=5)[0]
    assert torch.equal(rollout.advantages, plain.rollout(batch, step=5)[0].advantages)  # no charge on the reward
    parts, old_logprobs, losses, charges = list(rollout.parts(3)), None, [], []
    for _ in range(2):
        module.zero_grad()
        losses.append(float(module.backward_parts(parts, step=5, is_first=False)["loss"]))
        ours = gradients(module)
        module.zero_grad()
        charges.append(3.0 * distances(module, rollout).detach())  # half way from 4 to 2
        loss, old_logprobs = charged_loss(module, rollout, old_logprobs, charges[-1])
        loss.backward()
        assert losses[-1] == pytest.approx(loss.item(), rel=1e-4)
        for name, gradient in gradients(module).items():
            torch.testing.assert_close(ours[name], gradient, atol=1e-5, rtol=1e-3)
        stale, _ = charged_loss(module, rollout, old_logprobs, charges[0])
        moved(module)
    assert abs(losses[1] - stale.item()) > 0.01


@pytest.mark.parametrize("kl", ["k2", "k3"])
def test_kl_as_a_loss_adds_its_mean_over_learned_tokens(kl):
    def first_row(weight):
        objective = SelfCritical(TRUNCATED, num_samples=3, baseline="none", kl=kl, kl_weight=weight)
        return run(moved(module_of(objective))).rows[0]

    without, added = first_row(0.0), first_row(0.5)
    module = attached(moved(module_of(SelfCritical(TRUNCATED, num_samples=3, baseline="none", kl=kl))))
    rollout, _ = module.rollout(batches_of_all_ranks(1)[0], step=0)
    difference = distances(module, rollout)
    mean = kl_loss(kl, difference)[rollout.loss_mask].mean().item()
    assert mean > 1e-3
    assert added["loss"] - without["loss"] == pytest.approx(0.5 * mean, rel=1e-3)
    per_caption = difference.sum().item() / int(rollout.loss_mask.any(-1).sum())
    assert added["rl/kl"] == without["rl/kl"] == pytest.approx(per_caption, rel=1e-3)


def test_a_distance_of_weight_zero_is_logged_and_changes_nothing():
    def outcome(kl):
        return run(module_of(SelfCritical(SAMPLED, num_samples=3, kl=kl, kl_weight=0.0)), num_steps=2)

    watched, plain = outcome("k2"), outcome("none")
    assert "rl/kl" in watched.rows[0]
    assert all(torch.equal(weight, plain.weights[name]) for name, weight in watched.weights.items())


# -- updates within a step


def test_inner_updates_are_one_global_step_at_one_learning_rate():
    module = module_of(PPO(SAMPLED, num_samples=3, inner_updates=3))
    rates = []
    optimizer_step = AdamW.__call__

    def spied(factory, model):
        optimizer = optimizer_step(factory, model)
        optimizer.register_step_pre_hook(lambda o, *_: rates.append(o.param_groups[0]["lr"]))
        return optimizer

    module.optimizer_factory.__class__ = type("Spied", (AdamW,), {"__call__": spied})
    keep = Keep()
    trainer = trainer_of("auto", 2, [keep])
    trainer.fit(module, loader(2))
    assert trainer.global_step == 2
    assert [round(rate, 6) for rate in rates] == [0.01] * 3 + [0.005] * 3
    assert {int(state["step"]) for state in trainer.optimizers[0].state.values()} == {6}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_later_updates_use_the_samples_of_the_first_and_are_cut_where_the_policy_moved(precision):
    def outcome(inner_updates):
        objective = PPO(SAMPLED, num_samples=3, inner_updates=inner_updates)
        return run(module_of(objective, lr=0.05), precision=precision)

    once, thrice = outcome(1), outcome(3)
    assert once.rollouts == thrice.rollouts
    assert once.rows[0]["rl/clip_fraction"] == 0
    assert thrice.rows[0]["rl/clip_fraction"] > 0.05
    assert "loss of step 0" in differences(once, thrice)


def test_mixed_precision_trains_every_weight_and_keeps_the_gap_small():
    module = module_of(OBJECTIVES["ppo_k2"]())
    before = {name: value.clone() for name, value in module.state_dict().items()}
    outcome = run(module, precision="bf16-mixed")
    assert outcome.rows[0]["rl/logprob_gap"] < 0.02
    assert not any(torch.equal(value, before[name]) for name, value in outcome.weights.items())


def test_one_inner_update_of_ppo_is_a_step_of_reinforce():
    settings = {"num_samples": 3, "baseline": "group"}
    ppo = run(module_of(PPO(TRUNCATED, inner_updates=1, **settings)), num_steps=2)
    reinforce = run(module_of(SelfCritical(TRUNCATED, **settings)), num_steps=2)
    for name, weight in ppo.weights.items():
        torch.testing.assert_close(weight, reinforce.weights[name], atol=1e-5, rtol=1e-4)


# -- checkpoints


@pytest.mark.parametrize("objective", ["running_mean", "ppo_k2", "dico", "weighted_sum"])
def test_a_resumed_run_goes_on_to_the_last_bit(objective, tmp_path):
    class Save(Keep):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            if trainer.global_step == 2:
                trainer.save_checkpoint(tmp_path / "half.ckpt")

    keep = Save()
    trainer_of("auto", 4, [keep]).fit(module_of(OBJECTIVES[objective]()), loader(4))
    again = Keep()
    module = module_of(OBJECTIVES[objective]())
    trainer = trainer_of("auto", 4, [again])
    trainer.fit(module, loader(4, first=2), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert again.outcome.rows == keep.outcome.rows[2:]
    assert again.outcome.rollouts == keep.outcome.rollouts[2:]
    assert all(torch.equal(weight, again.outcome.weights[name]) for name, weight in keep.outcome.weights.items())


def test_a_running_baseline_that_was_forgotten_would_be_noticed(tmp_path):
    module = module_of(OBJECTIVES["running_mean"]())
    trainer = trainer_of("auto", 2, [])
    trainer.fit(module, loader(2))
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    checkpoint = torch.load(tmp_path / "half.ckpt", weights_only=True)
    assert checkpoint["rl"]["objective"]["count"] == 2
    assert checkpoint["rl"]["objective"]["value"] != 0


# -- validation


def test_validation_logs_each_term_on_greedy_captions():
    module = module_of(OBJECTIVES["greedy"]())
    batch = batches_of_all_ranks(1)[0]
    module.decoding = Decoding(max_length=6)
    trainer = trainer_of("auto", 1, [])
    trainer.limit_val_batches = 1.0
    trainer.validate(module, DataLoader([batch[:3], batch[3:]], batch_size=None), verbose=False)
    found = trainer.callback_metrics
    scores = Overlap()(batch, module.generate_captions(batch))
    assert found["val/reward/overlap"] == pytest.approx(scores.nanmean().item(), rel=1e-5)
    assert found["val/reward"] == pytest.approx(2 * scores.nanmean().item(), rel=1e-5)


def validated(reward):
    """Means of the first batch by name, the batch, and its captions."""
    module = attached(module_of(OBJECTIVES["greedy"](), reward))
    module.decoding = Decoding(max_length=6)
    batch = batches_of_all_ranks(1)[0]
    samples = module.generate_captions(batch)
    sums = module.validation_sums(batch, samples)
    return {name: float(total / count) for name, (total, count) in sums.items()}, batch, samples


@pytest.mark.parametrize(
    ("combine", "total"),
    [("sum", lambda a, b: 2 * a + 0.5 * b), ("geometric_mean", lambda a, b: (a**2 * b**0.5) ** (1 / 2.5))],
)
def test_the_validation_reward_is_the_mean_total_with_the_weights_of_the_end(combine, total):
    """Of captions that all terms can score, clipped as in training: a weight that moves would move the number."""
    short = RewardTerm(Length(shortest=0, longest=1, fall_off=20), weight=Linear(5.0, 0.5))
    reward = Reward({"overlap": RewardTerm(Overlap(), weight=2.0, clip=[0.2, 0.6]), "short": short}, combine)
    found, batch, samples = validated(reward)
    pairs = zip(
        Overlap()(batch, samples).flatten().tolist(), short.scorer(batch, samples).flatten().tolist(), strict=True
    )
    totals = [total(min(max(a, 0.2), 0.6), b) for a, b in pairs if not math.isnan(a)]
    assert len(set(totals)) > 1
    assert found["reward"] == pytest.approx(sum(totals) / len(totals), rel=1e-4)
    assert "reward/overlap" in found and "reward/short" in found


def test_terms_that_compare_captions_leave_no_validation_reward():
    reward = Reward({"overlap": RewardTerm(Overlap()), "other": RewardTerm(Shuffled(Overlap()))})
    assert set(validated(reward)[0]) == {"reward/overlap"}
    assert reward.compared == ["other"]
    assert Reward({"overlap": RewardTerm(Overlap(), normalize="batch")}).compared == ["overlap"]


# -- wrong input


def build(**settings):
    arguments = {"objective": SelfCritical(), "reward": Reward({"overlap": RewardTerm(Overlap())}), **settings}
    return RLModule(captioner(), optimizer=AdamW(lr=0.01), schedule=Linear(), decoding=Decoding(), **arguments)


def test_batch_sizes_below_one_are_refused():
    with pytest.raises(UsageError, match="rollout_batch_size"):
        build(rollout_batch_size=0)
    with pytest.raises(UsageError, match="micro_batch_size"):
        build(micro_batch_size=0)


def test_an_objective_on_references_is_refused_by_type():
    with pytest.raises(UsageError, match="task=fit"):
        PolicyModule.__init__.__wrapped__(
            build(), captioner(), CrossEntropy(), AdamW(lr=0.01), Linear(), Decoding(), metrics=None,
            micro_batch_size=None, seed=0, compile=False, recompute=False, graph=True,
        )  # fmt: skip
