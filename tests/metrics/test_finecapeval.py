import pytest

from capkit.errors import UsageError
from capkit.metrics.finecapeval import FineCapEval, phrase_recall, read_finecapeval, stems

CSV = r"""image,caption,background,object,relation
one.jpg,A man rides.,Grassy hills\;a cloudy sky,a man\;brown horses,riding a horse
one.jpg,A rider.,hills,horse,sits on
two.jpg,A car.,street,red car,parked on
three.jpg,No background.,,tree,next to
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "FineCapEval.csv"
    path.write_text(CSV)
    return str(path)


def _score(file, captions, **kwargs):
    keys = list(captions)
    return FineCapEval(file, **kwargs).score(
        list(captions.values()), [[] for _ in keys], [{"key": key} for key in keys]
    )


def test_phrases_are_split_at_backslash_semicolon_and_rows_with_a_gap_are_left_out(file):
    assert read_finecapeval(file) == {
        "one": {
            "background": [["grassi", "hill"], ["a", "cloudi", "sky"], ["hill"]],
            "object": [["a", "man"], ["brown", "hors"], ["hors"]],
            "relation": [["ride", "a", "hors"], ["sit", "on"]],
        },
        "two": {"background": [["street"]], "object": [["red", "car"]], "relation": [["park", "on"]]},
    }


def test_recall_is_the_mean_over_phrases_of_the_words_held():
    # "a man": both; "brown hors": one of two, the caption's stem of horse being hors
    assert phrase_recall("The man has a horse.", [["a", "man"], ["brown", "hors"]]) == pytest.approx((1 + 1 / 2) / 2)
    assert phrase_recall("anything", []) == 0


def test_words_match_whole_stems_and_legacy_matches_inside_words():
    assert phrase_recall("a carpet", [["car"]]) == 0
    assert phrase_recall("a carpet", [["car"]], legacy=True) == 1


def test_changed_endings_match_by_stem_and_not_in_legacy():
    assert phrase_recall("two ponies", [["poni"]]) == 1
    assert phrase_recall("a pony", [["poni"]]) == 1
    assert phrase_recall("a pony", [["poni"]], legacy=True) == 0  # the published program does not stem the caption
    assert phrase_recall("Hills", [["hill"]]) == 1
    assert phrase_recall("HILLS", [["hill"]], legacy=True) == 0  # nor lower its case


def test_numbers_are_means_over_the_captioned_images(file):
    numbers = _score(file, {"one": "a man riding a horse", "two.jpg": "a red carpet on the street"})
    assert numbers == {
        "finecapeval_images": 2,
        "finecapeval_background": pytest.approx((1 / 3 / 3 + 1) / 2),  # "a" of "a cloudi sky"; street
        "finecapeval_object": pytest.approx(((1 + 1 / 2 + 1) / 3 + 1 / 2) / 2),
        "finecapeval_relation": pytest.approx(((1 + 0) / 2 + 1 / 2) / 2),
    }
    assert _score(file, {"two": "a red carpet on the street"}, legacy=True)["finecapeval_object"] == 1


def test_state_gives_the_same_numbers(file):
    metric = FineCapEval(file)
    metric.update(["a man riding a horse"], [[]], [{"key": "one"}])
    metric.update(["a red carpet on the street"], [[]], [{"key": "two"}])
    assert metric.compute() == _score(file, {"one": "a man riding a horse", "two": "a red carpet on the street"})


def test_several_captions_of_an_image_all_count_and_a_repeated_one_once(file):
    rows = ["street", "a red car", "a red car"], [[], [], []], [{"key": "two"}] * 3
    numbers = FineCapEval(file).score(*rows)
    assert numbers["finecapeval_images"] == 1
    assert numbers["finecapeval_object"] == pytest.approx((0 + 1) / 2)


def test_stems_drop_signs():
    assert stems("A man's T-shirt, (blue)!") == ["a", "man", "s", "tshirt", "blue"]


def test_an_image_that_the_file_lacks_is_an_error(file):
    with pytest.raises(UsageError, match="'nine'"):
        _score(file, {"nine": "a man"})


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UsageError, match="must be FineCapEval"):
        FineCapEval(str(tmp_path / "missing.csv"))
    (tmp_path / "other.csv").write_text("image,caption\na.jpg,text\n")
    with pytest.raises(UsageError, match="lacks background, object, relation"):
        FineCapEval(str(tmp_path / "other.csv"))
