"""Generate captions of a scene in four styles, each with exactly known facts.

A plan determines the facts; a style and its variant determine the words. So the five references of a scene state the
same facts in five ways. Objects are named in the scene's order: column by column from the left.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from capkit.errors import UsageError, did_you_mean
from capkit.sceneworld.language import facts as fact
from capkit.sceneworld.language.lexicon import NUMBERS, PLURALS, tag_words, words_of
from capkit.sceneworld.language.noise import noisy_caption
from capkit.sceneworld.language.plan import STYLES, Detail, Plan, definite, describe, make_plan
from capkit.sceneworld.language.questions import Question as Question
from capkit.sceneworld.language.questions import questions as questions
from capkit.sceneworld.world.scene import Scene

NUM_VARIANTS = 5


@dataclass(frozen=True)
class Caption:
    """A caption, the facts that it states (in the form of `facts.py`), and its words with Penn tags."""

    text: str
    facts: tuple[str, ...]
    style: str
    variant: int

    @cached_property
    def words(self) -> list[str]:
        return words_of(self.text)

    @cached_property
    def tags(self) -> list[str]:
        return tag_words(self.words)


def _with_article(description: str) -> str:
    return f"an {description}" if description[0] in "aeiou" else f"a {description}"


def _listing(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


# short: a list of the objects ---------------------------------------------------------------------------------------


def _group_text(count: int, description: str, article: bool) -> str:
    if count == 1:
        return _with_article(description) if article else description
    noun = description.rsplit(" ", 1)[-1]
    return f"{NUMBERS[count]} {description[: -len(noun)]}{PLURALS[noun]}"


def listed(groups: Sequence[tuple[int, str]], variant: int) -> str:
    """Text of style short for (count, description) in order: (2, "red circle") is "two red circles"."""
    parts = [_group_text(count, description, article=variant != 1) for count, description in groups]
    opener = ("", "", "picture of ", "there is ", "")[variant]
    if variant == 3 and groups[0][0] > 1:
        opener = "there are "
    return opener + (", ".join(parts) if variant in (1, 4) else _listing(parts))


def _short(plan: Plan, variant: int) -> str:
    return listed(plan.groups, variant) + _tail(plan, variant)


def _tail(plan: Plan, variant: int) -> str:
    """Phrases about drawn text and background, if the plan states them."""
    tail = ""
    if plan.detail.text and plan.scene.text is not None:
        tail += f"{' and' if variant % 2 else ', with'} {_text_phrase(plan.scene.text.word)}"
    if plan.detail.background:
        tail += f" on a {plan.scene.background} background"
    return tail


def _text_phrase(word: str) -> str:
    kind = "number" if word.isdigit() else "letter" if len(word) == 1 else "word"
    return f"the {kind} {word}"


# human: the first two objects with their relation, then the rest ------------------------------------------------------

_OPENERS = ("", "there is ", "picture of ", "we see ", "this shows ")
_BIG, _LITTLE, _TINY = {"large": "big"}, {"small": "little"}, {"small": "tiny"}
_SIZE_WORDS: tuple[dict[str, str], ...] = ({}, _BIG, {}, _BIG | _LITTLE, _TINY)
_INNER = ("{} with {} inside", "{} containing {}", "{} around {}", "{} with {} inside it", "{} that contains {}")
_REST = (", along with ", ", and also ", ", plus ", ", and ", ", with ")
_LEFT_WORDS = ("to the left of", "left of", "on the left of", "left of", "right of")
_ABOVE_WORDS = ("above", "above", "over", "above", "below")


def _noun_phrase(plan: Plan, index: int, variant: int) -> str:
    """Noun phrase of an object with its place and the object inside it."""
    item = plan.objects[index]
    text = _with_article(describe(item, plan.detail, _SIZE_WORDS[variant]))
    if plan.detail.place and not (plan.detail.inside and item.inside is not None):
        text += f" in the {fact.PLACES[item.cell]}"
    if index in plan.inner:
        text = _INNER[variant].format(text, _noun_phrase(plan, plan.inner[index], variant))
    return text


def _human(plan: Plan, variant: int) -> str:
    phrases = {i: _noun_phrase(plan, i, variant) for i in plan.outer}
    if not plan.relations:
        return _OPENERS[variant] + _listing([phrases[i] for i in plan.outer]) + _tail(plan, variant)
    relation, first, second = plan.relations[0]
    text = _OPENERS[variant] + _pair(plan, variant, relation, (first, second), phrases)
    rest = [phrases[i] for i in plan.outer if i not in (first, second)]
    if rest:
        # No comma after "to its right" and "below it", which refer only to their own noun.
        text += (" and " if text.endswith(("its right", "below it")) else _REST[variant]) + _listing(rest)
    return text + _tail(plan, variant)


def _pair(plan: Plan, variant: int, relation: str, pair: tuple[int, int], phrases: dict[int, str]) -> str:
    first, second = pair
    if variant == 3 and first not in plan.inner and second not in plan.inner:
        where = "to its right" if relation == "left" else "below it"
        return f"{phrases[first]} with {phrases[second]} {where}"
    words = (_LEFT_WORDS if relation == "left" else _ABOVE_WORDS)[variant]
    subject, target = (second, first) if variant == 4 else (first, second)
    # After "... with a star inside", the comma makes the outer object the subject, and not the star.
    comma = "," if subject in plan.inner else ""
    return f"{phrases[subject]}{comma} {words} {phrases[target]}"


# dense: one sentence per fact --------------------------------------------------------------------------------------


def _dense(plan: Plan, variant: int) -> str:
    sentences = _intro(plan, variant)
    for index in plan.outer:
        sentences += _object_sentences(plan, index, variant)
    sentences += _relation_sentences(plan, variant)
    if plan.detail.text and plan.scene.text is not None:
        sentences.append(f"{_text_phrase(plan.scene.text.word)} is written" if variant < 3 else _reads(plan))
    return " ".join(f"{sentence}." for sentence in sentences)


def _reads(plan: Plan) -> str:
    assert plan.scene.text is not None
    return f"the text reads {plan.scene.text.word}"


def _intro(plan: Plan, variant: int) -> list[str]:
    count, background = len(plan.scene.objects), plan.scene.background
    verb, noun = ("is", "shape") if count == 1 else ("are", "shapes")
    number = f"{NUMBERS[count]} {noun}"
    if not plan.detail.count:
        return [f"the background is {background}"] if plan.detail.background else []
    opener = (f"there {verb} ", "this picture has ", "we see ", f"there {verb} ", "this shows ")[variant]
    if not plan.detail.background:
        return [opener + number]
    if variant < 3:
        return [f"{opener}{number} on a {background} background"]
    return [opener + number, f"the background is {background}"]


def _object_sentences(plan: Plan, index: int, variant: int) -> list[str]:
    item = plan.objects[index]
    name = _with_article(describe(item, plan.detail, _SIZE_WORDS[variant]))
    if not plan.detail.place:
        sentences = [f"there is {name}"]
    else:
        place = f"in the {fact.PLACES[item.cell]}"
        sentences = [f"{name} is {place}" if variant % 2 == 0 else f"{place} is {name}"]
    if index in plan.inner:
        inner = _with_article(describe(plan.objects[plan.inner[index]], plan.detail, _SIZE_WORDS[variant]))
        sentences.append(f"it contains {inner}" if variant % 2 == 0 else f"there is {inner} inside it")
    return sentences


def _relation_sentences(plan: Plan, variant: int) -> list[str]:
    by_pair: dict[tuple[int, int], list[tuple[str, bool]]] = {}
    for relation, a, b in plan.relations:
        by_pair.setdefault((min(a, b), max(a, b)), []).append((relation, a > b))
    sentences = []
    for (a, b), said in by_pair.items():
        backwards = variant in (2, 4)
        words = [_relation_words(relation, swapped != backwards) for relation, swapped in said]
        first, second = (b, a) if backwards else (a, b)
        names = [definite(plan.objects, i, plan.detail) for i in (first, second)]
        sentences.append(f"{names[0]} is {' and '.join(words)} {names[1]}")
    return sentences


def _relation_words(relation: str, swapped: bool) -> str:
    return {"left": ("to the left of", "to the right of"), "above": ("above", "below")}[relation][swapped]


# ----------------------------------------------------------------------------------------------------------------------

_WRITERS: dict[str, Callable[[Plan, int], str]] = {"short": _short, "human": _human, "dense": _dense}


def _check(style: str, variant: int, detail: Detail) -> None:
    if style not in STYLES:
        raise UsageError(f"style must be one of {tuple(STYLES)}; got {style!r}; {did_you_mean(style, STYLES)}")
    if not 0 <= variant < NUM_VARIANTS:
        raise UsageError(f"variant must lie in 0 .. {NUM_VARIANTS - 1}; got {variant}")
    if style in ("short", "noisy") and (detail.relations or detail.inside or detail.place):
        raise UsageError(f"style {style} has no words for relations, inside and place; use style human or dense")
    if style == "human" and (detail.relations > 1 or detail.count):
        raise UsageError("style human states at most one relation and no count; use style dense")
    if style in ("short", "noisy") and detail.count:
        raise UsageError(f"style {style} has no words for the count of all shapes; use style dense")


def caption(scene: Scene, style: str, variant: int = 0, seed: int = 0, detail: Detail | None = None) -> Caption:
    """Generate a caption of the scene.

    Args:
        style: short (colours and shapes), human (all attributes, one relation), dense (a sentence per fact) or noisy
            (web alt-text with dropped, wrong or garbled words, boilerplate and unrelated text).
        variant: 0 .. 4, five wordings of the same facts.
        seed: of the noise; used by style noisy only.
        detail: which facts to state; by default `STYLES[style]`.

    Raises:
        UsageError: an unknown style or variant, or a detail that the style cannot express.
    """
    detail = STYLES.get(style, Detail()) if detail is None else detail
    _check(style, variant, detail)
    if style == "noisy":
        text, facts = noisy_caption(scene, variant, seed, detail.num_objects, detail.color, detail.size)
        return Caption(text, facts, style, variant)
    plan = make_plan(scene, style, detail)
    return Caption(_WRITERS[style](plan, variant), plan.facts(), style, variant)


def references(scene: Scene, style: str = "human", detail: Detail | None = None) -> list[str]:
    """The five captions of a style, which state the same facts, as references."""
    return [item.text for item in reference_captions(scene, style, detail)]


def stated_facts(scene: Scene, style: str = "human", detail: Detail | None = None) -> tuple[str, ...]:
    """The facts that the five captions of a style state (not noisy: there each states its own)."""
    detail = STYLES.get(style, Detail()) if detail is None else detail
    _check(style, 0, detail)
    return make_plan(scene, style, detail).facts()


def reference_captions(scene: Scene, style: str = "human", detail: Detail | None = None) -> list[Caption]:
    """Like `references`, with facts and tags; the facts are computed once for all five."""
    detail = STYLES.get(style, Detail()) if detail is None else detail
    if style == "noisy":
        return [caption(scene, style, variant, detail=detail) for variant in range(NUM_VARIANTS)]
    _check(style, 0, detail)
    plan = make_plan(scene, style, detail)
    facts = plan.facts()
    return [Caption(_WRITERS[style](plan, v), facts, style, v) for v in range(NUM_VARIANTS)]
