"""SPICE 1.0 (Anderson et al. 2016) through its official jar, which parses with Stanford CoreNLP 3.6.0. English.

B images.
"""

import json
import math
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from capkit.errors import UsageError
from capkit.metrics.coco.corpus import Corpus
from capkit.metrics.coco.java import java_binary, pycocoevalcap_folder
from capkit.utils.renamed import moved_names

__getattr__ = moved_names(__name__)  # Spice is in `collected`

_JAR = "spice-1.0.jar"
_CORENLP = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")


def spice(predictions: Sequence[str], references: Sequence[Sequence[str]], *, tokenized: bool = False) -> float:
    """SPICE of the corpus: mean F-score of the images, in 0 .. 1.

    Raises UsageError if the `java` extra or CoreNLP is not installed.
    """
    return float(np.nanmean(spice_scores(predictions, references, tokenized=tokenized)))


def spice_scores(
    predictions: Sequence[str], references: Sequence[Sequence[str]], *, tokenized: bool = False
) -> Float[np.ndarray, " B"]:
    """SPICE of each image; NaN if the program could not score it."""
    return spice_scores_of(Corpus.from_texts(predictions, references, tokenized=tokenized))


def spice_scores_of(corpus: Corpus) -> Float[np.ndarray, " B"]:
    require_spice()
    request = [{"image_id": index, "test": row[0], "refs": row[1:]} for index, row in enumerate(corpus.rows)]
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder, "in.json"), Path(folder, "out.json")
        source.write_text(json.dumps(request))
        _run(["-Xmx8G", "-jar", _JAR, str(source), "-out", str(result), "-subset", "-silent"])
        answers = json.loads(result.read_text())
    scores = {answer["image_id"]: answer["scores"]["All"]["f"] for answer in answers}
    return np.array([_number(scores[index]) for index in range(len(request))])


def require_spice() -> None:
    """Raises UsageError if SPICE cannot run."""
    java_binary("SPICE")
    folder = pycocoevalcap_folder("spice", "SPICE")
    missing = [name for name in _CORENLP if not (folder / "lib" / name).is_file()]
    if missing:
        raise UsageError(
            f"SPICE needs Stanford CoreNLP 3.6.0, which no pip package contains: {', '.join(missing)} not found in "
            f"{folder / 'lib'}; run `python -m pycocoevalcap.spice.get_stanford_models` (needs network), "
            "or copy the two jars of stanford-corenlp-full-2015-12-09.zip there; or omit spice from metrics"
        )


def _run(arguments: list[str]) -> None:
    command = [java_binary("SPICE"), *arguments]
    done = subprocess.run(command, cwd=pycocoevalcap_folder("spice", "SPICE"), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"SPICE ended with status {done.returncode}: {done.stderr.strip()[-2000:]}")


def _number(value: float | str | None) -> float:
    """A score; the program writes a missing one as null or as text."""
    try:
        return math.nan if value is None else float(value)
    except ValueError:
        return math.nan
