import pytest

from capkit.errors import UsageError
from capkit.metrics.coco.corpus import Corpus


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([], [], "predictions: expected at least one, got none"),
        (["a", "b"], [["c"]], "got 2 predictions and 1 lists of references"),
        (["a"], ["a reference"], r"references\[0\]: expected a list of texts, got str"),
        (["a", "b"], [["c"], []], r"references\[1\]: expected at least one text, got none"),
    ],
)
def test_wrong_input_is_a_usage_error(predictions, references, message):
    with pytest.raises(UsageError, match=message):
        Corpus.from_texts(predictions, references, tokenized=True)


def test_rows_hold_the_prediction_and_its_references():
    corpus = Corpus.from_texts(["A cat.", "dogs"], [["One!"], ["two", "three"]])
    assert corpus.rows == [["a cat", "one"], ["dogs", "two", "three"]]
