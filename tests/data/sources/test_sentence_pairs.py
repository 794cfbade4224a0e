import pytest

from capkit.data.sources.sentence_pairs import ScoredPair, read_pairs
from capkit.errors import UsageError


def written(folder, name, *lines):
    (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(folder / name)


def test_score_sentence_sentence(tmp_path):
    path = written(tmp_path, "a.tsv", '4.5\ta "dog"\ta hound', "", "0\tone\ttwo")
    assert read_pairs(path) == [ScoredPair('a "dog"', "a hound", 4.5), ScoredPair("one", "two", 0.0)]


def test_the_benchmark_file_with_further_columns(tmp_path):
    line = 'main-captions\tMSRvid\t2012test\t0001\t2.500\tA man eats.\tA "man" eats'
    path = written(tmp_path, "sts-dev.csv", line, f"{line}\tlicence\tsource")
    assert read_pairs(path) == [ScoredPair("A man eats.", 'A "man" eats', 2.5)] * 2


def test_sick_by_its_header(tmp_path):
    path = written(
        tmp_path,
        "SICK.txt",
        "pair_ID\tsentence_A\tsentence_B\tentailment_label\trelatedness_score",
        "1\tA dog\tA cat\tNEUTRAL\t3.4",
        "2\tA dog\tA dog\tENTAILMENT\t5",
    )
    assert read_pairs(path) == [ScoredPair("A dog", "A cat", 3.4), ScoredPair("A dog", "A dog", 5.0)]


def test_inputs_with_their_gold_standard_and_without_a_score_for_some(tmp_path):
    path = written(tmp_path, "STS.input.images.txt", "a\tb", "c\td", "e\tf\tsource")
    written(tmp_path, "STS.gs.images.txt", "1.0", "", "3")
    assert read_pairs(path) == [ScoredPair("a", "b", 1.0), ScoredPair("e", "f", 3.0)]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["1\ta\tb", "two\ta\tb"], "line 2 has 'two' where the score should be"),
        (["1\ta\tb", "nan\ta\tb"], "line 2 has 'nan'"),
        (["1\ta\tb", "1\ta\tb\tc"], "line 2 has 4 columns"),
        (["a\tb", "c\td"], "no scores; put its STS.gs file beside it"),
        ([], "is empty"),
        (["1\ta\tb"], "has 1 scored pairs"),
        (["x\trelatedness_score\tsentence_A"], "line 1 has no column 'sentence_B'"),
        (["sentence_A\tsentence_B\trelatedness_score", "a\tb"], "line 2 has 2 columns"),
    ],
)
def test_anything_else_is_an_error_with_its_line(tmp_path, lines, message):
    with pytest.raises(UsageError, match=message):
        read_pairs(written(tmp_path, "a.tsv", *lines))


def test_missing_files_and_gold_standards_of_another_length(tmp_path):
    with pytest.raises(UsageError, match="no file"):
        read_pairs(str(tmp_path / "none"))
    written(tmp_path, "STS.gs.x.txt", "1")
    with pytest.raises(UsageError, match=r"has 2 pairs and .* 1 scores"):
        read_pairs(written(tmp_path, "STS.input.x.txt", "a\tb", "c\td"))
