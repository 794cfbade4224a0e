"""IBM model 1: by hand, by enumeration of every alignment, and on captions whose word table is known."""

import random
from collections import Counter, defaultdict
from itertools import product

import pytest

from capkit.errors import UsageError
from capkit.sceneworld.language.captions import references
from capkit.sceneworld.language.languages import GRAMMARS
from capkit.sceneworld.language.lexicon import words_of
from capkit.sceneworld.language.portuguese import WORDS
from capkit.sceneworld.world.options import COLORS, SHAPES, WorldOptions
from capkit.sceneworld.world.scene import make_scene
from capkit.text.word_alignment import EMPTY, translation_probabilities, word_table

PAIRS = [
    (["das", "Haus"], ["the", "house"]),
    (["das", "Buch"], ["the", "book"]),
    (["ein", "Buch"], ["a", "book"]),
]


def test_the_first_iteration_by_hand():
    # Each word of a translation is a third from each of the two words and the empty one.
    found = translation_probabilities(PAIRS, iterations=1)
    assert found["das"] == pytest.approx({"the": 2 / 4, "house": 1 / 4, "book": 1 / 4})
    assert found["ein"] == pytest.approx({"a": 1 / 2, "book": 1 / 2})
    assert found[EMPTY] == pytest.approx({"the": 2 / 6, "house": 1 / 6, "book": 2 / 6, "a": 1 / 6})


def test_more_iterations_find_the_translations():
    assert word_table(PAIRS, 20) == {"das": "the", "Haus": "house", "Buch": "book", "ein": "a"}


def naive(pairs, iterations):
    """Expected counts as sums over all alignments of each pair, weighted by their probability."""
    t = defaultdict(lambda: 1.0)
    for _ in range(iterations):
        counts = defaultdict(Counter)
        for source, target in pairs:
            words = [EMPTY, *source]
            weights = {}
            for alignment in product(range(len(words)), repeat=len(target)):
                weight = 1.0
                for f, place in zip(target, alignment, strict=True):
                    weight *= t[words[place], f]
                weights[alignment] = weight
            whole = sum(weights.values())
            for alignment, weight in weights.items():
                for f, place in zip(target, alignment, strict=True):
                    counts[words[place]][f] += weight / whole
        t = defaultdict(float, {(e, f): n / sum(c.values()) for e, c in counts.items() for f, n in c.items()})
    return t


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_equal_to_the_sum_over_every_alignment(iterations):
    draw = random.Random(iterations)
    pairs = [
        (draw.choices("abcd", k=draw.randint(1, 3)), draw.choices("vwxyz", k=draw.randint(1, 4))) for _ in range(6)
    ]
    found, expected = translation_probabilities(pairs, iterations), naive(pairs, iterations)
    assert {(e, f) for e, words in found.items() for f in words} == set(expected)
    for (e, f), value in expected.items():
        assert found[e][f] == pytest.approx(value), (e, f)
    assert all(sum(words.values()) == pytest.approx(1) for words in found.values())


def test_the_order_of_pairs_does_not_matter():
    shuffled = random.Random(0).sample(PAIRS, len(PAIRS))
    one, other = translation_probabilities(PAIRS), translation_probabilities(shuffled)
    assert all(one[e] == pytest.approx(other[e]) for e in one)


def scene_pairs(count):
    """English short captions of scenes beside the literal ones."""
    scenes = [make_scene(WorldOptions(max_objects=3, holdout=()), 0, "train", index) for index in range(count)]
    texts = [(references(s, "short")[0], references(s, "short", grammar=GRAMMARS["literal"])[0]) for s in scenes]
    return [(words_of(first), words_of(other)) for first, other in texts]


def test_the_table_of_the_literal_dialect_is_found_from_captions():
    """Control: captions beside those of other scenes."""
    pairs = scene_pairs(150)
    wanted = {word: WORDS[word] for word in (*SHAPES[:6], *COLORS)}

    def found(pairs):
        table = word_table(pairs)
        return sum(table[word] == other for word, other in wanted.items()) / len(wanted)

    assert found(pairs) == 1
    others = [other for _, other in pairs]
    assert found(list(zip([first for first, _ in pairs], others[1:] + others[:1], strict=True))) < 0.5


def test_no_pairs_are_refused():
    with pytest.raises(UsageError, match="got 0 pairs"):
        word_table([])
