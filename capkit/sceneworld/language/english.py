"""English: the vocabulary of SceneWorld's captions, its parts of speech (Penn tags), and the wordings."""

from capkit.sceneworld.language.facts import PLACES
from capkit.sceneworld.language.grammar import ByNumber, Grammar, Noun, invariable
from capkit.sceneworld.language.lexicon import Lexicon, Phrase, phrases
from capkit.sceneworld.world.options import BACKGROUNDS, COLORS, SHAPES, SIZES

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBER_WORDS = {word: i for i, word in enumerate(NUMBERS) if i} | {str(i): i for i in range(1, 11)}
PLURALS = {shape: {"cross": "crosses"}.get(shape, shape + "s") for shape in SHAPES}

SHAPE_WORDS = {word: shape for shape in SHAPES for word in (shape, PLURALS[shape])}
SHAPE_WORDS |= {"disc": "circle", "discs": "circle", "box": "square", "boxes": "square", "rhombus": "diamond"}
SHAPE_WORDS |= {"crescent": "moon", "crescents": "moon"}
GENERIC_WORDS = {"shape", "shapes", "object", "objects", "thing", "things", "figure", "figures"}
SINGULAR_WORDS = {*SHAPES, "disc", "box", "rhombus", "crescent", "shape", "object", "thing", "figure"}
SIZE_WORDS = {size: size for size in SIZES} | {"big": "large", "huge": "large", "little": "small", "tiny": "small"}
# Any colour word states a colour. One that no object can have is a wrong fact, not an unknown word.
COLOR_WORDS = {color: color for color in (*COLORS, *BACKGROUNDS, "brown")}
COLOR_WORDS |= {"grey": "gray", "violet": "purple", "stripy": "striped"}
ARTICLES = {"a", "an", "the", "another", "this", "that"}

# Phrases by function. Relations are (name, swapped): "X right of Y" states left(Y, X).
_LEFT = ("to the left of", "on the left of", "at the left of", "left of", "on the left side of")
_RIGHT = ("to the right of", "on the right of", "at the right of", "right of", "on the right side of")
_RELATION_PHRASES: dict[tuple[str, bool], tuple[str, ...]] = {
    ("left", False): _LEFT,
    ("left", True): _RIGHT,
    ("above", False): ("above", "over", "on top of"),
    ("above", True): ("below", "under", "underneath", "beneath"),
    ("inside", False): ("inside", "inside of", "within"),
    ("inside", True): ("containing", "contains", "that contains", "around", "surrounding", "holding", "holds"),
}
# Relations to a host named before "with": "X with Y to its right" states left(X, Y).
_HOST_PHRASES: dict[tuple[str, bool], tuple[str, ...]] = {
    ("left", False): ("to its left", "on its left", "at its left"),
    ("left", True): ("to its right", "on its right", "at its right"),
    ("inside", False): ("in it", "in its center", "in its middle"),
}
_TEXT_KEYS = ("word", "letter", "number", "text", "digit")
_TEXT_PHRASES = tuple(f"{article}{key}" for key in _TEXT_KEYS for article in ("", "the ", "a "))
_TEXT_PHRASES += ("the text reads", "the text says", "text that reads", "that reads", "that says", "reads", "says")
_WITH = ("with", "along with", "together with", "has", "that has", "which has", "having")
_PICTURE = tuple(f"{a}{noun}" for noun in ("picture", "image", "photo") for a in ("", "a ", "an ", "the ", "this "))
_FILLERS = (
    "and", "also", "is", "are", "there", "there is", "there are", "which", "which is", "that is", "we see", "you see",
    "i see", "we can see", "this shows", "this is", "shows", "shown", "of", "plus", "plain", "written", "is written",
    "drawn", "seen", "of the picture", "of the image", "in the picture", "in the image", "both",
    *_PICTURE, *(f"{noun} of" for noun in _PICTURE), *(f"{noun} shows" for noun in _PICTURE),
    *(f"{noun} has" for noun in _PICTURE),
)  # fmt: skip


def _all_phrases() -> list[Phrase]:
    found = phrases("filler", _FILLERS) + phrases("with", _WITH) + phrases("text", _TEXT_PHRASES)
    names = {place: place for place in PLACES} | {"middle": "center", "centre": "center", "middle center": "center"}
    for name, place in names.items():
        for preposition in ("in the", "at the", "on the"):
            found += phrases("place", [f"{preposition} {name}{end}" for end in ("", " corner")], place)
        found += phrases("place", (f"at {name}",), place)
    for place in PLACES:
        found += phrases("place", [place] if " " in place else [], place)  # "red circle top left"
    for kind, meanings in (("relation", _RELATION_PHRASES), ("host", _HOST_PHRASES)):
        for (name, swapped), texts in meanings.items():
            found += phrases(kind, texts, name, swapped)
    return found


