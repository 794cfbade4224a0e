"""Portuguese captions: both dialects say the facts of the English ones, and one parser reads them back."""

import hashlib
import json
import unicodedata
from dataclasses import replace
from itertools import product

import pytest
from fact_helpers import parses_exactly
from hypothesis import given, settings
from hypothesis import strategies as st

from capkit.errors import UsageError
from capkit.sceneworld.language import english, portuguese
from capkit.sceneworld.language.captions import NUM_VARIANTS, caption, reference_captions
from capkit.sceneworld.language.generic import generic_captions
from capkit.sceneworld.language.grammar import Description
from capkit.sceneworld.language.languages import GRAMMARS
from capkit.sceneworld.language.oracles import score_caption
from capkit.sceneworld.language.parser import parse
from capkit.sceneworld.language.plan import STYLES
from capkit.sceneworld.language.regions import RegionTexts
from capkit.sceneworld.language.word_for_word import translate
from capkit.sceneworld.metrics.chair import SceneChair
from capkit.sceneworld.metrics.fact_kinds import FactKinds
from capkit.sceneworld.metrics.facts import fact_scores
from capkit.sceneworld.sources.generic_captions import GenericCaptions
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.sceneworld.world.options import BACKGROUNDS, COLORS, SHAPES, SIZES, WorldOptions
from capkit.sceneworld.world.scene import Scene, SceneObject, SceneText, make_scene

DIALECTS = ("native", "literal")
READ_STYLES = ("short", "human", "dense")
# Drawn words that Portuguese writes as contractions or articles must stay themselves.
WORDS = ("do", "no", "a", "o", "e", "um", "da", "7", "42", "sol")
WORLDS = {
    "default": WorldOptions(),
    "all": WorldOptions(shapes=SHAPES, sizes=tuple(SIZES), text_probability=0.4, words=WORDS, holdout=()),
    "many alike": WorldOptions(
        shapes=SHAPES[:3], colors=("red", "blue"), max_objects=6, inside_probability=0.6, holdout=()
    ),
    "one": WorldOptions(max_objects=1, inside_probability=0.0),
}
PAIR = Scene(
    (SceneObject("star", "red", "large", 1 / 6, 1 / 6), SceneObject("square", "orange", "small", 5 / 6, 0.5)),
    "white",
    SceneText("sol", 0.5, 5 / 6),
)
EXPECTED = {
    ("native", "short", 0): "uma estrela vermelha e um quadrado laranja",
    ("literal", "short", 0): "um vermelho estrela e um alaranjado quadrado",
    ("native", "human", 0): (
        "uma estrela vermelha grande à esquerda de um quadrado laranja pequeno, com a palavra sol"
    ),
    ("literal", "human", 0): (
        "um grande vermelho estrela para o esquerda de um pequeno alaranjado quadrado, com o palavra sol"
    ),
    ("native", "human", 3): (
        "vemos uma estrela vermelha enorme com um quadrado laranja pequenino à direita dela e a palavra sol"
    ),
    ("native", "dense", 0): (
        "há duas formas em um fundo branco. uma estrela vermelha grande está no canto superior esquerdo. um "
        "quadrado laranja pequeno está no lado direito. a estrela vermelha está à esquerda e acima do quadrado "
        "laranja. a palavra sol está escrita."
    ),
    ("literal", "dense", 0): (
        "lá são dois formatos sobre um branco fundo. um grande vermelho estrela é em o topo esquerda. um pequeno "
        "alaranjado quadrado é em o meio direita. o vermelho estrela é para o esquerda de e acima o alaranjado "
        "quadrado. o palavra sol é escrito."
    ),
}


@pytest.mark.parametrize(("dialect", "style", "variant"), EXPECTED)
def test_captions_read_as_expected(dialect: str, style: str, variant: int) -> None:
    item = caption(PAIR, style, variant, grammar=GRAMMARS[dialect])
    assert item.text == EXPECTED[dialect, style, variant] and item.language == "pt-BR"


def first_failure(world: str, dialect: str, seed: int, count: int) -> str:
    """The first caption of a world's scenes that does not parse back to what the English one states, or nothing."""
    for index in range(count):
        scene = make_scene(WORLDS[world], seed, "train", index)
        for style in READ_STYLES:
            stated = reference_captions(scene, style)[0].facts
            for item in reference_captions(scene, style, grammar=GRAMMARS[dialect]):
                if item.facts != stated or not parses_exactly(item.text, stated, len(scene.objects), "pt-BR"):
                    return f"{item.text!r} does not say {stated}"
    return ""


