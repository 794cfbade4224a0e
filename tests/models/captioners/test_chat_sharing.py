"""Captions of a picture in one row of a chat model against a row for each: numbers, gradients, steps, all families."""

import copy

import lightning.pytorch as pl
import pytest
import torch
from rl_steps import trainer_of
from test_chat_training import TUNINGS, batches, module_of
from tiny_chat_models import CONFIGS, batch_for, build
from torch.utils.data import DataLoader

from capkit.distributed.collectives import rank, world_size
from capkit.errors import UsageError
from capkit.models.captioners import chat_reading
from capkit.models.captioners.chat_sharing import SharedRows, captions_a_row
from capkit.optim.optimizers import AdamW
from capkit.testing.distributed import run_distributed
from capkit.text.prompt_encoder import stack_prompts
from capkit.text.tokenizers import encode_captions

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
CAPTIONS = [
    ["a red circle.", "the small star", "one"],
    ["a blue square is left of the circle.", "one", "a"],
    ["green star", "a", "the small red circle."],
]
ADAPTERS = {"lora": (("rank", 2), ("alpha", 8))}


@pytest.fixture
def in_rows(monkeypatch):
    """Sets how many captions stand in one row."""

    def choose(number):
        monkeypatch.setattr(chat_reading, "captions_a_row", lambda *sizes: number)

    return choose


def of_both_ways(model, compute):
    """What `compute` gives with the pictures read once, and once for each caption; and all gradients of its sum."""
    found = []
    for shares in (True, False):
        model.share_pictures = shares
        values = compute()
        slopes = torch.linspace(-1, 1, values.numel()).view(values.shape)
        weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad((values * slopes).sum(), weights, allow_unused=True)
        found.append((values.detach(), gradients))
    model.share_pictures = True
    return found


def assert_equal(model, compute):
    (values, gradients), (expected, expected_gradients) = of_both_ways(model, compute)
    torch.testing.assert_close(values, expected, **CLOSE)
    assert any(gradient is not None and gradient.abs().max() > 1e-3 for gradient in expected_gradients)
    for some, others in zip(gradients, expected_gradients, strict=True):
        assert (some is None) == (others is None)
        if some is not None:
            torch.testing.assert_close(some, others, **CLOSE)


def logprobs(model, batch):
    return model.logprobs(model.encode(batch), batch.tokens, batch.mask, 0.8)


def read(model, work):
    """(rows, places) of each pass through the language model."""
    shapes = []
    hook = model._language.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    work()
    hook.remove()
    return shapes


@pytest.mark.parametrize("tuning", ["whole", "adapters"])
@pytest.mark.parametrize("number", [3, 2], ids=["one row", "a row that is filled up"])
@pytest.mark.parametrize("family", CONFIGS)
def test_logprobs_and_gradients_are_those_of_a_row_for_each_caption(family, number, tuning, in_rows):
    model = copy.deepcopy(build(family, **(ADAPTERS if tuning == "adapters" else {})))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # begins as zeros, which would leave lora_A without a gradient
            parameter.data.normal_(std=0.1)
    batch = batch_for(model, CAPTIONS)
    in_rows(number)
    assert_equal(model, lambda: logprobs(model, batch))
    length = batch.tokens.shape[-1] - 1
    prefix = len(model.asked_ids)
    rows, places = 3 * -(-3 // number), prefix + number * (length - 1)
    assert read(model, lambda: logprobs(model, batch)) == [(rows, places)]


def test_losses_with_smoothing_are_those_of_a_row_for_each_caption():
    model = build("qwen2_5_vl")
    batch = batch_for(model, CAPTIONS)
    assert_equal(model, lambda: model.token_losses(model.encode(batch), batch.tokens, batch.mask, 0.1))


@pytest.mark.parametrize("family", ["qwen2_5_vl", "paligemma"])
def test_a_caption_does_not_see_the_others_of_its_row(family):
    model = build(family)
    some, others = (batch_for(model, [[first, "the small star"]]) for first in ("a red circle.", "a blue square."))
    assert some.tokens.shape == others.tokens.shape
    found = [logprobs(model, batch)[0, 1] for batch in (some, others)]
    assert torch.equal(*found)
    assert not torch.equal(*(logprobs(model, batch)[0, 0] for batch in (some, others)))


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "paligemma", "smolvlm"])
def test_pictures_asked_something_of_their_own_are_read_once_and_captions_asked_so_each(family):
    model = build(family)
    batch = batch_for(model, CAPTIONS)
    encoder = model.prompt_encoder(20, cut=False)
    questions = ["near the star ?", "is it ?", "a red circle or a blue square , near the star ?"]
    of_images = [[encoder(question)] for question in questions]
    of_captions = [[encoder(question) for question in questions] for _ in CAPTIONS]
    rows = []
    for prompts in (of_images, of_captions):
        batch.prompts, batch.prompts_mask = stack_prompts(prompts, 0)
        assert_equal(model, lambda: logprobs(model, batch))
        rows += [read(model, lambda: logprobs(model, batch))[0][0]]
    assert rows == [3, 9]


