"""A step of GRPO whose reward asks questions, by who reads them: `python -m benchmarks.question_rewards --speed`.

A ClipCap of GPT-2's size with random weights samples captions of 48 words; each is asked 8 questions of 5 choices. Read
by: a loop of `generate`, question after question, for one token; `reader=hf` with a model of SmolLM2-135M's shape (in
bfloat16 on a GPU), which the loop has too; `reader=server` with a stand-in that takes 100 ms and answers 32 at a time;
and, where xllamacpp and SmolLM2 are there (`capkit prepare data=stamps`), llama.cpp's server on this machine. Every
step writes captions of its own, so that no answer is kept from before. The first step of each is not counted. On a CPU
seconds are processor time, which other work on the machine changes little, the server's added where it is llama.cpp's;
of the stand-in, which waits, and on a GPU they are those of the clock.
"""

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.asking import server
from benchmarks.speed import vocabulary
from benchmarks.speed.measure import wait
from benchmarks.speed.rollout import FULL, TINY, Size
from benchmarks.speed.step import in_training
from benchmarks.speed.step_setting import Row, captioner_of
from capkit.assets.cache import location
from capkit.assets.catalogue import SMOLLM2
from capkit.decoding.config import Decoding
from capkit.llm.chat_server import ChatServer
from capkit.objectives.policy.ppo import PPO
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Constant
from capkit.readers.base import LETTERS, ChoiceQuestion, Reader, Reading
from capkit.readers.chat import ChatReader
from capkit.readers.hf import HFReader
from capkit.readers.question_rows import Item
from capkit.scorers.question_answering import QuestionAnswering
from capkit.scorers.reward import Reward, RewardTerm
from capkit.testing.engines import llama_cpp
from capkit.train.rl.module import RLModule
from capkit.types import CaptionBatch
from capkit.utils.rng import generator

NUM_SLOTS, NUM_CHOICES, NUM_WORDS = 32, 5, 30_000
QUESTION_WORDS, CHOICE_WORDS = 20, 4
LOOP = "a loop of generate"
SMOLLM2_SHAPE = {
    "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True, "max_position_embeddings": 2048,
}  # fmt: skip
TINY_SHAPE = {**SMOLLM2_SHAPE, "hidden_size": 18, "intermediate_size": 32, "num_hidden_layers": 2}


@dataclass(frozen=True)
class Measured:
    """Answers of a step, and the medians of the seconds of steps and of reading in them."""

    answers: int
    step_s: float
    read_s: float

    @property
    def rate(self) -> float:
        return self.answers / self.read_s


class Timed:
    """A reader, the clock that its seconds are by, and those that its last reading took."""

    def __init__(self, reader: Reader, clock: Callable[[], float] = time.perf_counter) -> None:
        self.reader, self.clock, self.seconds = reader, clock, 0.0

    def about(self) -> dict[str, Any]:
        return self.reader.about()

    def read(self, texts: Sequence[str], questions: Sequence[Sequence[ChoiceQuestion]]) -> list[list[Reading]]:
        start = self.clock()
        found = self.reader.read(texts, questions)
        self.seconds = self.clock() - start
        return found


class Asked:
    """Questions of random words about any picture: 20 words, and five choices of four."""

    def __init__(self, count: int) -> None:
        self.count, self.words = count, vocabulary.common_words(NUM_WORDS)

    def of(self, key: str, metadata: Mapping[str, Any]) -> Sequence[Item]:
        draw = generator("question reward", key)

        def text(count: int) -> str:
            return " ".join(self.words[place] for place in draw.integers(len(self.words), size=count))

        asked = [text(QUESTION_WORDS) for _ in range(self.count)]
        choices = [tuple(text(CHOICE_WORDS) for _ in range(NUM_CHOICES - 1)) for _ in asked]  # one abstains
        return [Item(question, of, of[0]) for question, of in zip(asked, choices, strict=True)]

    def keys(self) -> None:
        return None

    def about(self) -> dict[str, Any]:
        return {"questions": "random words"}


def first_letter(prompt: str) -> str:
    return "A"


class Looped(HFReader):
    """The same prompts and letters, by `generate`, one question after another."""

    @torch.inference_mode()
    def read(self, texts: Sequence[str], questions: Sequence[Sequence[ChoiceQuestion]]) -> list[list[Reading]]:
        return [[self._answer(text, one) for one in asked] for text, asked in zip(texts, questions, strict=True)]

    def _answer(self, text: str, question: ChoiceQuestion) -> Reading:
        model: Any = self._model()
        (((tokens, _),),) = self._prompts([(text, question)])
        given = torch.tensor([tokens], device=model.device)
        out = model.generate(
            given, attention_mask=torch.ones_like(given), min_new_tokens=1, max_new_tokens=1, do_sample=False,
            pad_token_id=0, output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
        return Reading(int(out.logits[0][0][self._letters[: len(question.choices)]].argmax()))


def write_model(folder: Path, shape: Mapping[str, Any]) -> None:
    """A model of random weights, and a tokenizer that has the captioner's words, letters, and little else."""
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**shape)).save_pretrained(folder)
    words = ["<unk>", "<eos>", *LETTERS, *".,:?()", *vocabulary.words_of(NUM_WORDS)]
    backend = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="<eos>").save_pretrained(folder)


