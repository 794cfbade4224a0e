import pytest

from capkit.sceneworld.language.acceptance import is_rejected
from capkit.sceneworld.language.captions import references
from capkit.sceneworld.world.scene import WorldOptions, make_scene


@pytest.mark.unchecked
def test_what_the_grammar_writes_is_never_rejected():
    options = WorldOptions(text_probability=0.3)
    for style in ("human", "dense", "short"):
        for index in range(60):
            assert not any(map(is_rejected, references(make_scene(options, 0, "test", index), style)))


@pytest.mark.parametrize(
    ("text", "rejected"),
    [
        ("a red circle left of a blue square", False),
        ("a red circle left of", True),  # a relation to nothing
        ("red a circle", True),  # an adjective without its noun
        ("circle blue of red a left square a", True),
        ("a red blue circle", True),  # two colours
        ("a large small circle", True),
        ("a red circle and a zebra", True),
        ("and there is", True),  # names nothing
        ("", True),
        ("red circle", False),  # lenient: no article
        ("a red red circle", False),  # said twice
        ("there a red circle is", False),  # words without a fact stand anywhere
        ("a blue circle left of a blue square", False),  # another colour is as good
    ],
)
def test_edits_without_a_reading_are_rejected(text, rejected):
    assert is_rejected(text) == rejected