@pytest.mark.unchecked
@pytest.mark.parametrize("count", [15, pytest.param(2000, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("world", WORLDS)
def test_every_caption_parses_back_to_exactly_the_facts_of_the_english_one(
    world: str, dialect: str, count: int
) -> None:
    assert first_failure(world, dialect, 0, count) == ""


FLAGS = st.fixed_dictionaries({name: st.booleans() for name in ("color", "size", "background", "text")})


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from(sorted(WORLDS)),
    st.sampled_from(DIALECTS),
    FLAGS,
    st.integers(1, 6),
    st.data(),
)
def test_every_level_of_detail_parses_back(
    index: int, world: str, dialect: str, flags: dict, number: int, data: st.DataObject
) -> None:
    scene = make_scene(WORLDS[world], 2, "train", index)
    style = data.draw(st.sampled_from(READ_STYLES))
    detail = replace(STYLES[style], num_objects=number, **flags)
    if style != "short":
        relations = data.draw(st.integers(0, 1 if style == "human" else 5))
        detail = replace(detail, place=data.draw(st.booleans()), inside=data.draw(st.booleans()), relations=relations)
    variant = data.draw(st.integers(0, NUM_VARIANTS - 1))
    item = caption(scene, style, variant, detail=detail, grammar=GRAMMARS[dialect])
    assert parses_exactly(item.text, item.facts, min(number, len(scene.objects)), "pt-BR"), (item.text, item.facts)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_five_references_differ_in_words(dialect: str) -> None:
    for index in range(40):
        scene = make_scene(WORLDS["default"], 0, "train", index)
        assert len({item.text for item in reference_captions(scene, "human", grammar=GRAMMARS[dialect])}) == 5


def test_native_nouns_take_their_articles_adjectives_and_numbers_in_agreement() -> None:
    """Gender by dictionary: estrela, cruz, lua and forma are feminine; the rest is masculine."""
    feminine = {"star", "cross", "moon"}
    for shape in SHAPES:
        end = "a" if shape in feminine else "o"
        one = portuguese.NATIVE.a(Description(shape, "red", "small"))
        assert one.split()[0] == ("uma" if shape in feminine else "um")
        assert one.split()[2:] == [f"vermelh{end}", f"pequen{end}"]
        two = portuguese.NATIVE.counted(Description(shape, "yellow", "large"), 2).split()
        assert two[0] == ("duas" if shape in feminine else "dois")
        assert two[1].endswith("s") and two[2:] == [f"amarel{end}s", "grandes"]
    assert portuguese.NATIVE.counted(Description("heart", "blue"), 3) == "três corações azuis"
    assert portuguese.NATIVE.counted(Description("square", "orange"), 2) == "dois quadrados laranja"  # invariable


def test_literal_captions_have_a_word_for_each_english_word_in_its_place() -> None:
    for index, style in product(range(40), READ_STYLES):
        scene = make_scene(WORLDS["default"], 0, "val", index)
        pairs = zip(
            reference_captions(scene, style), reference_captions(scene, style, grammar=GRAMMARS["literal"]), strict=True
        )
        for item, literal in pairs:
            assert literal.text == translate(item.text, portuguese.WORDS)
            assert len(literal.words) == len(item.words)


def test_the_dialects_give_no_word_two_meanings() -> None:
    """A word of both dialects means the same in both, and every word that either writes is known."""
    table, native = portuguese.WORDS, portuguese.NATIVE
    for shape in SHAPES:
        for word in (native.nouns[shape].singular, native.nouns[shape].plural):
            assert portuguese.LEXICON.shapes[word] == shape
        for word in (shape, english.PLURALS[shape]):
            assert portuguese.LEXICON.shapes[table[word]] == shape
    for color in (*COLORS, *BACKGROUNDS):
        assert {portuguese.LEXICON.colors[form] for form in (*native.adjectives[color], table[color])} == {color}
    for size in SIZES:
        assert {portuguese.LEXICON.sizes[form] for form in (*native.adjectives[size], table[size])} == {size}


@pytest.mark.parametrize(
    ("text", "facts", "unparsed"),
    [
        ("um círculo vermelho grande", ["shape:0=circle", "color:0=red", "size:0=large"], []),
        ("um grande vermelho círculo", ["shape:0=circle", "color:0=red", "size:0=large"], []),
        ("um grande círculo vermelho", ["shape:0=circle", "color:0=red", "size:0=large"], []),
        ("UM CÍRCULO VERMELHO", ["shape:0=circle", "color:0=red"], []),
        (unicodedata.normalize("NFD", "dois corações"), ["shape:0=heart", "shape:1=heart", "count:heart=2"], []),
        ("uma estrela vermelho", ["shape:0=star", "color:0=red"], []),  # agreement is not asked for
        ("duas formas", ["count:object=2"], []),
        ("uma única forma", ["count:object=1"], []),
        ("uma forma", [], []),
        ("um quadrado no centro", ["shape:0=square", "place:0=center"], []),
        ("num fundo cinza uma lua", ["shape:0=moon", "background=gray"], []),
        ("o fundo é listrado", ["background=striped"], []),
        ("o círculo é grande e azul", ["shape:0=circle", "color:0=blue", "size:0=large"], []),
        ("a letra a", ["text=a"], []),
        ("a palavra do e um quadrado", ["shape:0=square", "text=do"], []),
        ("um cão no círculo", ["shape:0=circle"], ["um", "cão", "no"]),
        ("no canto superior esquerdo", [], ["no", "canto", "superior", "esquerdo"]),
        ("vermelho grande", [], ["vermelho", "grande"]),
        ("a red circle", [], ["a", "red", "circle"]),
    ],
)  # fmt: skip
def test_rules_by_hand(text: str, facts: list[str], unparsed: list[str]) -> None:
    parsed = parse(text, "pt-BR")
    assert (parsed.facts, parsed.unparsed) == (facts, unparsed)


@pytest.mark.parametrize(
    ("text", "relations"),
    [
        ("um círculo à esquerda de uma estrela", {("left", 0, 1)}),
        ("um círculo à direita da estrela", {("left", 1, 0)}),
        ("um círculo para o direita de um estrela", {("left", 1, 0)}),
        ("o círculo está à esquerda e abaixo da estrela", {("left", 0, 1), ("above", 1, 0)}),
        ("um círculo com uma estrela dentro", {("inside", 1, 0)}),
        ("um círculo com uma estrela dentro dele", {("inside", 1, 0)}),
        ("um círculo. há uma estrela dentro dele", {("inside", 1, 0)}),
        ("um círculo com uma estrela à direita dele", {("left", 0, 1)}),
        ("um círculo com um estrela para seu direita", {("left", 0, 1)}),
        ("uma estrela dentro de um círculo", {("inside", 0, 1)}),
        ("um círculo em volta de uma estrela", {("inside", 1, 0)}),
        ("um círculo com uma estrela dentro, à esquerda de uma lua", {("inside", 1, 0), ("left", 0, 2)}),
    ],
)
def test_relations_by_hand(text: str, relations: set[tuple[str, int, int]]) -> None:
    parsed = parse(text, "pt-BR")
    assert parsed.relations == relations and not parsed.unparsed


SALAD = [*portuguese.WORDS.values(), *portuguese.CONTRACTIONS, "à", ",", ".", "zzz"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(SALAD), max_size=25))
def test_word_salad_is_read_without_failing_and_no_word_is_invented(words: list[str]) -> None:
    parsed = parse(" ".join(words), "pt-BR")
    assert all(parsed.unparsed.count(word) <= words.count(word) for word in parsed.unparsed)


def test_english_captions_are_as_they_were_before_there_were_dialects() -> None:
    """A digest of 1,500 captions, computed before grammars were data."""
    digest = hashlib.sha256()
    for world in ("default", "many alike"):
        for index in range(30):
            scene = make_scene(WORLDS[world], 0, "train", index)
            for style in STYLES:
                for item in reference_captions(scene, style):
                    digest.update(f"{item.text}|{';'.join(item.facts)}\n".encode())
            digest.update("\n".join(generic_captions(scene, 0.5, 0.2, 1, 0.3, 0.3)).encode())
    assert digest.hexdigest()[:16] == "6f05526134991c40"


def source(dialect: str | None, split: str = "val", **more) -> SceneWorld:
    return SceneWorld(split, 6, size=32, dialect=dialect, **more)


def test_a_dialect_changes_nothing_but_the_captions() -> None:
    for split in ("train", "val", "test", "holdout"):
        for index in range(6):
            rows = {dialect: source(dialect, split).record(index) for dialect in GRAMMARS}
            facts = {json.dumps([row.metadata["scene"], row.metadata["stated_facts"]]) for row in rows.values()}
            assert len(facts) == 1 and len({row.key for row in rows.values()}) == 1
            assert len({row.captions[0].text for row in rows.values()}) == 3
            assert (source("literal", split).image(index) == source(None, split).image(index)).all()


def test_records_say_their_language_and_english_ones_are_as_they_were() -> None:
    native, plain = source("native").record(0), source(None).record(0)
    assert {item.language for item in native.captions} == {native.metadata["language"]} == {"pt-BR"}
    assert {item.language for item in plain.captions} == {"en"} and set(plain.metadata) == {"scene", "stated_facts"}


def test_fingerprints_and_caches_tell_dialects_apart(tmp_path) -> None:
    sources = [source(dialect, cache_dir=str(tmp_path)) for dialect in GRAMMARS]
    assert len({item.fingerprint() for item in sources}) == 3
    for item in sources:
        before = item.record(3)
        item.prepare()
        assert item.record(3) == before
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("dialect", DIALECTS)
def test_fact_metrics_and_the_judge_read_the_language_of_the_record(dialect: str) -> None:
    rows = [source(dialect).record(index) for index in range(6)]
    texts = [row.captions[0].text for row in rows]
    metadata = [json.loads(json.dumps(row.metadata)) for row in rows]
    assert fact_scores(texts, metadata)["fact_f1"] == 1.0
    kinds = FactKinds(["shape", "color", "size"])
    kinds.update(texts, [[] for _ in texts], metadata)
    assert set(kinds.compute().values()) == {1.0}
    chair = SceneChair()
    chair.update(texts, [[] for _ in texts], metadata)
    assert chair.compute()["scene_chair_i_color"] == 0.0 and chair.compute()["scene_chair_recall"] == 1.0
    assert not any(source(dialect).is_rejected(text) for text in texts)
    assert source(dialect).is_rejected("a red circle") and source(None).is_rejected(texts[0])
    english = [{name: value for name, value in row.items() if name != "language"} for row in metadata]
    assert fact_scores(texts, english)["fact_f1"] < 0.2  # the control: Portuguese read as English


@pytest.mark.parametrize("style", READ_STYLES)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_captions_of_the_mirror_image_state_its_facts(dialect: str, style: str) -> None:
    """Control: captions that stay as they are miss facts of the mirror image, where any has a side."""
    world, lost = SceneWorld("val", 12, size=32, dialect=dialect, style=style), 0
    for index in range(12):
        record = world.record(index)
        mirrored = world.mirrored(record)
        assert mirrored is not None
        for old, new in zip(record.captions, mirrored.captions, strict=True):
            scores = fact_scores([new.text, old.text], [mirrored.metadata] * 2)
            lost += scores["fact_f1"] < 1
            assert fact_scores([new.text], [mirrored.metadata])["fact_f1"] == 1
    assert (lost == 0) == (style == "short")


def test_generic_captions_are_in_the_language_of_their_source() -> None:
    small = source("native", style="short", options=WorldOptions(max_objects=2, inside_probability=0.0))
    record = GenericCaptions(small, dropped=0.0, background=1.0).record(0)
    assert record.captions[0].language == "pt-BR" and " em um fundo " in record.captions[0].text
    scene = Scene.from_dict(record.metadata["scene"])
    for item in record.captions:
        assert score_caption(scene, item.text, record.metadata["stated_facts"], "pt-BR").f1 == 1.0


def test_what_is_not_portuguese_is_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'literal'"):
        source("literall")
    with pytest.raises(UsageError, match="web English"):
        source("native", style="noisy")
    with pytest.raises(UsageError, match="texts of regions are in English"):
        source("native", regions=RegionTexts())
    with pytest.raises(UsageError, match="web English"):
        caption(PAIR, "noisy", grammar=portuguese.NATIVE)
    with pytest.raises(UsageError, match="parts of speech"):
        _ = caption(PAIR, "human", grammar=portuguese.NATIVE).tags
    with pytest.raises(UsageError, match="got captions in 'de'"):
        parse("ein Kreis", "de")
