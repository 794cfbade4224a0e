"""Questions a second, `python -m benchmarks.asking [--questions N] [--kept N] [--items N]` (tables: docs/curate.md).

Against a stand-in server on loopback, in a process of its own, that takes 100 ms for an answer and gives 32 at a time:
a plain loop, 32 connections, and 32 connections where 1 % of the replies are 429, 500, cut or malformed. Then questions
whose answers are all kept, in a store of N (a million). All but the loop go through `Asker`: replies are read and kept.
Last a judged metric of three steps, DCScore with 7 questions a caption (docs/judges.md), and the same from its store.
"""

import argparse
import json
import multiprocessing
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import urllib3

from capkit.judges.chat_verifier import ChatVerifier
from capkit.judges.decomposers import ChatDecomposer
from capkit.judges.matchers import ChatMatcher
from capkit.llm.asker import Asker
from capkit.llm.base import Answer, Question
from capkit.llm.cache import AnswerStore, question_key
from capkit.llm.chat_server import ChatServer
from capkit.llm.json_replies import JSONField
from capkit.llm.replies import Text
from capkit.metrics.dcscore import DCScore
from capkit.testing.stand_in_server import StandInServer

DELAY_S, NUM_SLOTS, BAD = 0.1, 32, 0.01
REPLY = JSONField("caption", Text(50))
NUM_READ = 20_000
NUM_CLAIMS, NUM_FACTS, QUESTIONS_EACH = 12, 20, 7  # 1 list of claims, 3 matchings, 3 verifications
PICTURE = np.zeros((64, 64, 3), np.uint8)


def caption(prompt: str) -> str:
    """A caption, or what a prompt of a judge asks for: claims, their facts, or verdicts on them."""
    if "[text]" in prompt:
        (name,) = re.findall(r"item \d+", prompt)
        rows = [{"claim": f"Claim {number} of {name}.", "seen": True} for number in range(NUM_CLAIMS)]
        return json.dumps({"claims": rows})
    if "[claims]" in prompt:
        value = 1 if "[facts]" in prompt else "true"
        return json.dumps({str(number): value for number in range(1, NUM_CLAIMS + 1)})
    return json.dumps({"caption": f"a picture of {prompt}"})


def serve(bad: float, told: "multiprocessing.connection.Connection", answer: Callable[[str], str]) -> None:
    with StandInServer(answer, DELAY_S, NUM_SLOTS, bad) as server:
        told.send(server.url)
        told.recv()


