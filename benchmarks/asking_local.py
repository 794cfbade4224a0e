"""Questions a second of a local model, one by one and in batches (docs/curate.md, Models).

    python -m benchmarks.asking_local
    python -m benchmarks.asking_local --dtype bfloat16 --questions 64 --tokens 64

The model has the layers of SmolLM2-135M with random weights, and some 2,000 words; it takes the GPU if there is one.
Its answers never end, so that each has `--tokens` tokens. Questions have 20 to 120 words. How many answers are the same
as one by one is printed too: in float32 all should be.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from capkit.llm.base import Question
from capkit.llm.huggingface import HFChat
from capkit.text.tokenizers import word_tokenizer
from capkit.utils.rng import generator
from capkit.utils.tensors import default_device

TEMPLATE = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}assistant"
NUM_WORDS = 2000
BATCH_SIZES = (1, 8, 32)


def save_model(folder: Path) -> None:
    tokenizer = word_tokenizer([" ".join(f"w{i}" for i in range(NUM_WORDS)), "user assistant"])
    tokenizer.chat_template = TEMPLATE
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=2048, tie_word_embeddings=False, **ids,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] = 0  # below the highest of many random logits
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def questions(count: int) -> list[Question]:
    found = []
    for number in range(count):
        draw = generator("asking_local", number)
        words = draw.integers(0, NUM_WORDS, draw.integers(20, 121))
        found.append(Question(" ".join(f"w{word}" for word in words)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    device = default_device()
    print(f"{torch.cuda.get_device_name() if device.type == 'cuda' else f'{torch.get_num_threads()} CPU threads'}, "
          f"{options.dtype}, {options.questions} questions, {options.tokens} tokens each")  # fmt: skip
    asked = questions(options.questions)
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder))
        rates, answers = [], []
        for size in BATCH_SIZES:
            model = HFChat(folder, dtype=options.dtype, max_tokens=options.tokens, batch_size=size)
            model.ask(asked[:size])  # loads the weights
            start = time.perf_counter()
            answers.append([answer.said for answer in model.ask(asked)])
            rates.append(len(asked) / (time.perf_counter() - start))
            same = sum(one == other for one, other in zip(answers[0], answers[-1], strict=True)) / len(asked)
            print(f"batches of {size:<3} {rates[-1]:8.2f} questions/s, {rates[-1] / rates[0]:5.1f} x one by one, "
                  f"{same:.0%} of the answers as one by one")  # fmt: skip


if __name__ == "__main__":
    main()
