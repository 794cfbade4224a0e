"""What SceneWorld's exact models answer to the prompts of claims, of verifiers and of OpenCHAIR."""

import json
import re
from collections.abc import Callable, Sequence

from capkit.llm.base import Answer
from capkit.sceneworld.chat.sections import Sections
from capkit.sceneworld.language.asking import seen
from capkit.sceneworld.language.claims import claims_in
from capkit.sceneworld.language.languages import lexicon_of
from capkit.sceneworld.language.parser import parse
from capkit.sceneworld.language.verifying import matches, verdicts
from capkit.sceneworld.world.scene import Scene

_NUMBER = re.compile(r"^\d+\. ")


def claim_list(given: Sections) -> Answer:
    """The claims of [text]."""
    rows = [{"claim": text, "seen": is_seen} for text, is_seen in claims_in(given["text"])]
    return Answer(json.dumps({"claims": rows}))


def matched(given: Sections) -> Answer:
    """For each of the [claims] its number among the [facts], or 0."""
    found = matches(_lines(given["claims"]), _lines(given["facts"]))
    return _by_number([0 if place is None else place + 1 for place in found])


def judged_list(given: Sections) -> Answer:
    """A verdict on each of the [claims] by the [reference]."""
    return _by_number(verdicts(_lines(given["claims"]), parse(given["reference"]), is_all=False))


def judged(given: Sections) -> Answer:
    """The verdict on the [claim] by the [reference]."""
    return Answer(verdicts([given["claim"]], parse(given["reference"]), is_all=False)[0])


def has_object(given: Sections) -> Answer:
    """Whether the [reference] names the [object]; unsure about what is no object of SceneWorld."""
    shapes = lexicon_of("en").shapes
    wanted = shapes.get(given["object"])
    if wanted is None:
        return Answer("unsure")
    return Answer("yes" if wanted in {mention.shape for mention in parse(given["reference"]).mentions} else "no")


def seen_truth(given: Sections, scene: Scene) -> str:
    """true or false for the [claim], or each of the [claims], by what is seen."""
    claims = _lines(given["claims"]) if "claims" in given else [given["claim"]]
    labels = verdicts(claims, seen(scene), is_all=True)
    words = ["true" if label == "entailed" else "false" for label in labels]
    return words[0] if "claim" in given else str(_by_number(words).text)


ASKED_OF_TEXTS: dict[frozenset[str], Callable[[Sections], Answer]] = {
    frozenset({"text"}): claim_list,
    frozenset({"claims", "facts"}): matched,
    frozenset({"reference", "claims"}): judged_list,
    frozenset({"reference", "claim"}): judged,
    frozenset({"reference", "object"}): has_object,
}


def _lines(text: str) -> list[str]:
    return [_NUMBER.sub("", line) for line in text.splitlines()]


def _by_number(values: Sequence[int | str]) -> Answer:
    return Answer(json.dumps({str(number): value for number, value in enumerate(values, 1)}))
