"""Under NCCL an exchange goes through the GPUs' group or through the host's: ranks must agree which, or wait forever.

By gloo they would not wait, and no GPU is here. So `OnGpu` marks the tensors that would lie on one, each rank records
the group of each of its exchanges, and the records of all ranks must be equal.
"""

from contextlib import contextmanager
from typing import Any

import pytest
import torch
from rl_steps import CAPTIONS, OBJECTIVES, batches_of_all_ranks, captioner, module_of, tokenizer
from torch.overrides import TorchFunctionMode

from capkit.decoding.config import Decoding
from capkit.distributed import collectives
from capkit.distributed.collectives import rank
from capkit.objectives.contrastive.edited_candidates import EditedCandidates
from capkit.objectives.contrastive.info_nce import InfoNCE
from capkit.objectives.contrastive.pair_sum import PairSum
from capkit.objectives.cross_entropy import CrossEntropy
from capkit.objectives.grammar import GrammarCrossEntropy
from capkit.objectives.preference.dpo import DPO
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Constant, Linear
from capkit.testing.distributed import run_distributed
from capkit.testing.models import batch_for, two_tower
from capkit.text.tokenizers import encode_captions
from capkit.train.dual_encoder_module import DualEncoderModule
from capkit.train.mle_module import MLEModule
from capkit.train.preferences.module import PreferenceModule
from capkit.types import CaptionBatch

GPU = torch.device("cpu", 7)  # stands for the GPU where a device is named


class OnGpu(torch.Tensor):
    """A tensor that would lie on the GPU, as what is computed of it does."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return GPU

    def cpu(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)


class Marked(TorchFunctionMode):
    """What is made on `GPU`, or moved there, is marked."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found, given = func(*args, **(kwargs or {})), (*args, *(kwargs or {}).values())
        is_asked = any(isinstance(value, torch.device) and value == GPU for value in given)
        return found.as_subclass(OnGpu) if is_asked and isinstance(found, torch.Tensor) else found


@contextmanager
def recorded():
    """The group of each exchange, in their order."""
    found: list[str] = []
    group_of, host_group = collectives._group_of, collectives.host_group

    def of_tensor(value):
        found.append("GPU" if isinstance(value, OnGpu) else "host")
        return group_of(value)

    def of_objects():
        found.append("objects")
        return host_group()

    with pytest.MonkeyPatch.context() as patch, Marked():
        patch.setattr(collectives, "host_group", of_objects)
        patch.setattr(collectives, "_group_of", of_tensor)
        yield found


def likelihood_module():
    return MLEModule(captioner(), CrossEntropy(0.1), AdamW(lr=0.01), Linear(), Decoding(max_length=6))


def rewards_module():
    module = module_of(OBJECTIVES["greedy"]())
    module.decoding = Decoding(max_length=6)
    return module


def preferences_module():
    module = PreferenceModule(captioner(), DPO(), AdamW(lr=0.01), Linear(), Decoding())
    module.keep_reference()
    return module


def pairs_module():
    objective = PairSum({"edits": EditedCandidates(InfoNCE()), "grammar": GrammarCrossEntropy()})
    return DualEncoderModule(two_tower(grammar_head=True), objective, AdamW(lr=1e-3), Constant())


def captions():
    return batches_of_all_ranks(1)[0]


def chosen_and_rejected():
    batch = batches_of_all_ranks(1)[0]
    texts = [[chosen, rejected] for (chosen,), (rejected,) in zip(CAPTIONS, CAPTIONS[::-1], strict=True)]
    batch.tokens, batch.mask, _ = encode_captions(tokenizer(), texts, prompt="", max_length=12)
    return batch


def pictures() -> CaptionBatch:
    batch = batch_for(pairs_module().model, [[f"a {word}"] for word in ("red", "blue", "left", "square")])
    batch.negative_tokens, batch.negative_mask = batch.tokens.flip(0), batch.mask.flip(0)
    return batch


MODULES = {
    "likelihood": (likelihood_module, captions),
    "rewards": (rewards_module, captions),
    "preferences": (preferences_module, chosen_and_rejected),
    "pairs": (pairs_module, pictures),
}


def validated(name):
    """The exchanges of a validation with a batch for the first rank alone, and what it logs."""
    make, batch = MODULES[name]
    module, logged = make(), {}
    module.log_dict = lambda numbers, **_: logged.update(numbers)
    module._device = GPU
    module.eval()
    with recorded() as exchanges, torch.no_grad():
        module.on_validation_epoch_start()
        if rank() == 0:
            module.validation_step(batch().to(GPU), 0)
        module.on_validation_epoch_end()
    return exchanges, {key: float(value) for key, value in logged.items()}


def all_validated():
    return {name: validated(name) for name in MODULES}


@pytest.mark.integration
def test_a_rank_without_a_validation_batch_exchanges_where_the_others_do():
    first, second = run_distributed(all_validated, 2)
    for name in MODULES:
        (exchanges, logged), (others, logged_there) = first[name], second[name]
        assert exchanges == others, name
        assert len(exchanges) > 1 and logged and logged == logged_there
    assert "GPU" in first["pairs"][0]
