import pytest

from capkit.curation.caption_answers import json_caption, plain_text
from capkit.llm.cache import Unparsable


@pytest.mark.parametrize(
    "answer",
    [
        '{"caption": "a dog"}',
        ' {"caption": " a\\n dog "}\n',
        '```json\n{"caption": "a dog"}\n```',
        '```\n{"caption": "a dog", "notes": 3}\n```',
    ],
)
def test_the_caption_is_taken_out_of_its_object(answer):
    assert json_caption(answer, 10) == "a dog"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("a dog", "not one JSON object"),
        ('Here it is: {"caption": "a dog"}', "not one JSON object"),
        ('{"caption": "a do', "not one JSON object"),
        ('{"caption": "a"} {"caption": "b"}', "not one JSON object"),
        ('["a dog"]', 'text under "caption"'),
        ('{"text": "a dog"}', 'text under "caption"'),
        ('{"caption": ["a dog"]}', 'text under "caption"'),
        ('{"caption": ""}', "empty"),
        ('{"caption": "..."}', "empty"),
        ('{"caption": "one two three four"}', "4 words, more than max_words=3"),
    ],
)
def test_anything_else_is_refused_with_its_reason(answer, reason):
    with pytest.raises(Unparsable, match=reason.replace("(", r"\(")):
        json_caption(answer, 3)


def test_free_text_becomes_one_line():
    assert plain_text(" A dog.\n\n It\truns. ", 10) == "A dog. It runs."
    with pytest.raises(Unparsable, match="empty"):
        plain_text(" \n ", 10)
