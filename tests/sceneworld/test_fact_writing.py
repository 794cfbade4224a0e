import pytest

from capkit.sceneworld.language.captions import STYLES, caption
from capkit.sceneworld.language.parser import Mention, ParsedCaption, parse
from capkit.sceneworld.language.writing import UnsayableError, signature, write_facts
from capkit.sceneworld.world.scene import WorldOptions, make_scene

OPTIONS = WorldOptions(text_probability=0.3, inside_probability=0.4)


def test_a_small_example_reads_as_written_here():
    facts = parse("a large red circle left of a blue square, on a white background")
    assert write_facts(facts) == (
        "there is a large red circle. there is a blue square. it is to the right of the large red circle. "
        "the background is white."
    )


@pytest.mark.unchecked
@pytest.mark.parametrize("style", [name for name in STYLES if name != "noisy"])
def test_whatever_the_grammar_says_can_be_written_and_reads_as_the_same_facts(style):
    for index in range(150):
        said = caption(make_scene(OPTIONS, 3, "train", index), style, variant=index % 5)
        again = parse(write_facts(parse(said.text)))
        assert not again.unparsed
        assert len(again.facts) == len(said.facts)
        assert signature(again) == signature(parse(said.text))


def test_counts_of_a_shape_are_kept_with_its_mentions():
    facts = parse("two circles and a square")
    assert sorted(parse(write_facts(facts)).facts) == sorted(facts.facts)
    assert "count:circle=2" in facts.facts


def test_look_alikes_are_told_apart_by_being_introduced_together():
    facts = parse("a red circle left of a red circle")
    assert signature(parse(write_facts(facts))) == signature(facts)
    assert signature(parse("a red circle and a red circle")) != signature(facts)


def test_what_no_words_tell_apart_is_refused_rather_than_said_wrongly():
    """Four equal circles, each of which stands left of each later one: "it" is one of them, "the circle" the first."""
    relations = {("left", a, b) for a in range(4) for b in range(a + 1, 4)}
    with pytest.raises(UnsayableError, match="no words"):
        write_facts(ParsedCaption([Mention("circle") for _ in range(4)], relations))


def test_the_signature_forgets_the_order_of_mentions_and_nothing_else():
    one = parse("a red circle left of a blue square")
    assert signature(one) == signature(parse("a blue square right of a red circle"))
    assert signature(one) != signature(parse("a blue square left of a red circle"))
    assert signature(one) != signature(parse("a red circle and a blue square"))
    assert signature(one) != signature(parse("a red circle left of a blue square on a white background"))
