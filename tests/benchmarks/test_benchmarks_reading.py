"""benchmarks/reading.py measures what it says: every way answers every question, with the letters of the loop."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks import reading


def test_every_way_answers_what_the_loop_answers():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40_000, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        initializer_range=0.3,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    groups = reading.prompts(2)
    lengths = {len(tokens) for group in groups for tokens in group}
    assert [len(group) for group in groups] == [8, 8] and lengths == {180}
    assert all(tokens[:120] == group[0][:120] for group in groups for tokens in group)
    loop = reading.by_generate(model, groups, num_new=1)
    assert len(set(loop)) > 1
    assert reading.by_generate(model, groups, num_new=4) == loop
    assert reading.in_batches(model, groups, 3) == reading.shared(model, groups, 3) == loop
