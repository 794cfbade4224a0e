"""What trains with what: every family, by likelihood and by rewards, whole, by adapters, or below a frozen tower.

Two steps of each: the right weights move, numbers are finite, and rollouts agree with the policy that they came from.
"""

import copy

import pytest
import torch
from tiny_chat_models import CONFIGS, build, pixels
from torch.utils.data import DataLoader
from trained_modules import OBJECTIVES, SAMPLED, module_of

from capkit.objectives.policy.ppo import PPO
from capkit.testing.distributed import bare_trainer
from capkit.text.tokenizers import encode_captions
from capkit.types import CaptionBatch

TUNINGS = {
    "whole": {},
    "adapters": {"freeze": ("vision", "projector"), "lora": (("rank", 2),)},
    "frozen tower": {"freeze": ("vision",)},
}
# In CI one cell of each family, and each objective and tuning with some family; at night the whole table.
IN_CI = {
    ("qwen2_vl", "likelihood", "frozen tower"),
    ("qwen2_5_vl", "grpo", "adapters"),
    ("qwen3_vl", "self_critical", "frozen tower"),
    ("smolvlm", "grpo", "whole"),
    ("idefics3", "likelihood", "adapters"),
    ("llava", "self_critical", "adapters"),
    ("llava_onevision", "likelihood", "whole"),
    ("paligemma", "grpo", "frozen tower"),
    ("internvl", "likelihood", "whole"),
}
TABLE = [
    pytest.param(*cell, marks=[] if cell in IN_CI else pytest.mark.nightly, id="-".join(cell).replace(" ", "_"))
    for cell in ((family, name, tuning) for family in CONFIGS for name in OBJECTIVES for tuning in TUNINGS)
]


def batches(model, steps=2):
    captions = [["a red circle.", "the small star"], ["a blue square is left of the circle.", "one"]]
    tokens, mask, length = encode_captions(model.tokenizer, captions, model.prompt, 16)
    references = captions
    return [
        CaptionBatch(["a", "b"], pixels(2), None, tokens, mask, length, references=references) for _ in range(steps)
    ]


def trained(family, objective, tuning, micro_batch_size=None):
    model = copy.deepcopy(build(family, **TUNINGS[tuning])).train()
    module = module_of(model, objective, micro_batch_size)
    trainer = bare_trainer(max_steps=2, limit_val_batches=0)
    trainer.fit(module, DataLoader(batches(model), batch_size=None))
    assert trainer.global_step == 2
    return model, module


@pytest.mark.parametrize(("family", "objective", "tuning"), TABLE)
def test_two_steps_move_what_trains_and_nothing_else(family, objective, tuning):
    before = build(family, **TUNINGS[tuning]).state_dict()
    model, module = trained(family, objective, tuning)
    trains = {name: parameter.requires_grad for name, parameter in model.named_parameters(remove_duplicate=False)}
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    parts = {"vision": False, "projector": False, "language": False}
    for name in moved:
        assert trains[name], name
        assert model.state_dict()[name].isfinite().all()
        parts[model._family.part_of(name.removeprefix("model.model."))] = True
    frozen = TUNINGS[tuning].get("freeze", ())
    assert parts == {part: part not in frozen for part in parts}
    if objective != "likelihood":
        assert module.told["rl/logprob_gap"] < 1e-5


@pytest.mark.parametrize("objective", ["likelihood", "grpo"])
def test_two_micro_batches_give_the_step_of_one(objective):
    whole, split = (trained("qwen2_5_vl", objective, "adapters", size)[0].state_dict() for size in (None, 1))
    for name, value in whole.items():
        torch.testing.assert_close(value, split[name], atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize(
    ("family", "objective", "tuning"), [("qwen3_vl", "likelihood", "whole"), ("paligemma", "grpo", "adapters")]
)
def test_layers_that_run_again_in_the_backward_pass_give_the_same_step(family, objective, tuning):
    found, runs = [], []
    for recompute in (False, True):
        model = copy.deepcopy(build(family, **TUNINGS[tuning])).train()
        module = module_of(model, objective)
        module.recompute = recompute
        counted = []
        for layer in (model._language.layers[0], model.image_encoder.blocks()[0]):
            part = next(layer.children())  # of the layer itself, `forward` runs again, and no hook
            part.register_forward_hook(lambda *_, counted=counted: counted.append(1))
        trainer = bare_trainer(max_steps=2, limit_val_batches=0)
        trainer.fit(module, DataLoader(batches(model), batch_size=None))
        found.append(model.state_dict())
        runs.append(len(counted))
    again = {"whole": 2 * 2, "adapters": 2 * PPO(SAMPLED).inner_updates}[
        tuning
    ]  # steps x parts; a frozen tower does not
    assert runs[1] == runs[0] + again
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], atol=1e-6, rtol=1e-5)
