"""Whether the parser finds a reading of a text as a caption: the judge of edited captions."""

from capkit.sceneworld.language.parser import Mention, parse


def is_rejected(text: str) -> bool:
    """Whether no caption can be read here: a word is left over, nothing is named, or a noun has two colours or sizes.

    What is not rejected need not be anything that the grammar writes. Words that carry no fact are accepted anywhere
    ("there a red circle is"), a missing article is no error ("red circle"), and a word may be said twice ("a red red
    circle").
    """
    parsed = parse(text)
    return bool(parsed.unparsed) or not parsed.facts or any(map(_contradicts_itself, parsed.mentions))


def _contradicts_itself(mention: Mention) -> bool:
    kinds = [kind for kind, _ in mention.attributes]
    return len(set(kinds)) < len(kinds)
