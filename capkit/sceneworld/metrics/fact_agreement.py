"""Agreement of SceneWorld texts with their references: the F1 of the facts that both state."""

from capkit.sceneworld.language.oracles import count_matches
from capkit.sceneworld.language.parser import parse


def fact_f1(text: str, reference: str) -> float:
    """F1 of the facts of a text against those of a reference, their objects matched one-to-one as best as possible.

    Texts without any fact agree only if they are equal.
    """
    one, other = parse(text), parse(reference)
    num_facts = len(one.facts) + len(other.facts)
    if not num_facts:
        return float(text == reference)
    shared, _ = count_matches(one, frozenset(other.facts), frozenset(), len(other.mentions))
    return 2 * shared / num_facts


class FactAgreement:
    """`fact_f1` of each text with the reference that it agrees with best; needs no scene."""

    def __call__(self, predictions: list[str], references: list[list[str]]) -> list[float]:
        return [
            max(fact_f1(text, reference) for reference in texts)
            for text, texts in zip(predictions, references, strict=True)
        ]
