"""Generate captions of a scene in four styles, each with exactly known facts.

A plan determines the facts; a style, its variant and a grammar determine the words. So the five references of a scene
state the same facts in five ways, in every language. Objects are named in the scene's order: column by column from the
left.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from capkit.errors import UsageError, check_choice
from capkit.sceneworld.language import facts as fact
from capkit.sceneworld.language.english import GRAMMAR as ENGLISH
from capkit.sceneworld.language.english import tag_words
from capkit.sceneworld.language.grammar import Description, Grammar, TextKind
from capkit.sceneworld.language.lexicon import words_of
from capkit.sceneworld.language.noise import noisy_caption
from capkit.sceneworld.language.plan import STYLES, Detail, Plan, definite, describe, make_plan
from capkit.sceneworld.language.questions import Question as Question
from capkit.sceneworld.language.questions import questions as questions
from capkit.sceneworld.world.scene import Scene

NUM_VARIANTS = 5


@dataclass(frozen=True)
class Caption:
    """A caption, the facts that it states (in the form of `facts.py`), and its words; of English ones, Penn tags."""

    text: str
    facts: tuple[str, ...]
    style: str
    variant: int
    language: str = "en"

    @cached_property
    def words(self) -> list[str]:
        return words_of(self.text)

    @cached_property
    def tags(self) -> list[str]:
        if self.language != "en":
            raise UsageError(f"parts of speech are known of English captions; got {self.language}; use data=sceneworld")
        return tag_words(self.words)


# short: a list of the objects ---------------------------------------------------------------------------------------


def listed(groups: Sequence[tuple[int, Description]], variant: int, grammar: Grammar = ENGLISH) -> str:
    """Text of style short for (count, description) in order: two of ("circle", "red") are "two red circles"."""
    parts = []
    for count, thing in groups:
        if count > 1:
            parts.append(grammar.counted(thing, count))
        else:
            parts.append(grammar.bare(thing) if variant == 1 else grammar.a(thing))
    opener = grammar.short_openers[variant]
    text = (opener.many if groups[0][0] > 1 else opener.one) + (
        ", ".join(parts) if variant in (1, 4) else grammar.joined(parts)
    )
    return grammar.finished(text)


def _short(plan: Plan, variant: int, grammar: Grammar) -> str:
    return listed(plan.groups, variant, grammar) + _tail(plan, variant, grammar)


def _tail(plan: Plan, variant: int, grammar: Grammar) -> str:
    """Phrases about drawn text and background, if the plan states them."""
    tail = ""
    if plan.detail.text and plan.scene.text is not None:
        word = plan.scene.text.word
        tail += grammar.text_tails[variant % 2].format(grammar.texts[_text_kind(word)].format(word))
    if plan.detail.background:
        tail += grammar.background_tail.format(grammar.background_word(plan.scene.background))
    return tail


def _text_kind(word: str) -> TextKind:
    return "number" if word.isdigit() else "letter" if len(word) == 1 else "word"


# human: the first two objects with their relation, then the rest ------------------------------------------------------


def _noun_phrase(plan: Plan, index: int, variant: int, grammar: Grammar) -> str:
    """Noun phrase of an object with its place and the object inside it."""
    item, thing = plan.objects[index], describe(plan.objects[index], plan.detail)
    text = grammar.a(thing, variant)
    if plan.detail.place and not (plan.detail.inside and item.inside is not None):
        text += f" {grammar.places[fact.PLACES[item.cell]]}"
    if index in plan.inner:
        inner = _noun_phrase(plan, plan.inner[index], variant, grammar)
        text = grammar.inner[variant].format(outer=text, inner=inner, it=grammar.it(thing))
    return text


def _human(plan: Plan, variant: int, grammar: Grammar) -> str:
    phrases = {i: _noun_phrase(plan, i, variant, grammar) for i in plan.outer}
    text = grammar.openers[variant]
    if not plan.relations:
        text += grammar.joined([phrases[i] for i in plan.outer])
    else:
        relation, first, second = plan.relations[0]
        has_host = variant == 3 and first not in plan.inner and second not in plan.inner
        say = _second_by_the_first if has_host else _pair
        text += say(plan, variant, relation, (first, second), phrases, grammar)
        rest = [phrases[i] for i in plan.outer if i not in (first, second)]
        if rest:
            # No comma after "to its right" and "below it", which refer only to their own noun.
            text += (grammar.listing if has_host else grammar.rest[variant]) + grammar.joined(rest)
    return grammar.finished(text) + _tail(plan, variant, grammar)


def _second_by_the_first(
    plan: Plan, variant: int, relation: str, pair: tuple[int, int], phrases: dict[int, str], grammar: Grammar
) -> str:
    """ "a circle with a square to its right"."""
    first, second = (phrases[i] for i in pair)
    it = grammar.it(describe(plan.objects[pair[0]], plan.detail))
    return (grammar.beside if relation == "left" else grammar.below).format(first=first, second=second, it=it)


def _pair(
    plan: Plan, variant: int, relation: str, pair: tuple[int, int], phrases: dict[int, str], grammar: Grammar
) -> str:
    """ "a circle to the left of a square"."""
    first, second = pair
    words = (grammar.left if relation == "left" else grammar.above)[variant]
    subject, target = (second, first) if variant == 4 else (first, second)
    # After "... with a star inside", the comma makes the outer object the subject, and not the star.
    comma = "," if subject in plan.inner else ""
    return f"{phrases[subject]}{comma} {words} {phrases[target]}"


# dense: one sentence per fact --------------------------------------------------------------------------------------


def _dense(plan: Plan, variant: int, grammar: Grammar) -> str:
    sentences = _intro(plan, variant, grammar)
    for index in plan.outer:
        sentences += _object_sentences(plan, index, variant, grammar)
    sentences += _relation_sentences(plan, variant, grammar)
    sentences = [grammar.finished(sentence) for sentence in sentences]
    if plan.detail.text and plan.scene.text is not None:
        word = plan.scene.text.word
        sentences.append((grammar.written[_text_kind(word)] if variant < 3 else grammar.reads).format(word))
    return " ".join(f"{sentence}." for sentence in sentences)


def _intro(plan: Plan, variant: int, grammar: Grammar) -> list[str]:
    count, background = len(plan.scene.objects), grammar.background_word(plan.scene.background)
    if not plan.detail.count:
        return [grammar.background.format(background)] if plan.detail.background else []
    template = grammar.counts[variant].one if count == 1 else grammar.counts[variant].many
    sentence = template.format(grammar.counted(Description("object"), count))
    if not plan.detail.background:
        return [sentence]
    if variant < 3:
        return [sentence + grammar.background_tail.format(background)]
    return [sentence, grammar.background.format(background)]


def _object_sentences(plan: Plan, index: int, variant: int, grammar: Grammar) -> list[str]:
    item, thing = plan.objects[index], describe(plan.objects[index], plan.detail)
    name = grammar.a(thing, variant)
    if not plan.detail.place:
        sentences = [grammar.there_is.format(name)]
    else:
        place = grammar.places[fact.PLACES[item.cell]]
        sentences = [grammar.at_place[variant % 2].format(name=name, place=place)]
    if index in plan.inner:
        inner = grammar.a(describe(plan.objects[plan.inner[index]], plan.detail), variant)
        sentences.append(grammar.contains[variant % 2].format(inner=inner, it=grammar.it(thing)))
    return sentences


def _relation_sentences(plan: Plan, variant: int, grammar: Grammar) -> list[str]:
    by_pair: dict[tuple[int, int], list[tuple[str, bool]]] = {}
    for relation, a, b in plan.relations:
        by_pair.setdefault((min(a, b), max(a, b)), []).append((relation, a > b))
    sentences = []
    for (a, b), said in by_pair.items():
        backwards = variant in (2, 4)
        words = [grammar.relations[relation][swapped != backwards] for relation, swapped in said]
        pair = (b, a) if backwards else (a, b)
        first, second = (_the(plan, i, grammar) for i in pair)
        sentences.append(grammar.related.format(first=first, words=grammar.listing.join(words), second=second))
    return sentences


def _the(plan: Plan, index: int, grammar: Grammar) -> str:
    thing = definite(plan.objects, index, plan.detail)
    assert thing is not None  # the plan has relations of such pairs only
    return grammar.the(thing)


# ----------------------------------------------------------------------------------------------------------------------

_WRITERS: dict[str, Callable[[Plan, int, Grammar], str]] = {"short": _short, "human": _human, "dense": _dense}


def _check(style: str, variant: int, detail: Detail, grammar: Grammar = ENGLISH) -> None:
    check_choice("style", style, STYLES)
    if not 0 <= variant < NUM_VARIANTS:
        raise UsageError(f"variant must lie in 0 .. {NUM_VARIANTS - 1}; got {variant}")
    if style == "noisy" and grammar.language != "en":
        raise UsageError(f"style noisy is web English; got {grammar.language}; use style short, human or dense")
    if style in ("short", "noisy") and (detail.relations or detail.inside or detail.place):
        raise UsageError(f"style {style} has no words for relations, inside and place; use style human or dense")
    if style == "human" and (detail.relations > 1 or detail.count):
        raise UsageError("style human states at most one relation and no count; use style dense")
    if style in ("short", "noisy") and detail.count:
        raise UsageError(f"style {style} has no words for the count of all shapes; use style dense")


def caption(
    scene: Scene,
    style: str,
    variant: int = 0,
    seed: int = 0,
    detail: Detail | None = None,
    grammar: Grammar = ENGLISH,
) -> Caption:
    """Generate a caption of the scene.

    Args:
        style: short (colours and shapes), human (all attributes, one relation), dense (a sentence per fact) or noisy
            (web alt-text with dropped, wrong or garbled words, boilerplate and unrelated text).
        variant: 0 .. 4, five wordings of the same facts.
        seed: of the noise; used by style noisy only.
        detail: which facts to state; by default `STYLES[style]`.
        grammar: of `capkit.sceneworld.language.languages.GRAMMARS`.

    Raises:
        UsageError: an unknown style or variant, a detail that the style cannot express, or noise in another language
            than English.
    """
    detail = STYLES.get(style, Detail()) if detail is None else detail
    _check(style, variant, detail, grammar)
    if style == "noisy":
        text, facts = noisy_caption(scene, variant, seed, detail.num_objects, detail.color, detail.size)
        return Caption(text, facts, style, variant)
    plan = make_plan(scene, style, detail)
    return Caption(_WRITERS[style](plan, variant, grammar), plan.facts(), style, variant, grammar.language)


def references(
    scene: Scene, style: str = "human", detail: Detail | None = None, grammar: Grammar = ENGLISH
) -> list[str]:
    """The five captions of a style, which state the same facts, as references."""
    return [item.text for item in reference_captions(scene, style, detail, grammar)]


def stated_facts(scene: Scene, style: str = "human", detail: Detail | None = None) -> tuple[str, ...]:
    """The facts that the five captions of a style state (not noisy: there each states its own), in any language."""
    detail = STYLES.get(style, Detail()) if detail is None else detail
    _check(style, 0, detail)
    return make_plan(scene, style, detail).facts()


def reference_captions(
    scene: Scene, style: str = "human", detail: Detail | None = None, grammar: Grammar = ENGLISH
) -> list[Caption]:
    """Like `references`, with facts and tags; the facts are computed once for all five."""
    detail = STYLES.get(style, Detail()) if detail is None else detail
    _check(style, 0, detail, grammar)
    if style == "noisy":
        return [caption(scene, style, variant, detail=detail) for variant in range(NUM_VARIANTS)]
    plan = make_plan(scene, style, detail)
    facts = plan.facts()
    return [Caption(_WRITERS[style](plan, v, grammar), facts, style, v, grammar.language) for v in range(NUM_VARIANTS)]
