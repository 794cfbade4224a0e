"""Every family of captioners under DDP and ZeRO 2 and 3, in two processes, against one.

Whole, by adapters, and with a frozen image part.
"""

import sys
from pathlib import Path

import pytest
import replay
import steps
import torch

from capkit.models.captioners.chat_vlm import ChatVLM
from capkit.models.captioners.clip_prefix import ClipPrefix
from capkit.models.captioners.coca import CoCa
from capkit.models.captioners.encoder_decoder import EncoderDecoder
from capkit.models.captioners.hf_captioner import HFCaptioner
from capkit.models.encoders.image import HFImageEncoder, SmallCNN
from capkit.models.tuning.lora import LoRA
from capkit.objectives.cross_entropy import CrossEntropy
from capkit.optim.optimizers import AdamW
from capkit.testing.distributed import run_distributed
from capkit.train.mle_module import MLEModule

sys.path.append(str(Path(__file__).parents[1] / "models"))
from tiny_captioners import COCA, GPT2, HAS_OPEN_CLIP, HF_CONFIGS, VISION

FAMILIES = ("encoder_decoder", "clip_prefix", *HF_CONFIGS, "chat_vlm", *(["coca"] if HAS_OPEN_CLIP else []))
ADAPTED = {"encoder_decoder": "decoder", "clip_prefix": "lm"}  # otherwise the whole: "model"
TUNINGS = ("", "+lora", "+frozen")
STRATEGIES = ("ddp", "zero2", "zero3")
SMOLVLM = {
    "model_type": "smolvlm",
    "scale_factor": 1,
    "vision_config": {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24, "image_size": 32,
        "patch_size": 16,
    },
    "text_config": {
        "model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 24, "max_position_embeddings": 200,
    },
}  # fmt: skip


def built(family, tuning):
    torch.manual_seed(0)
    is_frozen = tuning == "+frozen"
    if family == "coca":
        freeze = ("image_tower", "pooler") if is_frozen else ()
        return CoCa(config=COCA, tokenizer=steps.tokenizer(), max_length=24, freeze=freeze)
    if family == "chat_vlm":
        freeze = ("vision",) if is_frozen else ()
        return ChatVLM(config=SMOLVLM, tokenizer=steps.tokenizer(), image_size=32, max_length=100, freeze=freeze)
    if family == "encoder_decoder":
        encoder = SmallCNN(image_size=32).requires_grad_(not is_frozen)
        return EncoderDecoder(steps.tokenizer(), encoder, width=32, num_layers=1, num_heads=2)
    if family == "clip_prefix":
        encoder = HFImageEncoder(config={"model_type": "vit", **VISION}, frozen=is_frozen)
        return ClipPrefix(GPT2, steps.tokenizer(), encoder, prefix_length=3, max_length=24)
    model = HFCaptioner(
        config=HF_CONFIGS[family], tokenizer=steps.tokenizer(), max_length=24, freeze_image_encoder=is_frozen
    )
    if family == "blip2":  # new queries are zeros and new image weights of size 1e-10: rounding grows in a LayerNorm
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.1)
    return model


def module(family, tuning):
    def make(micro_batch_size, dropout=0.0):
        model = built(family, tuning)
        for part in model.modules():  # drawn by the rank otherwise; some attention has its rate as a number
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
            for name in [name for name, rate in vars(part).items() if "dropout" in name and isinstance(rate, float)]:
                setattr(part, name, 0.0)
        if tuning == "+lora":
            model.requires_grad_(False)
            LoRA(rank=2).add_to(getattr(model, ADAPTED.get(family, "model")))
        optimizer = AdamW(lr=0.01, betas=(steps.BETA, 0.99), clip_norm=steps.CLIP_NORM)
        return MLEModule(
            model, CrossEntropy(0.1), optimizer, steps.Linear(), replay.VALIDATION, micro_batch_size=micro_batch_size
        )

    return make


def train_all(cases):
    steps.MODULES.update({f"{family}{tuning}": module(family, tuning) for family in FAMILIES for tuning in TUNINGS})
    return [steps.train(*case) for case in cases]


KINDS = [f"{family}{tuning}" for family in FAMILIES for tuning in TUNINGS]


@pytest.fixture(scope="module")
def outcomes(request):
    """Of the selected tests alone: `-k "coca and ddp"` is a matter of a minute."""
    selected = [item.callspec.params for item in request.session.items if item.path == Path(__file__)]
    cases = [(params["kind"], params["strategy"], 2) for params in selected]
    kinds = sorted({kind for kind, *_ in cases})
    alone = dict(zip(kinds, train_all([(kind, "auto", None) for kind in kinds]), strict=True))
    ranks = run_distributed(train_all, 2, cases, timeout_s=1800)
    return alone, {case[:2]: list(both) for case, *both in zip(cases, *ranks, strict=True)}


def without_key_bias(name, weight):
    """The gradient of a key's bias is 0 but for rounding, which Adam scales up."""
    if name.endswith(("k_proj.bias", "key.bias")):
        return weight[:0]
    if name.endswith("key_value.bias"):  # the query first, where it is there
        *queries, _, value = weight.chunk(3 if "query" in name else 2)
        return torch.cat([*queries, value])
    return weight


@pytest.mark.integration
@pytest.mark.nightly
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_do_what_one_does(outcomes, kind, strategy):
    alone, of_ranks = outcomes
    assert of_ranks[kind, strategy][0].weights.keys() == alone[kind].weights.keys()
    for found in of_ranks[kind, strategy]:
        for row, expected in zip(found.rows, alone[kind].rows, strict=True):
            assert row == pytest.approx(expected, rel=1e-4)
        for name, value in found.weights.items():
            ours, theirs = (without_key_bias(name, weight) for weight in (value, alone[kind].weights[name]))
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
