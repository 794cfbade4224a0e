"""Brazilian Portuguese in two dialects: native, and word for word from the English wordings.

Native captions agree in gender and number, have their adjectives behind the noun and join preposition and article ("no
canto superior esquerdo"). Literal ones are `english.GRAMMAR` with each word looked up in WORDS: English order, no
agreement, no contraction, and the table's choice of words. One lexicon reads both, and mixtures.
"""

from itertools import chain

from capkit.sceneworld.language import english
from capkit.sceneworld.language.grammar import ByNumber, Forms, Grammar, Noun, invariable
from capkit.sceneworld.language.lexicon import Lexicon, Phrase, phrases
from capkit.sceneworld.language.word_for_word import translated, translated_grammar

CONTRACTIONS = {
    "do": ("de", "o"), "da": ("de", "a"), "no": ("em", "o"), "na": ("em", "a"), "dum": ("de", "um"),
    "duma": ("de", "uma"), "num": ("em", "um"), "numa": ("em", "uma"), "dele": ("de", "ele"), "dela": ("de", "ela"),
    "nele": ("em", "ele"), "nela": ("em", "ela"),
}  # fmt: skip
_WRITTEN = ("do", "da", "no", "na", "dele", "dela", "nele", "nela")  # "de um" is as usual as "dum"


def _agreeing(stem: str) -> Forms:
    return (f"{stem}o", f"{stem}a", f"{stem}os", f"{stem}as")


def _one_gender(singular: str, plural: str) -> Forms:
    return (singular, singular, plural, plural)


_NOUNS = {
    "circle": Noun("círculo", "círculos"),
    "square": Noun("quadrado", "quadrados"),
    "triangle": Noun("triângulo", "triângulos"),
    "diamond": Noun("losango", "losangos"),
    "star": Noun("estrela", "estrelas", is_feminine=True),
    "cross": Noun("cruz", "cruzes", is_feminine=True),
    "heart": Noun("coração", "corações"),
    "moon": Noun("lua", "luas", is_feminine=True),
}
_SHAPE = Noun("forma", "formas", is_feminine=True)
_COLORS = {
    "red": _agreeing("vermelh"),
    "orange": invariable("laranja"),
    "yellow": _agreeing("amarel"),
    "green": _one_gender("verde", "verdes"),
    "cyan": invariable("ciano"),
    "blue": _one_gender("azul", "azuis"),
    "purple": _agreeing("rox"),
    "pink": invariable("rosa"),
    "white": _agreeing("branc"),
    "gray": invariable("cinza"),
    "black": _agreeing("pret"),
    "striped": _agreeing("listrad"),
    "brown": _one_gender("marrom", "marrons"),
}
_SIZES = {
    "small": _agreeing("pequen"),
    "medium": _agreeing("médi"),
    "large": _one_gender("grande", "grandes"),
}
_SIZE_SYNONYMS = {
    "huge": ("large", _one_gender("enorme", "enormes")),
    "little": ("small", _agreeing("pequenin")),
    "tiny": ("small", _agreeing("minúscul")),
}
_NUMBERS = (
    ("zero", "zero"), ("um único", "uma única"), ("dois", "duas"), *((word, word) for word in (
        "três", "quatro", "cinco", "seis", "sete", "oito", "nove", "dez",
    )),
)  # fmt: skip
_PLACES = {
    "top left": "em o canto superior esquerdo",
    "middle left": "em o lado esquerdo",
    "bottom left": "em o canto inferior esquerdo",
    "top center": "em a parte superior",
    "center": "em o centro",
    "bottom center": "em a parte inferior",
    "top right": "em o canto superior direito",
    "middle right": "em o lado direito",
    "bottom right": "em o canto inferior direito",
}
_HUGE, _LITTLE, _TINY = {"large": "huge"}, {"small": "little"}, {"small": "tiny"}

