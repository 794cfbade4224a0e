"""What SmolLM2-135M reads off SceneWorld captions, in every form of reader: docs/judges.md has the table.

    pip install xllamacpp
    python -m benchmarks.small_reader [--questions N]

A question a picture, about a colour, a shape or a place, with four choices of which one is right, in an order drawn by
(seed, picture, question). Each reader answers it from the picture's dense caption, which tells it, and from an empty
one: by the options' texts and by the letters' probabilities here (`reader=hf`), and by a letter that llama.cpp's server
writes (`reader=server`), bound to the letters or not. Printed are the share of questions with an answer that could be
read, and the share of all questions that were right, with its standard error. The model is that of data=stamps; the
server has it in 4 bits, this process the same weights in 32.
"""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import sqrt
from pathlib import Path

from capkit.assets.cache import location
from capkit.assets.catalogue import SMOLLM2
from capkit.llm.chat_server import ChatServer
from capkit.readers.base import ChoiceQuestion, Reader
from capkit.readers.chat import ChatReader
from capkit.readers.hf import HFReader
from capkit.readers.question_sets import Item, shown_as
from capkit.sceneworld.language.captions import caption
from capkit.sceneworld.language.questions import questions
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.scene import make_scene
from capkit.testing.engines import llama_cpp
from capkit.utils.rng import generator

KINDS = ("color", "shape", "place")
NUM_CHOICES = 4


def cases(count: int) -> tuple[list[str], list[ChoiceQuestion], list[int]]:
    """Dense captions, a question for each, and the place of its answer."""
    captions, asked, answers = [], [], []
    for index in range(count):
        scene = make_scene(WorldOptions(), 0, "test", index)
        draw = generator(0, "small_reader", index)
        known = [question for question in questions(scene) if question.kind in KINDS]
        question = known[draw.integers(len(known))]
        others = [choice for choice in question.choices if choice != question.answer]
        drawn = [others[place] for place in draw.permutation(len(others))[: NUM_CHOICES - 1]]
        shown = shown_as(Item(question.text, (question.answer, *drawn), question.answer), str(index), 0, abstain=False)
        captions.append(caption(scene, "dense").text)
        asked.append(shown)
        answers.append(shown.choices.index(question.answer))
    return captions, asked, answers


@contextmanager
def readers(work: Path) -> Iterator[dict[str, Reader]]:
    """By their names in the table; answers are kept in `work`."""
    SMOLLM2.unpack(work / "model", print)
    store, folder = str(work / "answers"), str(location("smollm2-135m"))
    with llama_cpp(work / "model" / SMOLLM2.main, work / "log.txt") as engine:

        def server(structured: bool) -> Reader:
            model = ChatServer(f"{engine.url}/v1", "smollm2", max_tokens=4, timeout_s=600, structured=structured)
            return ChatReader(model, cache_dir=store)

        yield {
            "hf, form=cloze": HFReader(folder, "cloze", cache_dir=store),
            "hf, form=letter": HFReader(folder, "letter", cache_dir=store),
            "server, structured=true": server(True),
            "server": server(False),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=100)
    count = parser.parse_args().questions
    captions, asked, answers = cases(count)
    print("| reader | read | right, dense caption | read | right, empty caption |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder, readers(Path(folder)) as found:
        for name, reader in found.items():
            cells = [name]
            for texts in (captions, [""] * count):
                readings = reader.read(texts, [[question] for question in asked])
                choices = [reading.choice for (reading,) in readings]
                right = sum(choice == answer for choice, answer in zip(choices, answers, strict=True)) / count
                cells.append(f"{sum(choice is not None for choice in choices)} of {count}")
                cells.append(f"{right:.2f} ± {sqrt(right * (1 - right) / count):.2f}")
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
