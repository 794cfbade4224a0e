"""A few reinforcement-learning steps of a tiny captioner under any strategy: what tests of RLModule compare."""

from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from capkit.decoding.config import Decoding
from capkit.distributed.collectives import rank, world_size
from capkit.distributed.zero import Zero
from capkit.models.captioners.encoder_decoder import EncoderDecoder
from capkit.models.tuning.lora import LoRA
from capkit.objectives.cross_entropy import CrossEntropy
from capkit.objectives.policy.dico import DiCO
from capkit.objectives.policy.ppo import PPO
from capkit.objectives.policy.self_critical import SelfCritical
from capkit.objectives.policy.weighted_sum import WeightedSum
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Linear
from capkit.scorers.reward import Reward, RewardTerm
from capkit.testing.distributed import bare_trainer
from capkit.text.tokenizers import encode_captions, word_tokenizer
from capkit.train.rl.module import RLModule
from capkit.types import CaptionBatch, Samples
from capkit.utils.rng import stable_hash

CAPTIONS = [["a"], ["a red ball"], ["one two three four five six"], ["a b"], ["c"], ["x y z"], ["u"], ["p q r s t"]]
NUM_IMAGES = len(CAPTIONS)
SAMPLED = Decoding("sample", max_length=6)
TRUNCATED = Decoding("sample", max_length=6, top_k=9, top_p=0.95, temperature=1.2, min_length=1)
K2 = {"kl": "k2", "kl_weight": 0.3}

OBJECTIVES = {
    "greedy": lambda: SelfCritical(SAMPLED, num_samples=3),
    "leave_one_out": lambda: SelfCritical(TRUNCATED, num_samples=3, baseline="leave_one_out", reduction="seq_mean"),
    "whiten": lambda: SelfCritical(SAMPLED, num_samples=2, baseline="none", whiten=True, reduction="seq_sum"),
    "running_mean": lambda: SelfCritical(SAMPLED, num_samples=2, baseline="running_mean", learn_eos=False, **K2),
    "ppo_k1_reward": lambda: PPO(TRUNCATED, num_samples=3, inner_updates=2, kl="k1_reward", kl_weight=0.1),
    "ppo_k1_advantage": lambda: PPO(
        TRUNCATED, num_samples=3, inner_updates=2, reduction="seq_mean", kl="k1_advantage", kl_weight=0.1
    ),
    "ppo_k2": lambda: PPO(TRUNCATED, num_samples=3, inner_updates=2, reduction="seq_mean", **K2),
    "ppo_k3": lambda: PPO(SAMPLED, num_samples=3, inner_updates=2, clip_high=0.3, kl="k3", kl_weight=0.3),
    "dico": lambda: DiCO(Decoding("beam", num_beams=3, max_length=6), num_samples=3, beta=0.5, tau=5.0),
    "weighted_sum": lambda: WeightedSum(
        SelfCritical(SAMPLED, num_samples=3, baseline="leave_one_out"), CrossEntropy(0.1), Linear(1.0, 0.5), 0.3
    ),
}


class Overlap:
    """Share of the caption's words that its image's references have, plus a number that belongs to the caption.

    A caption that begins with the word "y" cannot be scored.
    """

    def __call__(self, batch: CaptionBatch, samples: Samples) -> torch.Tensor:
        rows = zip(batch.keys, batch.references, samples.texts, strict=True)
        return torch.tensor([[self.score(key, refs, text) for text in texts] for key, refs, texts in rows])

    def score(self, key: str, references: list[str], text: str) -> float:
        words = text.split()
        if words[:1] == ["y"]:
            return float("nan")
        shared = sum(word in references[0].split() for word in words)
        return shared / (len(words) + 1) + stable_hash(key, text) % 1000 / 2000


class Recording(RLModule):
    """Keeps what each step sampled and what it was worth, by image."""

    def score_rollout(self, batch: CaptionBatch, samples: Samples, *rest: Any) -> Any:
        rollout, logs = super().score_rollout(batch, samples, *rest)
        worth = (rollout.advantages * rollout.loss_mask.any(-1)).tolist()
        written = [
            [caption[real].tolist() for caption, real in zip(*image, strict=True)]
            for image in zip(samples.tokens, samples.mask, strict=True)
        ]
        self.rollouts.append(dict(zip(batch.keys, zip(written, worth, strict=True), strict=True)))
        return rollout, logs

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.rollouts: list[dict[str, Any]] = []


