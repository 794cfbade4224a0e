"""METEOR 1.5 (Denkowski and Lavie 2014) through its official jar, in one long-lived Java process.

English words match by form, stem, synonym and paraphrase, with weights tuned to English. In the other languages of
`LANGUAGES` words match by form and stem (Snowball's stemmer of the language), with METEOR's language-independent
weights: such numbers are not comparable with English ones.

B images.
"""

import re
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from capkit.errors import UsageError
from capkit.metrics.coco.corpus import Corpus
from capkit.metrics.coco.java import java_binary, pycocoevalcap_folder
from capkit.text.normalize import primary_language
from capkit.utils.renamed import moved_names

__getattr__ = moved_names(__name__)  # Meteor is in `collected`

_JAR = "meteor-1.5.jar"
LANGUAGES = {code: code for code in ("da", "en", "fi", "hu", "it", "nl", "no", "pt", "ro", "ru", "tr")}
LANGUAGES |= {"nb": "no", "nn": "no", "sv": "se"}
"""The jar's own code of each language. German, French, Spanish and Czech want tables that pycocoevalcap leaves out."""
_NOT_IN_A_LINE = re.compile("[\r\n\ud800-\udfff]")  # line ends to Java, and what UTF-8 cannot encode
_LINES_AT_ONCE = 64  # requests sent before reading the answers; few enough that neither pipe fills up


def meteor(
    predictions: Sequence[str], references: Sequence[Sequence[str]], *, tokenized: bool = False, language: str = "en"
) -> float:
    """METEOR of the corpus, in 0 .. 1. `tokenized=True`: the texts are already words joined by spaces.

    Raises UsageError if the `java` extra is not installed, or METEOR does not know the language.
    """
    check_language(language)
    return meteor_of(Corpus.from_texts(predictions, references, tokenized=tokenized, language=language), language)[0]


def meteor_scores(
    predictions: Sequence[str], references: Sequence[Sequence[str]], *, tokenized: bool = False, language: str = "en"
) -> Float[np.ndarray, " B"]:
    """METEOR of each image. The corpus's METEOR is not their mean."""
    check_language(language)
    return meteor_of(Corpus.from_texts(predictions, references, tokenized=tokenized, language=language), language)[1]


def meteor_of(corpus: Corpus, language: str = "en") -> tuple[float, Float[np.ndarray, " B"]]:
    """METEOR of the corpus and of each image, from this Python process's shared Java process."""
    process = _shared_process(check_language(language))
    try:
        return process.score(corpus)
    except BaseException:  # an interrupted exchange (Ctrl-C) would answer the next corpus with this one's numbers
        process.close()
        _shared_process.cache_clear()
        raise


def check_language(language: object) -> str:
    """The jar's code of a language. Raises UsageError for one that it cannot score."""
    primary = primary_language(language)
    if primary not in LANGUAGES:
        raise UsageError(
            f"METEOR: expected a language of {', '.join(LANGUAGES)}, got {language!r}; omit meteor from the metrics"
        )
    return LANGUAGES[primary]


def require_meteor() -> None:
    """Raises UsageError if METEOR cannot run."""
    java_binary("METEOR")
    folder = pycocoevalcap_folder("meteor", "METEOR")
    if not (folder / _JAR).is_file():
        raise UsageError(f"METEOR needs {folder / _JAR}, which is missing; pip install --force-reinstall pycocoevalcap")


class MeteorProcess:
    """A running METEOR process: SCORE requests return each image's statistics, one EVAL request the scores.

    Close it, or use it in a `with` block; it also ends with the interpreter. Threads may share it. `code` is the jar's
    of a language, see `LANGUAGES`.
    """

    def __init__(self, code: str = "en") -> None:
        require_meteor()
        command = [java_binary("METEOR"), "-Xmx2G", "-jar", _JAR, "-", "-", "-stdio", "-l", code]
        if code == "en":  # pycocoevalcap's setting; it cuts words by English rules
            command.append("-norm")
        # A file, since a pipe that nobody reads would fill up and block the process.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the process)
        self._process = subprocess.Popen(
            command,
            cwd=pycocoevalcap_folder("meteor", "METEOR"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
        )
        self._lock = threading.Lock()
        self._close = weakref.finalize(self, _end, self._process)

    def score(self, corpus: Corpus) -> tuple[float, Float[np.ndarray, " B"]]:
        with self._lock:
            statistics: list[str] = []
            rows = corpus.rows
            for start in range(0, len(rows), _LINES_AT_ONCE):
                requests = [_request(*row) for row in rows[start : start + _LINES_AT_ONCE]]
                self._send(requests)
                statistics += [self._receive() for _ in requests]
            self._send(["EVAL ||| " + " ||| ".join(statistics)])
            scores = [float(self._receive()) for _ in rows]
            return float(self._receive()), np.array(scores)

    def close(self) -> None:
        self._close()

    def __enter__(self) -> "MeteorProcess":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _send(self, lines: list[str]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.writelines(f"{line}\n" for line in lines)
        self._process.stdin.flush()

    def _receive(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise RuntimeError(f"METEOR ended early: {self._errors.read().decode(errors='replace').strip()}")
        return line.strip()


def _request(prediction: str, *references: str) -> str:
    """A request as pycocoevalcap writes it, except that the separator is also removed from references.

    A line break in a text becomes a space, since it would end the request and shift all later images' numbers.
    """
    prediction, *others = (_NOT_IN_A_LINE.sub(" ", text).replace("|||", "") for text in (prediction, *references))
    return " ||| ".join(["SCORE", *others, prediction.replace("  ", " ")])


def _end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


@lru_cache(maxsize=1)
def _shared_process(code: str) -> MeteorProcess:
    return MeteorProcess(code)