LEXICON = Lexicon(
    shapes=SHAPE_WORDS,
    sizes=SIZE_WORDS,
    colors=COLOR_WORDS,
    numbers=NUMBER_WORDS,
    generic=frozenset(GENERIC_WORDS),
    singular=frozenset(SINGULAR_WORDS),
    articles=frozenset(ARTICLES),
    definite=frozenset({"the"}),
    pronouns=frozenset({"it"}),
    copulas=frozenset({"is", "are"}),
    conjunctions=frozenset({"and"}),
    background="background",
    background_prepositions=frozenset({"on", "against"}),
    plain=frozenset({"plain"}),
    phrases=tuple(_all_phrases()),
)

_BIG, _LITTLE, _TINY = {"large": "big"}, {"small": "little"}, {"small": "tiny"}
GRAMMAR = Grammar(
    language="en",
    nouns={shape: Noun(shape, plural) for shape, plural in PLURALS.items()} | {"object": Noun("shape", "shapes")},
    adjectives={word: invariable(word) for word in (*SIZE_WORDS, *COLOR_WORDS)},
    indefinite=("a", "a"),
    indefinite_before_vowel="an",
    definite=("the", "the"),
    numbers=tuple((number, number) for number in NUMBERS),
    pronouns=("it", "it"),
    places={place: f"in the {place}" for place in PLACES},
    size_words=({}, _BIG, {}, _BIG | _LITTLE, _TINY),
    short_openers=tuple(
        ByNumber(*words) for words in (("", ""), ("", ""), ("picture of ",) * 2, ("there is ", "there are "), ("", ""))
    ),
    openers=("", "there is ", "picture of ", "we see ", "this shows "),
    inner=(
        "{outer} with {inner} inside",
        "{outer} containing {inner}",
        "{outer} around {inner}",
        "{outer} with {inner} inside {it}",
        "{outer} that contains {inner}",
    ),
    rest=(", along with ", ", and also ", ", plus ", ", and ", ", with "),
    left=("to the left of", "left of", "on the left of", "left of", "right of"),
    above=("above", "above", "over", "above", "below"),
    beside="{first} with {second} to its right",
    below="{first} with {second} below {it}",
    listing=" and ",
    text_tails=(", with {}", " and {}"),
    background_tail=" on a {} background",
    texts={"word": "the word {}", "letter": "the letter {}", "number": "the number {}"},
    counts=tuple(
        ByNumber(*words)
        for words in (
            ("there is {}", "there are {}"),
            ("this picture has {}",) * 2,
            ("we see {}",) * 2,
            ("there is {}", "there are {}"),
            ("this shows {}",) * 2,
        )
    ),
    background="the background is {}",
    there_is="there is {}",
    at_place=("{name} is {place}", "{place} is {name}"),
    contains=("{it} contains {inner}", "there is {inner} inside {it}"),
    relations={"left": ("to the left of", "to the right of"), "above": ("above", "below")},
    related="{first} is {words} {second}",
    written={kind: f"the {kind} {{}} is written" for kind in ("word", "letter", "number")},
    reads="the text reads {}",
)

_TAGS = {
    "DT": "a an the this that another both", "CC": "and plus", "EX": "there",
    "VBZ": "is contains shows reads says has holds", "VBP": "are see", "VBG": "containing surrounding holding having",
    "VBN": "written drawn shown seen", "RB": "also along together", "TO": "to",
    "PRP": "it we you i", "PRP$": "its", "WDT": "which", "MD": "can",
    "IN": "of with in on at above below under over inside within around beneath underneath",
    "JJ": "top bottom middle plain",
    "NN": "left right center corner background picture image photo word letter number text side",
    "CD": " ".join(NUMBERS),
}  # fmt: skip
TAG_OF = {word: tag for tag, words in _TAGS.items() for word in words.split()}
TAG_OF |= {word: "NN" if word in SINGULAR_WORDS else "NNS" for word in (*SHAPE_WORDS, *GENERIC_WORDS)}
TAG_OF |= {word: "JJ" for word in (*SIZE_WORDS, *COLOR_WORDS)}
TAG_OF |= {".": ".", ",": ","}
_LAST_WORDS = {"inside", ".", ",", "and", "it", "is"}


def tag_words(words: list[str]) -> list[str]:
    """Penn part-of-speech tag of each word of a caption.

    Exact for generated captions; unknown words get NN, digits CD, punctuation SYM.
    """
    return [_tag(words, i) for i in range(len(words))]


def _tag(words: list[str], i: int) -> str:
    word = words[i]
    if i and words[i - 1] in ("word", "letter", "number", "reads"):  # drawn text: "the letter a"
        return "CD" if word.isdigit() else "NN"
    if word == "inside" and (i + 1 == len(words) or words[i + 1] in _LAST_WORDS):
        return "IN" if words[i + 1 : i + 2] == ["it"] else "RB"
    if word == "that" and i and TAG_OF.get(words[i - 1], "NN").startswith("NN"):
        return "WDT"
    if word in TAG_OF:
        return TAG_OF[word]
    if not word[0].isalnum():
        return "SYM"
    return "CD" if word.isdigit() else "NN"