@pytest.mark.parametrize("family", ["llava", "paligemma"])
def test_without_a_picture_captions_share_what_is_asked(family):
    model = build(family)
    batch = batch_for(model, CAPTIONS)
    assert_equal(model, lambda: model.logprobs(model.null_context(3, "cpu"), batch.tokens, batch.mask))


class Weights(pl.Callback):
    """What a run ends with, gathered from all ranks."""

    def on_train_end(self, trainer, pl_module):
        state = trainer.strategy.lightning_module_state_dict()
        self.found = {name: value.clone() for name, value in state.items()}


def stepped(family, objective, tuning, shares, strategy="auto", **ways):
    """Weights that train after two steps, and what the last one logged; each rank learns from pictures of its own."""
    model = copy.deepcopy(build(family, **TUNINGS[tuning])).train()
    model.share_pictures = shares
    module, weights = module_of(model, objective), Weights()
    vars(module).update(ways)
    # eps: a gradient that is 0 but for rounding, of a bias that moves all keys, is not made a step of full length.
    module.optimizer_factory = AdamW(lr=1e-2, weight_decay=0.0, eps=1e-4)
    own = [batch.select(list(range(rank(), 2, world_size()))) for batch in batches(model)]
    trainer_of(strategy, 2, [weights]).fit(module, DataLoader(own, batch_size=None))
    return weights.found, getattr(module, "told", {})


def assert_same(found, expected):
    (weights, told), (others, told_there) = found, expected
    assert len(weights) > 3
    for name, value in weights.items():
        torch.testing.assert_close(value, others[name], atol=2e-5, rtol=1e-4)
    for name in {"loss", "rl/kl", "grad_norm"} & set(told):
        assert float(told[name]) == pytest.approx(float(told_there[name]), abs=1e-5, rel=1e-4)


# recompute: layers run again in the backward pass.
STEPS = [
    ("qwen2_5_vl", "grpo", "adapters", {}),  # the reference is the policy without its adapters
    ("paligemma", "grpo", "whole", {"recompute": True}),  # and here a copy of it
    ("qwen3_vl", "self_critical", "whole", {}),
    ("smolvlm", "likelihood", "whole", {"recompute": True}),
    pytest.param("qwen3_vl", "grpo", "frozen tower", {"compiled": True}, marks=pytest.mark.nightly),
    pytest.param("llava", "likelihood", "whole", {"compiled": True}, marks=pytest.mark.nightly),
]


@pytest.mark.parametrize(("family", "objective", "tuning", "ways"), STEPS)
def test_two_steps_end_at_the_weights_of_a_row_for_each_caption(family, objective, tuning, ways):
    shared, plain = (stepped(family, objective, tuning, shares, **ways) for shares in (True, False))
    assert_same(shared, plain)
    if objective == "grpo":
        assert shared[1]["rl/kl"] != 0


