"""One caption for all views of an object: what most of their captions say."""

import json
from collections import Counter

from capkit.llm.base import Answer
from capkit.sceneworld.chat.sections import Sections
from capkit.sceneworld.language.parser import Mention, ParsedCaption, parse
from capkit.sceneworld.language.writing import write_facts


def agreed(given: Sections) -> Answer:
    """[frequencies], a JSON list of [frequency, caption]: the plurality of each kind of fact about the one object.

    A caption votes with its frequency, for its shape and for each attribute that it states; of equal ones the first
    wins. Captions of several objects, or of none, have no vote. Raises UnsayableError as `write_facts` does.
    """
    votes: dict[str, Counter[str]] = {}
    for frequency, text in json.loads(given["frequencies"]):
        mentions = parse(text).mentions
        if len(mentions) == 1:
            (mention,) = mentions
            shape = [] if mention.shape is None else [("shape", mention.shape)]
            for kind, value in [*shape, *sorted(mention.attributes)]:
                votes.setdefault(kind, Counter())[value] += frequency
    if not votes:
        return Answer(None, "no caption is about one object of SceneWorld")
    first = {kind: counted.most_common(1)[0][0] for kind, counted in votes.items()}
    thing = Mention(first.pop("shape", None), set(first.items()))
    return Answer(f"<Caption>{write_facts(ParsedCaption([thing]))}</Caption>")
