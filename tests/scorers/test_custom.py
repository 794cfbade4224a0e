"""A function of the user's own as reward and metric: which pictures and texts it gets, and what it may give."""

import math
import os

import numpy as np
import pytest
import torch

from capkit.config.targets import MODELS, RUN_PARTS
from capkit.errors import UsageError
from capkit.scorers.custom import Custom, custom_metric, custom_reward, forget_rewritten, imported_function
from capkit.types import CaptionBatch, Samples

PICTURES = {"a": np.full((2, 2, 3), 10, np.uint8), "b": np.full((3, 2, 3), 20, np.uint8), "broken": None}


def brightness_and_length(images, texts):
    """The picture's brightness plus the caption's words."""
    return [float(image.mean()) + len(text.split()) for image, text in zip(images, texts, strict=True)]


def num_words(images, texts):
    assert images == [None] * len(texts)
    return np.array([len(text.split()) for text in texts])


NUMBER = 3


def test_each_caption_comes_with_its_own_picture():
    scorer = Custom(brightness_and_length)
    scorer.attach_images(PICTURES.__getitem__)
    samples = Samples.from_texts([["one", "one two"], ["x y z", ""], ["lost", "lost"]])
    scores = scorer(CaptionBatch(["a", "b", "broken"]), samples)
    assert scores[:2].tolist() == [[11.0, 12.0], [23.0, 20.0]] and scores[2].isnan().all()
    swapped = scorer(CaptionBatch(["b", "a"]), samples.images([1, 0]))
    assert torch.equal(swapped, scores[[1, 0]])


def test_without_pictures_none_is_read():
    scores = Custom(num_words, pictures=False)(CaptionBatch(["a"]), Samples.from_texts([["one two", ""]]))
    assert scores.tolist() == [[2.0, 0.0]]
    with pytest.raises(UsageError, match="num_words looks at pictures"):
        Custom(num_words)(CaptionBatch(["a"]), Samples.from_texts([["one two"]]))


@pytest.mark.parametrize(
    "result, told",
    [
        ([1.0], r"for each of 2 texts, got float64 \(1,\)"),
        (3.0, r"got float64 \(\)"),
        (["a", "b"], "got <U1"),
        ([1.0, math.inf], "infinity"),
        (torch.ones(2, 1), r"\(2, 1\)"),
    ],
    ids=["too few", "one number", "texts", "infinity", "a column"],
)
def test_what_is_not_a_number_for_each_text_is_refused(result, told):
    scorer = Custom(lambda images, texts: result, pictures=False)
    with pytest.raises(UsageError, match=told):
        scorer(CaptionBatch(["a"]), Samples.from_texts([["x", "y"]]))


def test_nan_counts_as_not_scored_and_gradients_are_cut():
    values = torch.tensor([math.nan, 2.0], requires_grad=True)
    scores = Custom(lambda images, texts: values, pictures=False)(CaptionBatch(["a"]), Samples.from_texts([["x", "y"]]))
    assert scores[0, 0].isnan() and scores[0, 1] == 2 and not scores.requires_grad
    values = values.bfloat16()
    assert Custom(lambda images, texts: values, pictures=False)(
        CaptionBatch(["a"]), Samples.from_texts([["x", "y"]])
    ).tolist() == [[pytest.approx(math.nan, nan_ok=True), 2.0]]


def test_it_is_found_by_its_dotted_name():
    term = custom_reward(f"{__name__}.num_words", pictures=False, weight=0.5, clip=[0, 1])
    assert (term.weight, term.clip, term.scorer.function) == (0.5, [0, 1], num_words)
    metric = custom_metric(f"{__name__}.num_words", pictures=False)
    assert metric.score(["one two", "one"], [[], []], [{}, {}]) == {"custom": 1.5, "custom_unscored": 0.0}
    for name, told in (
        ("num_words", "expected a dotted name, got 'num_words'"),
        ("no_such_module.reward", "no_such_module.reward cannot be imported"),
        (f"{__name__}.absent", "cannot be imported"),
        (f"{__name__}.NUMBER", "to be a function, got int"),
    ):
        with pytest.raises(UsageError, match=told):
            imported_function(name)


def test_no_config_of_an_earlier_run_can_name_one():
    for target in ("custom_reward", "custom_metric", "imported_function"):
        assert f"capkit.scorers.custom.{target}" not in RUN_PARTS
        assert f"capkit.scorers.custom.{target}" not in MODELS


def test_a_file_that_a_notebook_wrote_again_is_read_again_by_the_next_run_alone(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "written_twice.py"

    def write(name, number, nanoseconds):
        file.write_text(f"def {name}(images, texts):\n    return [{number}.0] * len(texts)\n")
        os.utime(file, ns=(nanoseconds, nanoseconds))

    second = 1_800_000_000 * 10**9
    write("score", 1, second)
    first = imported_function("written_twice.score")
    write("score", 2, second + 1)  # of the same size and second: Python's cache of the file agrees with it
    assert imported_function("written_twice.score") is first
    forget_rewritten()
    assert imported_function("written_twice.score")([None], ["a"]) == [2]
    write("other", 3, second + 2)
    forget_rewritten()
    with pytest.raises(UsageError, match=r"written_twice\.score cannot be imported"):
        imported_function("written_twice.score")


def test_a_function_of_the_notebook_itself_is_taken_and_another_ones_says_what_to_do(monkeypatch):
    import __main__

    monkeypatch.setattr(__main__, "in_a_cell", num_words, raising=False)
    assert imported_function("__main__.in_a_cell") is num_words
    with pytest.raises(UsageError, match=r"known to that process alone; write it into a file.*%%writefile"):
        imported_function("__main__.of_another_process")