@contextmanager
def server(bad: float = 0.0, answer: Callable[[str], str] = caption) -> Iterator[str]:
    """The address of a stand-in server in another process; `answer` is a function of a module."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(bad, there, answer))
    process.start()
    yield here.recv()
    here.send("stop")
    process.join()


def loop(url: str, count: int) -> int:
    """One question after another, as a script does it: a connection each."""
    for number in range(count):
        body = {"model": "tiny", "messages": [{"role": "user", "content": f"picture {number}"}]}
        urllib3.PoolManager().request("POST", f"{url}/chat/completions", json=body)
    return 0


def through_asker(model: ChatServer, folder: Path, count: int) -> Asker:
    asker = Asker(model, folder, REPLY)
    items = (f"picture {number}" for number in range(count))
    for _, (answer,) in asker.stream(items, lambda item: [Question(item)]):
        assert answer.text is not None or answer.failure is not None
    return asker


def timed_stream(bad: float, count: int) -> tuple[float, int]:
    """Seconds and failed questions of one run."""
    with server(bad) as url, tempfile.TemporaryDirectory() as folder:
        model = ChatServer(url, "tiny", num_connections=NUM_SLOTS, first_wait_s=0.1)
        start = time.perf_counter()
        asker = through_asker(model, Path(folder), count)
        return time.perf_counter() - start, asker.counts["failed"]


def judging(url: str, folder: Path) -> DCScore:
    """DCScore with 3 matchings and 3 verifications, all by one server, and facts from a file."""
    model = ChatServer(url, "tiny", num_connections=NUM_SLOTS, first_wait_s=0.1, temperature=1.0)
    facts = folder / "facts.jsonl"
    kept: dict[str, Any] = {"cache_dir": str(folder / "answers")}
    return DCScore(
        ChatDecomposer(model, **kept),
        ChatMatcher(model, num_samples=3, **kept),
        ChatVerifier(model, "both", num_samples=3, **kept),
        str(facts),
    )


def judged(url: str, folder: Path, count: int) -> tuple[float, dict[str, int]]:
    """Seconds of judging so many captions, and how many questions the server and the store answered."""
    names = [f"item {number}" for number in range(count)]
    if not (folder / "facts.jsonl").exists():
        facts = [f"Fact {number}." for number in range(NUM_FACTS)]
        rows = [{"image_name": name, "oracle_caption": f"of {name}", "oracle_facts": facts} for name in names]
        (folder / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    metric = judging(url, folder)
    start = time.perf_counter()
    metadata = [{"key": name, "image": PICTURE + number % 256} for number, name in enumerate(names)]
    found = metric.score([f"a caption of {name}" for name in names], [[] for _ in names], metadata)
    assert found["dcscore_asked"] == count and not found["dcscore_failed"]
    counts = {name: sum(asker.counts[name] for asker in metric.askers.values()) for name in ("asked", "cached")}
    return time.perf_counter() - start, counts


def fill(folder: Path, model: ChatServer, count: int) -> None:
    """A store of so many answers."""
    store = AnswerStore(folder, model.about())
    for number in range(count):
        text = f"picture {number}"
        store.add(question_key(Question(text)), Answer(caption(text), tokens_in=7, tokens_out=6))
    store.flush()


def kept(count: int) -> tuple[float, float]:
    """Seconds to open a store of so many answers, and to read NUM_READ of them; the server is not there."""
    model = ChatServer("http://127.0.0.1:9/v1", "tiny")
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder), model, count)
        start = time.perf_counter()
        len(AnswerStore(folder, model.about()))
        opened = time.perf_counter() - start
        asker = Asker(model, folder, REPLY)
        len(asker.store)
        start = time.perf_counter()
        stride = max(count // NUM_READ, 1)
        items = (f"picture {number}" for number in range(0, count, stride))
        for _, (answer,) in asker.stream(items, lambda item: [Question(item)]):
            assert answer.text is not None
        return opened, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=3000)
    parser.add_argument("--kept", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=400)
    options = parser.parse_args()
    num_looped = max(options.questions // 30, 1)
    with server() as url:
        start = time.perf_counter()
        loop(url, num_looped)
        plain = num_looped / (time.perf_counter() - start)
    print(f"{'a plain loop':<40} {plain:8.1f} questions/s")
    for name, bad in (("32 connections", 0.0), ("32 connections, 1 % bad replies", BAD)):
        seconds, failed = timed_stream(bad, options.questions)
        rate = options.questions / seconds
        print(f"{name:<40} {rate:8.1f} questions/s, {rate / plain:.1f} x the loop, {failed} failed")
    ideal = options.items * QUESTIONS_EACH * DELAY_S / NUM_SLOTS
    with server() as url, tempfile.TemporaryDirectory() as folder:
        for name in ("first", "from the store"):
            seconds, counts = judged(url, Path(folder), options.items)
            line = (
                f"{counts['asked']:,} asked, {counts['cached']:,} kept, {seconds:.1f} s ({seconds / ideal:.2f} x ideal)"
            )
            print(f"{f'{options.items} captions by DCScore, {name}':<40} {line}")
    opened, seconds = kept(options.kept)
    rate = len(range(0, options.kept, max(options.kept // NUM_READ, 1))) / seconds
    print(f"{f'all kept, in a store of {options.kept:,}':<40} {rate:8.1f} questions/s, opened in {opened:.1f} s")


if __name__ == "__main__":
    main()
