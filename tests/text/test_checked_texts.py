import jaxtyping
import numpy as np
import pytest

from capkit.errors import UsageError
from capkit.metrics import bleu, cider, ptb_tokenize, rouge_l
from capkit.metrics.chair import chair
from capkit.metrics.coco.bleu import bleu_scores
from capkit.metrics.coco.cider import cider_scores
from capkit.metrics.coco.document_frequencies import DocumentFrequencies
from capkit.metrics.coco.meteor import meteor, meteor_scores
from capkit.metrics.coco.rouge import rouge_l_scores
from capkit.metrics.coco.spice import spice, spice_scores
from capkit.metrics.degeneration import sample_numbers
from capkit.metrics.diversity import distinct, div, has_bad_ending, repetition
from capkit.metrics.self_cider import cider_kernel
from capkit.text.normalize import normalize, normalize_all
from capkit.text.ptb import ptb_words

METRICS = (bleu, bleu_scores, cider, cider_scores, rouge_l, rouge_l_scores, meteor, meteor_scores, spice, spice_scores)
GTS, RES = {1: ["one plate"], 2: ["the bird"]}, {1: ["a plate"], 2: ["a bird"]}
REFERENCES = [["one plate"], ["the bird"]]


@pytest.fixture(autouse=True)
def _without_type_checks(monkeypatch):
    """As users call them: the checks of annotations, which only tests make, would speak first."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.__name__)
@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (RES, GTS, r"predictions: expected a list of texts, got dict .*predictions = \[res\[i\]\[0\] for i in gts\]"),
        (
            ["a plate", "a bird"],
            GTS,
            r"references: expected a list of lists of texts, got dict .*gts\[i\] for i in gts",
        ),
        (
            [["a plate"], ["a bird"]],
            REFERENCES,
            r"predictions\[0\]: expected a text, got list \['a plate'\]; .*captions",
        ),
        (["a plate", {"caption": "a bird"}], REFERENCES, r"predictions\[1\]: .*got dict .*row\['caption'\]"),
        (
            ["a plate", "a bird"],
            [["one plate"], [{"caption": "b"}]],
            r"references\[1\]\[0\]: expected a text, got dict",
        ),
        (["a plate", None], REFERENCES, r"predictions\[1\]: expected a text, got NoneType None; .* ''"),
        (["a plate", float("nan")], REFERENCES, r"predictions\[1\]: expected a text, got float nan"),
        (["a plate", b"a bird"], REFERENCES, r"predictions\[1\]: expected a text, got bytes"),
        ("a plate", [["one plate"]], "predictions: expected a list of texts, got str 'a plate'; put it in a list"),
        (["a plate"], "one plate", "references: expected a list of lists of texts, got str"),
        (
            ["a plate"],
            ["one plate"],
            r"references\[0\]: expected a list of texts, got str 'one plate'; put it in a list",
        ),
        ({"a plate", "a bird"}, REFERENCES, "predictions: expected a list of texts, got set"),
        (
            (text for text in ("a plate", "a bird")),
            REFERENCES,
            "predictions: expected a list .*got generator.*; make it",
        ),
        (None, REFERENCES, "predictions: expected a list of texts, got NoneType"),
    ],
)
def test_every_metric_names_the_shape_that_it_wants(metric, predictions, references, message):
    with pytest.raises(UsageError, match=message):
        metric(predictions, references)


def test_the_fix_for_the_dicts_of_pycocoevalcap_gives_the_number_of_the_lists():
    gts, res = GTS, dict(reversed(RES.items()))  # another order: images are matched by key
    fixed = cider([res[i][0] for i in gts], [gts[i] for i in gts])
    assert fixed == cider(["a plate", "a bird"], REFERENCES) > 0


def test_tuples_and_arrays_are_lists_of_texts():
    predictions = ["a plate", "a bird"]
    expected = bleu(predictions, REFERENCES)
    assert bleu(tuple(predictions), tuple(map(tuple, REFERENCES))) == expected
    assert bleu(np.array(predictions), np.array(REFERENCES)) == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ptb_tokenize("A plate."), "lines: expected a list of texts, got str 'A plate.'; put it in a list"),
        (lambda: ptb_tokenize(RES), "lines: expected a list of texts, got dict"),
        (lambda: ptb_tokenize(["A plate.", None]), r"lines\[1\]: expected a text, got NoneType"),
        (lambda: ptb_words(["A plate."]), "line: expected a text, got list"),
        (lambda: normalize_all("Um pão.", "pt"), "lines: expected a list of texts, got str"),
        (lambda: normalize(["Um pão."], "pt"), "text: expected a text, got list"),
        (lambda: normalize_all(["Um pão."], None), "language must be a code .*got None"),
        (lambda: DocumentFrequencies.from_references(GTS), "references: expected a list of lists of texts, got dict"),
        (lambda: DocumentFrequencies.from_references(["a"]), r"references\[0\]: expected a list of texts, got str"),
        (lambda: sample_numbers("a plate"), "texts: expected a list of texts, got str"),
        (lambda: cider_kernel("a plate", None), "captions: expected a list of texts, got str"),
        (lambda: distinct(["a plate on a table"], 1), "words: expected a caption as a list of words, got str"),
        (lambda: div(["a plate on a table"], 1), "words: expected a caption as a list of words, got str"),
        (lambda: repetition("a plate on a table"), "words: expected a caption as a list of words, got str"),
        (lambda: has_bad_ending("a banana"), "words: expected a caption as a list of words, got str"),
        (lambda: chair(["dog"], [{"dog"}]), r"mentions\[0\]: expected a caption as a list of words, got str"),
    ],
)
def test_a_text_in_place_of_a_list_is_never_read_letter_by_letter(call, message):
    with pytest.raises(UsageError, match=message):
        call()


def test_a_line_break_in_a_line_is_a_space():
    assert ptb_tokenize(["a plate\non a table", "a bird"]) == ["a plate on a table", "a bird"]
    assert cider(["a plate\non it", "a bird"], REFERENCES) == cider(["a plate on it", "a bird"], REFERENCES)
