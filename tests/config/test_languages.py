"""`metric.language` reaches every metric that reads one; it must be the data's where that says its own."""

import pytest

from capkit.config.arguments import parse
from capkit.config.check import problems
from capkit.config.compose import compose_config
from capkit.errors import UsageError

METRICS = "metric=[bleu,rouge,cider,facts,diversity]"


def composed(*words):
    return compose_config(parse(list(words)))


def languages(*words):
    metrics = composed(*words).config.metric
    return {name: node.get("language") for name, node in metrics.items()}


def test_one_setting_is_the_language_of_all_metrics_that_read_one():
    assert languages(METRICS, "metric.language=pt") == {
        "bleu": "pt", "rouge": "pt", "cider": "pt", "facts": None, "diversity": "pt"
    }  # fmt: skip
    assert set(languages(METRICS).values()) == {None}  # the constructors' own: English


def test_what_one_metric_is_given_wins():
    assert languages("metric=[bleu,cider]", "metric.cider.language=en", "metric.language=pt") == {
        "bleu": "pt", "cider": "en"
    }  # fmt: skip


def test_a_language_that_no_metric_reads_is_refused():
    with pytest.raises(UsageError, match=r"metric.language=pt: expected a metric that reads a language.*got facts"):
        composed("metric=[facts]", "metric.language=pt")
    assert languages("experiment=captioner_ptbr", "metric=[facts]") == {"facts": None}  # not asked for here
    assert languages("experiment=captioner_ptbr", "metric=[facts,bleu]")["bleu"] == "pt"


@pytest.mark.parametrize(
    ("given", "is_refused"),
    [
        (["data.languages=[pt-BR]"], True),
        (["data.languages=[pt-BR]", "metric.language=pt"], False),
        (["data.languages=[pt-BR]", "metric.language=pt", "metric.cider.language=en"], True),
        (["data.languages=[en-GB]"], False),
        (["data.languages=[pt-BR,en]"], False),
        ([], False),
    ],
)
def test_english_metrics_of_portuguese_captions_are_refused(given, is_refused):
    paths = [f"data.{split}.path={split}.jsonl" for split in ("train", "val", "test")]
    found = problems(composed("data=manifest", "metric=[bleu,cider]", *paths, *given), with_inputs=False)
    told = [line for line in found if "give metric.language=pt-BR" in line]
    assert bool(told) == is_refused, found


def test_the_stamps_follow_the_datas_languages_in_all_splits():
    def of(*words):
        data = composed("data=stamps", *words).config.data
        return [list(data[split].languages) for split in ("train", "val", "test")]

    assert of() == [["en"]] * 3
    assert of("data.languages=[pt-BR]") == [["pt-BR"]] * 3
    assert of("data.train.languages=[pt-BR]") == [["pt-BR"]] * 3