ZERO = [("qwen3_vl", "grpo", "whole"), ("qwen2_5_vl", "likelihood", "adapters")]


def under_zero():
    return [[stepped(*case, shares, "zero3") for shares in (True, False)] for case in ZERO]


@pytest.mark.integration
@pytest.mark.nightly
def test_weights_that_two_processes_hold_parts_of_end_the_same():
    """ZeRO's stage 3, whose hooks gather a layer's weights as it runs, against one process as well."""
    ranks = run_distributed(under_zero, 2, timeout_s=500)
    for case, (shared, plain) in zip(ZERO, ranks[0], strict=True):
        assert_same(shared, plain)
        assert_same(shared, stepped(*case, True))


def test_a_row_by_hand():
    """A prefix of 3 places of which the first is masked, and two captions of two places."""
    rows = SharedRows(prefix=3, places=2, captions=2)
    alone = torch.ones(5, 5, dtype=torch.bool).tril()
    alone[:, 0] = False
    expected = [
        "0000000",
        "0100000",
        "0110000",
        "0111000",
        "0111100",
        "0110010",
        "0110011",
    ]
    found = rows.mask(alone[None, None])[0, 0]
    assert ["".join(str(int(value)) for value in row) for row in found] == expected
    assert rows.positions(torch.tensor([[0, 1, 1, 2, 3]])).tolist() == [[0, 1, 1, 2, 3, 2, 3]]
    tokens = torch.tensor([[[9, 1, 2], [9, 3, 4], [9, 5, 6]]])
    assert rows.joined(tokens).tolist() == [[9, 1, 2, 3, 4], [9, 5, 6, 0, 0]]
    hidden = torch.arange(14.0).view(2, 7, 1)
    assert rows.parted(hidden, 1, 3)[..., 0].tolist() == [[[2, 3, 4], [2, 5, 6], [9, 10, 11]]]


def test_so_many_captions_stand_in_a_row_that_operations_are_fewest():
    assert captions_a_row(8, 260, 64, 2048) == 8 and captions_a_row(1, 260, 64, 2048) == 1
    # By hand, each place of a row costing 6 x width and as much as the row is long.
    assert captions_a_row(3, 10, 4, 1) == 3  # 3 x 14 x 20, 2 x 18 x 24, 22 x 28: the last is least
    assert captions_a_row(3, 10, 40, 1) == 1  # 3 x 50 x 56, 2 x 90 x 96, 130 x 136
    assert captions_a_row(8, 100, 40, 16) == 4  # 2 x 260 x 356, where 8 in one take 420 x 516 and 2 4 x 180 x 276
    assert captions_a_row(5, 260, 0, 2048) == 5


def test_captions_of_a_single_token():
    model = build("qwen2_5_vl")
    tokens, mask, _ = encode_captions(model.tokenizer, [["one", "a"]], "", 16)
    context = model.encode(batch_for(model, [["a", "a"]]))
    empty = model.logprobs(context, tokens[..., :2], mask[..., :2])
    assert empty.shape == (1, 2, 1)
    torch.testing.assert_close(empty, model.logprobs(context, tokens, mask)[..., :1], **CLOSE)


@pytest.mark.parametrize("shares", [True, False])
@pytest.mark.parametrize("kernel", ["flash_attention_2", "kernels-community/flash-attn3"])
def test_a_kernel_without_masks_of_places_is_refused_with_pictures_shared_or_not(kernel, shares):
    model = build("llava", share_pictures=shares)
    model._language.config._attn_implementation_internal = kernel  # as set_attn_implementation, without the package
    try:
        with pytest.raises(UsageError, match=rf"expected sdpa or eager.*got {kernel}; .*set_attn_implementation"):
            logprobs(model, batch_for(model, CAPTIONS))
    finally:
        model._language.config._attn_implementation_internal = "sdpa"
