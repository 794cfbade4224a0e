"""Whether the parser can read a text as a caption; used to judge edited captions."""

from capkit.sceneworld.language.parser import Mention, parse


def is_rejected(text: str, language: str = "en") -> bool:
    """Whether a text is no caption: a word is left over, there is no fact, or a noun has two colours or sizes.

    Accepted texts need not be ones that the grammar generates: words without facts may be anywhere ("there a red circle
    is"), articles may be missing ("red circle"), and words may be repeated ("a red red circle").
    """
    parsed = parse(text, language)
    return bool(parsed.unparsed) or not parsed.facts or any(map(_contradicts_itself, parsed.mentions))


def _contradicts_itself(mention: Mention) -> bool:
    kinds = [kind for kind, _ in mention.attributes]
    return len(set(kinds)) < len(kinds)
