"""Answers a second of reading choice questions, `python -m benchmarks.reading [--captions N] [--looped N] [--size 3b]`.

A model of SmolLM2-135M's shape with random weights (`--size 3b`: of Qwen2.5-3B's, in bfloat16 on a GPU), 8 questions a
caption; instruction and caption have 120 tokens, question and options 60. In one run, taking turns: a loop of
`generate`, question by question, for one token and for the four that CaptionQA's program allows a reply; batches of
whole prompts; and `capkit.readers.shared_reading`, which runs what a caption's questions share once. Loops, whose rate
does not grow with what there is to read, read the first `--looped` captions. Each way says how many of their letters
are the first loop's.
Seconds are those of one thread's processor time, which other work on the machine changes little; on a GPU those of the
clock. docs/judges.md has the table.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from capkit.readers.shared_reading import last_logits
from capkit.utils.tensors import default_device

NUM_QUESTIONS, NUM_SHARED, NUM_OWN, NUM_CHOICES = 8, 120, 60, 5
LETTERS = range(100, 100 + NUM_CHOICES)
Groups = list[list[list[int]]]
Way = Callable[[Groups], list[int]]
Clock = Callable[[], float]


def smollm2() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def qwen_3b() -> Qwen2ForCausalLM:
    config = Qwen2Config(
        vocab_size=151936, hidden_size=2048, intermediate_size=11008, num_hidden_layers=36, num_attention_heads=16,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    return Qwen2ForCausalLM(config)


def prompts(num_captions: int) -> Groups:
    draw = torch.Generator().manual_seed(0)

    def tokens(count: int) -> list[int]:
        return torch.randint(200, 40_000, (count,), generator=draw).tolist()

    groups = []
    for _ in range(num_captions):
        shared = tokens(NUM_SHARED)
        groups.append([shared + tokens(NUM_OWN) for _ in range(NUM_QUESTIONS)])
    return groups


def chosen(logits: torch.Tensor) -> int:
    return int(logits[list(LETTERS)].argmax())


@torch.inference_mode()
def by_generate(model: Any, groups: Groups, num_new: int) -> list[int]:
    """As a script does it: one question after another."""
    found = []
    for group in groups:
        for tokens in group:
            given = torch.tensor([tokens], device=model.device)
            out = model.generate(
                given, attention_mask=torch.ones_like(given), min_new_tokens=num_new, max_new_tokens=num_new,
                do_sample=False, pad_token_id=0, output_logits=True, return_dict_in_generate=True,
            )  # fmt: skip
            found.append(chosen(out.logits[0][0]))
    return found


def in_batches(model: Any, groups: Groups, batch_size: int) -> list[int]:
    """Whole prompts in batches: each question is a group of its own."""
    alone = [[tokens] for group in groups for tokens in group]
    found = {row: chosen(logits[-1]) for row, _, logits in last_logits(model, alone, [[1]] * len(alone), batch_size)}
    return [found[row] for row in range(len(alone))]


def shared(model: Any, groups: Groups, batch_size: int) -> list[int]:
    wanted = [[1] * len(group) for group in groups]
    found = {
        (row, member): chosen(logits[-1]) for row, member, logits in last_logits(model, groups, wanted, batch_size)
    }
    return [found[key] for key in sorted(found)]


def timed(ways: dict[str, tuple[Way, Groups]], rounds: int, clock: Clock) -> dict[str, tuple[float, list[int]]]:
    """Answers a second of each way, over rounds in which they take turns, after one in which each batch was new."""
    seconds, answers = dict.fromkeys(ways, 0.0), {}
    for number in range(rounds + 1):
        for name, (way, groups) in ways.items():
            start = clock()
            answers[name] = way(groups)
            seconds[name] += clock() - start if number else 0.0
    return {name: (rounds * len(answers[name]) / seconds[name], answers[name]) for name in ways}


def matrix_rate(model: Any, clock: Clock) -> float:
    """Operations a second of one large product in the model's type."""
    size = 8192 if model.device.type == "cuda" else 1024
    a = torch.randn(size, size, device=model.device, dtype=model.dtype)
    synchronize = torch.cuda.synchronize if model.device.type == "cuda" else lambda: None
    a @ a
    synchronize()
    start, count = clock(), 20
    for _ in range(count):
        a @ a
    synchronize()
    return 2 * size**3 * count / (clock() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--captions", type=int, default=2)
    parser.add_argument("--looped", type=int, help="of them, those that loops read; none: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", choices=["135m", "3b"], default="135m")
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    device = default_device()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    with torch.device(device):
        model: Any = smollm2() if options.size == "135m" else qwen_3b()
    model = model.to(dtype).eval()
    groups = prompts(options.captions)
    few = groups[: options.looped]
    ways: dict[str, tuple[Way, Groups]] = {
        "a loop of generate, one token": (partial(by_generate, model, num_new=1), few),
        "a loop of generate, four tokens": (partial(by_generate, model, num_new=4), few),
        "batches of whole prompts": (partial(in_batches, model, batch_size=options.batch_size), groups),
        "what questions share is run once": (partial(shared, model, batch_size=options.batch_size), groups),
    }
    found = timed(ways, options.rounds, clock)
    first, expected = next(iter(found.values()))
    for name, (rate, answers) in found.items():
        same = sum(a == b for a, b in zip(answers, expected, strict=False)) / len(expected)
        print(f"{name:<36} {rate:9.2f} answers/s, {rate / first:.1f} x the first, {same:.1%} the same letters")
    body = sum(p.numel() for p in model.parameters()) - model.get_input_embeddings().weight.numel()
    per_answer = 2 * body * (NUM_SHARED / NUM_QUESTIONS + NUM_OWN)
    peak = matrix_rate(model, clock)
    print(f"shared: {rate * per_answer / peak:.1%} of the rate of one matrix product, {peak / 1e12:.2f} Tflop/s")


if __name__ == "__main__":
    main()