@dataclass
class Outcome:
    """`rows`: what each step logged. `rollouts`: this rank's token ids and advantages by image, of each step.

    `weights` are those after the last step.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    rollouts: list[dict[str, Any]] = field(default_factory=list)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    global_step: int = 0


class Keep(pl.Callback):
    def __init__(self) -> None:
        self.outcome = Outcome()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.outcome.rows.append({name: float(value) for name, value in outputs.items()})

    def on_train_end(self, trainer, pl_module):
        state = trainer.strategy.lightning_module_state_dict()
        self.outcome.weights = {name: value.clone() for name, value in state.items()}
        self.outcome.rollouts, self.outcome.global_step = pl_module.rollouts, trainer.global_step


def tokenizer() -> Any:
    return word_tokenizer([caption for captions in CAPTIONS for caption in captions])


def captioner(dropout: float = 0.0, lora: bool = False) -> EncoderDecoder:
    """Peaked enough for captions to differ and to end. Dropout is in its image part as well."""
    torch.manual_seed(1)
    model = EncoderDecoder(
        tokenizer(), feature_width=6, width=16, num_layers=1, num_heads=2, max_length=12, dropout=dropout
    )
    model.project = nn.Sequential(model.project, nn.Dropout(dropout))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(std=0.25)
    if lora:
        model.requires_grad_(False)
        LoRA(rank=2, targets=["query_key_value", "key_value"]).add_to(model.decoder)
    return model


def module_of(
    objective: Any, reward: Any = None, dropout: float = 0.0, lora: bool = False, lr: float = 0.01, **settings: Any
) -> Recording:
    """With the policy that it starts from remembered."""
    reward = reward or Reward({"overlap": RewardTerm(Overlap(), weight=2.0)})
    # A larger eps keeps rounding small where a gradient is zero but for it, such as of the biases of attention's keys.
    optimizer = AdamW(lr=lr, clip_norm=0.5, eps=1e-4)
    module = Recording(captioner(dropout, lora), objective, reward, optimizer, Linear(), Decoding(), **settings)
    module.keep_reference()
    return module


def batches_of_all_ranks(num_steps: int) -> list[CaptionBatch]:
    tokens, mask, prompt_length = encode_captions(tokenizer(), CAPTIONS, prompt="", max_length=12)
    features = torch.randn(num_steps, NUM_IMAGES, 5, 6, generator=torch.Generator().manual_seed(1))
    keys = [f"{i}" for i in range(NUM_IMAGES)]
    return [CaptionBatch(keys, None, part, tokens, mask, prompt_length, references=CAPTIONS) for part in features]


def loader(num_steps: int, first: int = 0) -> DataLoader:
    """This rank's share of each step's images."""
    rows = list(range(rank(), NUM_IMAGES, world_size()))
    return DataLoader([batch.select(rows) for batch in batches_of_all_ranks(num_steps)[first:]], batch_size=None)


def trainer_of(strategy: str, num_steps: int, callbacks: list[pl.Callback], precision: Any = "32-true") -> pl.Trainer:
    zero = Zero(int(strategy[-1]), persistence_threshold=0) if strategy.startswith("zero") else None
    return bare_trainer(
        strategy=zero or strategy, precision=precision, max_steps=num_steps, limit_val_batches=0, callbacks=callbacks
    )


def train(objective: str, strategy: str = "auto", num_steps: int = 2, **settings: Any) -> Outcome:
    keep = Keep()
    module = module_of(OBJECTIVES[objective](), **settings)
    trainer_of(strategy, num_steps, [keep]).fit(module, loader(num_steps))
    return keep.outcome


def differences(one: Outcome, other: Outcome, rtol: float = 2e-4, atol: float = 2e-5) -> list[str]:
    """Names of the logged numbers and weights in which two runs differ."""
    found = [] if one.global_step == other.global_step else ["global_step"]
    for step, (row, again) in enumerate(zip(one.rows, other.rows, strict=True)):
        if row.keys() != again.keys():
            found.append(f"names of step {step}")
            continue
        values = torch.tensor(list(row.values())), torch.tensor(list(again.values()))
        same = torch.isclose(*values, rtol=rtol, atol=atol, equal_nan=True)
        found += [f"{name} of step {step}" for name, is_same in zip(row, same.tolist(), strict=True) if not is_same]
    for name, weight in one.weights.items():
        if not torch.allclose(weight, other.weights[name], rtol=rtol, atol=1e-4):
            found.append(name)
    return found