NATIVE = Grammar(
    language="pt-BR",
    nouns={**_NOUNS, "object": _SHAPE},
    adjectives={**_COLORS, **_SIZES, **{word: forms for word, (_, forms) in _SIZE_SYNONYMS.items()}},
    indefinite=("um", "uma"),
    definite=("o", "a"),
    numbers=_NUMBERS,
    pronouns=("ele", "ela"),
    places=_PLACES,
    size_words=({}, _HUGE, {}, _HUGE | _LITTLE, _TINY),
    short_openers=tuple(ByNumber(text, text) for text in ("", "", "imagem de ", "há ", "")),
    openers=("", "há ", "imagem de ", "vemos ", "a imagem mostra "),
    inner=(
        "{outer} com {inner} dentro",
        "{outer} contendo {inner}",
        "{outer} em volta de {inner}",
        "{outer} com {inner} dentro de {it}",
        "{outer} que contém {inner}",
    ),
    rest=(", junto com ", ", e também ", ", além de ", ", e ", ", com "),
    left=("à esquerda de", "à esquerda de", "de o lado esquerdo de", "à esquerda de", "à direita de"),
    above=("acima de", "acima de", "por cima de", "acima de", "abaixo de"),
    beside="{first} com {second} à direita de {it}",
    below="{first} com {second} abaixo de {it}",
    listing=" e ",
    text_tails=(", com {}", " e {}"),
    background_tail=" em um fundo {}",
    texts={"word": "a palavra {}", "letter": "a letra {}", "number": "o número {}"},
    counts=tuple(
        ByNumber(text, text) for text in ("há {}", "esta imagem tem {}", "vemos {}", "há {}", "isto mostra {}")
    ),
    background="o fundo é {}",
    there_is="há {}",
    at_place=("{name} está {place}", "{place} está {name}"),
    contains=("{it} contém {inner}", "há {inner} dentro de {it}"),
    relations={"left": ("à esquerda", "à direita"), "above": ("acima", "abaixo")},
    related="{first} está {words} de {second}",
    written={
        "word": "a palavra {} está escrita",
        "letter": "a letra {} está escrita",
        "number": "o número {} está escrito",
    },
    reads="o texto diz {}",
    adjectives_follow=True,
    contractions={word: CONTRACTIONS[word] for word in _WRITTEN},
)

# What a dictionary gives for each word by itself. "One" and "a" would be "um": "único" keeps the count apart.
WORDS = {
    # nouns
    "circle": "círculo", "circles": "círculos", "disc": "disco", "discs": "discos", "square": "quadrado",
    "squares": "quadrados", "box": "caixa", "boxes": "caixas", "triangle": "triângulo", "triangles": "triângulos",
    "diamond": "diamante", "diamonds": "diamantes", "rhombus": "rombo", "star": "estrela", "stars": "estrelas",
    "cross": "cruz", "crosses": "cruzes", "heart": "coração", "hearts": "corações", "moon": "lua", "moons": "luas",
    "crescent": "crescente", "crescents": "crescentes", "shape": "formato", "shapes": "formatos", "object": "objeto",
    "objects": "objetos", "thing": "coisa", "things": "coisas", "figure": "figura", "figures": "figuras",
    "background": "fundo", "picture": "retrato", "image": "imagem", "photo": "foto", "word": "palavra",
    "letter": "letra", "number": "número", "text": "texto", "digit": "dígito", "corner": "canto", "side": "lado",
    # adjectives
    "red": "vermelho", "orange": "alaranjado", "yellow": "amarelo", "green": "verde", "cyan": "ciano", "blue": "azul",
    "purple": "púrpura", "violet": "violeta", "pink": "cor-de-rosa", "white": "branco", "gray": "cinzento",
    "grey": "cinzento", "black": "negro", "striped": "riscado", "stripy": "riscado", "brown": "castanho",
    "small": "pequeno", "medium": "médio", "large": "grande", "big": "grande", "huge": "enorme", "little": "pouco",
    "tiny": "minúsculo", "plain": "liso", "top": "topo", "middle": "meio", "bottom": "base", "left": "esquerda",
    "right": "direita", "center": "centro", "centre": "centro",
    # numbers, articles, pronouns
    "zero": "zero", "one": "único", "two": "dois", "three": "três", "four": "quatro", "five": "cinco", "six": "seis",
    "seven": "sete", "eight": "oito", "nine": "nove", "ten": "dez", "a": "um", "an": "um", "the": "o",
    "another": "outro", "this": "este", "that": "que", "it": "ele", "its": "seu", "we": "nós", "you": "você", "i": "eu",
    "which": "qual", "both": "ambos",
    # verbs
    "is": "é", "are": "são", "see": "vemos", "can": "pode", "shows": "mostra", "shown": "mostrado",
    "written": "escrito", "drawn": "desenhado", "seen": "visto", "has": "tem", "having": "tendo", "contains": "contém",
    "containing": "contendo", "surrounding": "cercando", "holding": "segurando", "holds": "segura", "reads": "lê",
    "says": "diz",
    # the rest
    "there": "lá", "and": "e", "also": "também", "of": "de", "plus": "mais", "with": "com", "along": "junto",
    "together": "juntos", "to": "para", "on": "sobre", "in": "em", "at": "a", "above": "acima", "over": "por-cima",
    "below": "abaixo", "under": "debaixo", "underneath": "debaixo", "beneath": "debaixo", "inside": "dentro",
    "within": "dentro", "around": "ao-redor", "against": "contra",
}  # fmt: skip
LITERAL = translated_grammar(english.GRAMMAR, WORDS, language="pt-BR")