@contextmanager
def readers(work: Path, shape: Mapping[str, Any], batch_size: int) -> Iterator[dict[str, Timed]]:
    """By name; servers end with the context."""
    write_model(work / "model", shape)
    on_gpu = torch.cuda.is_available()
    dtype = "bfloat16" if on_gpu else "float32"
    own = time.perf_counter if on_gpu else time.process_time
    local: dict[str, Any] = {"form": "letter", "dtype": dtype, "batch_size": batch_size}

    def asking(url: str, name: str, **settings: Any) -> ChatReader:
        model = ChatServer(url, name, num_connections=NUM_SLOTS, max_tokens=4, timeout_s=600, **settings)
        return ChatReader(model, cache_dir=str(work / name))

    with ExitStack() as stack:
        found = {
            LOOP: Timed(Looped(str(work / "model"), cache_dir=str(work / "loop"), **local), own),
            "reader=hf": Timed(HFReader(str(work / "model"), cache_dir=str(work / "hf"), **local), own),
            "a stand-in server": Timed(asking(stack.enter_context(server(answer=first_letter)), "stand-in")),
        }
        if importlib.util.find_spec("xllamacpp") is not None and location("smollm2-135m").exists():
            SMOLLM2.unpack(work / "gguf", print)
            engine = stack.enter_context(llama_cpp(work / "gguf" / SMOLLM2.main, work / "log.txt"))
            clock = time.perf_counter if on_gpu else lambda: time.process_time() + engine.cpu_seconds()
            found["llama.cpp's server"] = Timed(asking(f"{engine.url}/v1", "smollm2", structured=True), clock)
        yield found


def measured(timed: Timed, size: Size, images: int, options: argparse.Namespace) -> Measured:
    """The step with this reader, `rounds` times after one that is not counted."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    clock = timed.clock
    torch.manual_seed(0)
    row = Row("clip_prefix", images, options.samples, length=options.length)
    reward = Reward({"qa": RewardTerm(QuestionAnswering(timed, Asked(options.questions), all_questions=True))})
    objective = PPO(Decoding("sample", max_length=options.length, min_length=options.length - 1), options.samples)
    with torch.device(device):
        model = captioner_of(row, size)
    module = RLModule(model, objective, reward, AdamW(lr=1e-6), Constant(), Decoding())
    keys = [str(number) for number in range(images)]
    batch = CaptionBatch(keys, pixels=torch.randn(images, 3, size.image, size.image), metadata=[{} for _ in keys])
    steps: list[float] = []
    reads: list[float] = []

    def measure(step: Callable[[], Any]) -> None:
        for number in range(options.rounds + 1):
            module.seed = number  # other captions in each step: equal ones would be answered from the store
            wait(device)
            start = clock()
            step()
            wait(device)
            if number:
                steps.append(clock() - start)
                reads.append(timed.seconds)

    in_training(module, batch.to(device), device, measure)
    answers = int(reward.logs()["qa_questions"])
    return Measured(answers, statistics.median(steps), statistics.median(reads))


def table(found: Mapping[str, Measured]) -> str:
    lines = ["| reader | answers a step | answers/s | beside the loop | s a step | its share |", "| --- " * 6 + "|"]
    for name, of in found.items():
        beside = f"{of.rate / found[LOOP].rate:,.1f} x" if LOOP in found else ""
        share = f"{of.read_s / of.step_s:.0%}"
        lines.append(f"| {name} | {of.answers:,} | {of.rate:,.1f} | {beside} | {of.step_s:,.2f} | {share} |")
    return "\n".join(lines)


def run(options: argparse.Namespace) -> dict[str, Measured]:
    """Measure every reader, each by itself; the loop reads the captions of the first `looped` pictures."""
    size, shape = (TINY, TINY_SHAPE) if options.tiny else (FULL, SMOLLM2_SHAPE)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work, readers(Path(work), shape, options.batch_size) as known:
        found = {}
        for name in [name for name in known if any(word in name for word in options.only)]:
            images = options.looped or options.images if name == LOOP else options.images
            found[name] = measured(known[name], size, images, options)
            print(name, found[name], flush=True)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "one CPU core"
    print(f"\n{options.images} pictures x {options.samples} captions x {options.questions} questions; {device}\n")
    print(table(found))
    return found
