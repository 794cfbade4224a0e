"""A step on captions that answer prompts of different length, however its batch is cut and over however many ranks."""

import lightning.pytorch as pl
import pytest
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from capkit.decoding.config import Decoding
from capkit.models.captioners.seq2seq_writer import Seq2SeqWriter
from capkit.models.captioners.text_writer import TextWriter
from capkit.objectives.cross_entropy import CrossEntropy
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Constant
from capkit.testing.distributed import bare_trainer, run_distributed
from capkit.text.prompt_encoder import PromptEncoder, stack_prompts
from capkit.text.tokenizers import encode_captions, word_tokenizer
from capkit.train.mle_module import MLEModule
from capkit.types import CaptionBatch

PROMPTS = ["a", "b c d e f g h i", "c a", "h", "d e f", "i i a b", "g", "e f g h i a b c d"]
ANSWERS = ["x", "y z x", "z", "x y z x y z", "y", "z z", "x x x x", "y"]
LLAMA = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
LLAMA |= {"num_attention_heads": 2, "initializer_range": 0.2}
T5 = {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2, "dropout_rate": 0.0}
STEPS = 3


class Keep(pl.Callback):
    def __init__(self):
        self.rows = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.rows.append((float(outputs["loss"]), float(outputs["grad_norm"])))


def tokenizer():
    return word_tokenizer([*PROMPTS, *ANSWERS])


def batch_of(prompts=PROMPTS, as_text=False):
    tokens, mask, length = encode_captions(tokenizer(), [[answer] for answer in ANSWERS], "", 12)
    encode = PromptEncoder(tokenizer(), 20, as_text=as_text)
    ids, real = stack_prompts([[encode(prompt)] for prompt in prompts], 0)
    keys = [f"{number}" for number in range(len(ANSWERS))]
    return CaptionBatch(keys, tokens=tokens, mask=mask, prompt_length=length, prompts=ids, prompts_mask=real)


def trajectory(micro_batch_size=None, distributed=False, lora=None, prompts=PROMPTS, is_encoded=False):
    """(loss, gradient norm before clipping) of each step."""
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if distributed else (0, 1)
    torch.manual_seed(0)
    kind, lm = (Seq2SeqWriter, T5) if is_encoded else (TextWriter, LLAMA)
    model = kind(lm, tokenizer(), max_length=32, lora=lora)
    optimizer = AdamW(lr=0.01, clip_norm=0.5)
    module = MLEModule(model, CrossEntropy(0.1), optimizer, Constant(), Decoding(), micro_batch_size=micro_batch_size)
    keep = Keep()
    batch = batch_of(prompts, as_text=is_encoded).select(list(range(rank, 8, world_size)))
    loader = DataLoader([batch] * STEPS, batch_size=None)
    bare_trainer(max_steps=STEPS, callbacks=[keep]).fit(module, loader)
    return keep.rows


def same(first, second):
    return torch.allclose(torch.tensor(first), torch.tensor(second), rtol=3e-5, atol=0)


@pytest.fixture(scope="module")
def whole():
    return trajectory()


@pytest.mark.parametrize("micro_batch_size", [1, 3])
def test_micro_batches_equal_the_whole_batch(whole, micro_batch_size):
    assert same(whole, trajectory(micro_batch_size))


def test_prompts_dealt_to_other_answers_are_another_step(whole):
    assert not same(whole[:1], trajectory(prompts=PROMPTS[1:] + PROMPTS[:1])[:1])


@pytest.mark.parametrize("lora", [{"rank": 2, "targets": ["q_proj", "v_proj"]}], ids=["lora"])
def test_adapters_in_micro_batches_equal_those_of_the_whole_batch(lora):
    assert same(trajectory(lora=lora), trajectory(3, lora=lora))


def test_prompts_that_an_encoder_reads_in_micro_batches_equal_those_of_the_whole_batch():
    assert same(trajectory(is_encoded=True), trajectory(3, is_encoded=True))


def of_a_rank():
    return [*(trajectory(size, distributed=True) for size in (None, 2)), trajectory(distributed=True, is_encoded=True)]


@pytest.mark.integration
def test_two_processes_equal_one(whole):
    first, second = run_distributed(of_a_rank, 2)
    assert first == second
    assert all(same(whole, rows) for rows in first[:2])
    assert same(trajectory(is_encoded=True), first[2])
