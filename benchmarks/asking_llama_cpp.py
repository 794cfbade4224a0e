"""A real engine: llama.cpp's server with SmolLM2-135M, one thread and eight slots (docs/curate.md has the tables).

    pip install xllamacpp
    python -m benchmarks.asking_llama_cpp [--questions N]

Questions are those of `step=[blend_captions]` about N SceneWorld scenes, with the five captions of each. First how many
replies are one JSON object with a caption, by the reader that the step uses, with and without `structured`, and what
share of such a caption's facts is true and of the captions' facts is in it. Then questions a second of the engine's CPU
time (Linux counts it; on a core of its own they are as many a second) over one connection and over eight, each with an
engine that has seen no prompt yet. The model is that of data=stamps.
"""

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from statistics import fmean

from capkit.assets.catalogue import SMOLLM2
from capkit.llm.asker import Asker
from capkit.llm.base import Answer, Question
from capkit.llm.chat_server import ChatServer
from capkit.llm.json_replies import JSONField
from capkit.llm.prompts import Prompt, numbered
from capkit.llm.replies import Text
from capkit.sceneworld.language.captions import reference_captions
from capkit.sceneworld.language.oracles import score_caption
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import Scene, make_scene
from capkit.testing.engines import Engine, llama_cpp

REPLY = JSONField("caption", Text(150))
MAX_TOKENS = 96
NUM_SLOTS = 8


def blend_question(scene: Scene) -> Question:
    captions = list(dict.fromkeys(reference.text for reference in reference_captions(scene)))
    return Question(Prompt("blend_v1", ["captions"]).fill(captions=numbered(captions)))


def facts(scenes: list[Scene], captions: list[str | None]) -> str:
    """Means, over the captions that there are, of their facts' precision and of the recall of the references' facts."""
    scores = [
        score_caption(scene, text, {fact for reference in reference_captions(scene) for fact in reference.facts})
        for scene, text in zip(scenes, captions, strict=True)
        if text is not None
    ]
    if not scores:
        return "no captions"
    precision, recall = (fmean(getattr(score, name) for score in scores) for name in ("precision", "recall"))
    return f"precision {precision:.2f}, recall {recall:.2f}"


def ask(engine: Engine, questions: list[Question], folder: Path, **settings: object) -> list[Answer]:
    model = ChatServer(f"{engine.url}/v1", "smollm2", max_tokens=MAX_TOKENS, timeout_s=600, **settings)
    return Asker(model, folder, REPLY).ask(questions)


def kind(answer: Answer) -> str:
    """What became of an answer, in the table's words."""
    if answer.text is not None:
        return "usable"
    failure = str(answer.failure).removeprefix("unparsable answer: ")
    return "cut at max_tokens" if "truncated" in failure else failure.split("; ")[0]


def print_usable(gguf: Path, work: Path, scenes: list[Scene], questions: list[Question]) -> None:
    with llama_cpp(gguf, work / "log.txt", NUM_SLOTS) as engine:
        for structured in (False, True):
            folder = work / f"structured={structured}"
            answers = ask(engine, questions, folder, num_connections=NUM_SLOTS, structured=structured)
            kinds = Counter(kind(answer) for answer in answers)
            shares = facts(scenes, [answer.value for answer in answers])
            print(f"{folder.name:<16} {kinds['usable'] / len(answers):.2f} usable, {shares}; {dict(kinds)}", flush=True)


def print_rates(gguf: Path, work: Path, questions: list[Question]) -> None:
    rates = []
    for num_connections in (1, NUM_SLOTS):
        with llama_cpp(gguf, work / "log.txt", NUM_SLOTS) as engine:
            start = engine.cpu_seconds()
            ask(engine, questions, work / f"{num_connections}", num_connections=num_connections, structured=True)
            rates.append(len(questions) / (engine.cpu_seconds() - start))
        rate = f"{rates[-1]:.2f} questions/s, {rates[-1] / rates[0]:.2f} x one"
        print(f"{num_connections} connections: {rate}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=40)
    count = parser.parse_args().questions
    scenes = [make_scene(WorldOptions(), 0, "train", index) for index in range(count)]
    questions = [blend_question(scene) for scene in scenes]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        SMOLLM2.unpack(work / "model", print)
        gguf = work / "model" / SMOLLM2.main
        print_usable(gguf, work, scenes, questions)
        print_rates(gguf, work, questions)


if __name__ == "__main__":
    main()
