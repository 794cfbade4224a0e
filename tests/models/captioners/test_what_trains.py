"""What trains with what: every family but chat models, by likelihood and by rewards, whole, by adapters, in part.

Two steps of each: the right weights move, numbers are finite, and rollouts agree with the policy that they came from.
"""

import copy

import pytest
import torch
from tiny_captioners import HAS_OPEN_CLIP, batch_for, build
from torch.utils.data import DataLoader
from trained_modules import OBJECTIVES, module_of

from capkit.models.tuning.lora import LoRA
from capkit.testing.distributed import bare_trainer

# The part that adapters are added to, by family: what `model=tuned_captioner` calls it in lora.PART.
ADAPTED = {
    "encoder_decoder": "decoder",
    "prefix_llama_transformer": "lm",
    "prefix_gpt2_without_bos": "lm",
    "vit_gpt2": "model",
    "vit_bert": "model",
    "blip": "model",
    "blip2": "model",
    "git": "model",
    "coca": "model",
}
TUNINGS = ("whole", "adapters", "frozen image part")
# In CI one cell of each family, and each objective and tuning with some of them; at night the whole table.
IN_CI = {
    ("encoder_decoder", "self_critical", "adapters"),
    ("prefix_llama_transformer", "grpo", "frozen image part"),
    ("prefix_gpt2_without_bos", "likelihood", "adapters"),
    ("vit_gpt2", "self_critical", "whole"),
    ("vit_bert", "grpo", "whole"),
    ("blip", "likelihood", "frozen image part"),
    ("blip2", "grpo", "adapters"),
    ("git", "self_critical", "adapters"),
    ("coca", "grpo", "adapters"),
    ("coca", "self_critical", "frozen image part"),
}
TABLE = [
    pytest.param(*cell, marks=[] if cell in IN_CI else pytest.mark.nightly, id="-".join(cell).replace(" ", "_"))
    for cell in ((family, name, tuning) for family in ADAPTED for name in OBJECTIVES for tuning in TUNINGS)
]


def tuned(family, tuning):
    model = copy.deepcopy(build(family))
    if tuning == "adapters":
        model.requires_grad_(False)
        LoRA(rank=2).add_to(getattr(model, ADAPTED[family]))
    elif tuning == "frozen image part":
        image_part_of(model).requires_grad_(False)
    return model.train()


def image_part_of(model):
    return model._image_part if hasattr(model, "_image_part") else model.image_encoder


@pytest.mark.parametrize(("family", "objective", "tuning"), TABLE)
def test_two_steps_move_what_trains_and_nothing_else(family, objective, tuning):
    if family == "coca" and not HAS_OPEN_CLIP:
        pytest.skip("needs capkit[openclip]")
    model = tuned(family, tuning)
    before = copy.deepcopy(model.state_dict())
    module = module_of(model, objective)
    batch = batch_for(model)[:2]
    batch.references = [["a red circle.", "the small star"], ["a blue square is left of the circle.", "one"]]
    trainer = bare_trainer(max_steps=2, limit_val_batches=0)
    trainer.fit(module, DataLoader([batch, batch], batch_size=None))
    state, trains = model.state_dict(), {n: p.requires_grad for n, p in model.named_parameters(remove_duplicate=False)}
    moved = {name for name, value in state.items() if not torch.equal(value, before[name])}
    assert all(value.isfinite().all() for value in state.values())
    assert moved and all(trains[name] for name in moved)
    assert all("lora_" in name for name in moved) == (tuning == "adapters")
    in_image_part = {id(parameter) for parameter in image_part_of(model).parameters()}
    if tuning != "adapters":  # by default in every attention of that name, of the image part or not
        images_move = any(id(p) in in_image_part for name, p in model.named_parameters() if name in moved)
        assert images_move == (tuning == "whole")
    if objective != "likelihood":
        assert module.told["rl/logprob_gap"] < 1e-5