def _forms(words: dict[str, Forms]) -> dict[str, str]:
    return {form: meaning for meaning, forms in words.items() for form in forms}


def _native_phrases() -> list[Phrase]:
    pictures = [f"{article}{noun}" for noun in ("imagem", "figura", "foto") for article in ("", "a ", "uma ", "esta ")]
    fillers = (
        "e", "também", "é", "são", "está", "estão", "há", "de", "que", "que é", "que está", "vemos", "se vê", "vê-se",
        "isto mostra", "isto é", "mostra", "além de", "mais", "escrito", "escrita", "está escrito", "está escrita",
        *(f"{noun}{end}" for noun in pictures for end in ("", " de", " mostra", " tem", " é")),
    )  # fmt: skip
    found = phrases("filler", fillers) + phrases("with", ("com", "junto com", "tem", "que tem"))
    keys = ("a palavra", "a letra", "o número", "o texto", "palavra", "letra", "número", "texto")
    found += phrases("text", (*keys, "uma palavra", "uma letra", "um número", "o texto diz", "que diz", "diz"))
    for place, text in _PLACES.items():
        found += phrases("place", (text,), place)
    for swapped, side, edge in ((False, "esquerda", "esquerdo"), (True, "direita", "direito")):
        left = (f"à {side} de", f"à {side}", f"a a {side} de", f"de o lado {edge} de", f"ao lado {edge} de")
        found += phrases("relation", left, "left", swapped)
    found += phrases("relation", ("acima de", "acima", "por cima de", "em cima de"), "above")
    found += phrases("relation", ("abaixo de", "abaixo", "embaixo de", "debaixo de", "sob"), "above", swapped=True)
    found += phrases("relation", ("dentro de", "dentro"), "inside")
    around = ("em volta de", "em torno de", "ao redor de", "contendo", "contém", "que contém")
    return found + phrases("relation", around, "inside", swapped=True) + phrases("host", ("em ele", "em ela"), "inside")


def _lexicon() -> Lexicon:
    """The words of the native grammar, and those that WORDS gives for the English lexicon."""
    literal = translated(english.LEXICON, WORDS)
    nouns = {word: shape for shape, noun in _NOUNS.items() for word in (noun.singular, noun.plural)}
    sizes = _forms(_SIZES) | {word: size for size, forms in _SIZE_SYNONYMS.values() for word in forms}
    numbers = {word: number for number, words in enumerate(_NUMBERS[2:], 2) for word in words}
    return Lexicon(
        shapes={**literal.shapes, **nouns},
        sizes={**literal.sizes, **sizes},
        colors={**literal.colors, **_forms(_COLORS)},
        numbers={**literal.numbers, **numbers, "única": 1},
        generic=literal.generic | {_SHAPE.singular, _SHAPE.plural},
        singular=literal.singular | {noun.singular for noun in (*_NOUNS.values(), _SHAPE)},
        articles=literal.articles - {"que"} | {"uma", "a", "os", "as", "outra", "esta", "essa", "esse"},
        definite=literal.definite | {"a", "os", "as"},
        pronouns=literal.pronouns | {"ela"},
        copulas=literal.copulas | {"está", "estão"},
        conjunctions=literal.conjunctions,
        background=literal.background,
        background_prepositions=literal.background_prepositions | {"em"},
        plain=literal.plain | {"lisa"},
        phrases=tuple(chain(literal.phrases, _native_phrases())),
        contractions=CONTRACTIONS,
        adjectives_follow=True,
    )


LEXICON = _lexicon()
