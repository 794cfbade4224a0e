import json

import pytest

from capkit.errors import UsageError
from capkit.llm.json_replies import JSONField, JSONObject, Numbered, ObjectList, TextList
from capkit.llm.marked_replies import NumberedLines, Tagged
from capkit.llm.replies import Choice, Letter, Reply, Text, Unparsable, WholeNumber, YesNo, example_of

CAPTION = JSONField("caption", Text(10))
GRADE, PICK, LINES, TAGGED = WholeNumber(1, 3), Letter("ABC"), NumberedLines(10), Tagged("caption", 10)
JUDGED = JSONObject({"grade": WholeNumber(1, 6), "better": Text(10), "sure": YesNo(), "pick": Letter("AB")})
SAYS = Choice(("yes", "no", "unsure"))
VERDICTS = Numbered(2, Choice(("true", "false")))
CLAIMS = JSONField("claims", ObjectList({"claim": Text(5), "seen": YesNo()}, 2))
REFUSAL = "I'm sorry, but I can't help with that."


@pytest.mark.parametrize(
    ("reply", "said", "value"),
    [
        (CAPTION, '{"caption": "a dog"}', "a dog"),
        (CAPTION, ' {"caption": " a\\n dog "}\n', "a dog"),
        (CAPTION, '```json\n{"caption": "a dog"}\n```', "a dog"),
        (CAPTION, '```\n{"caption": "a dog", "notes": 3}\n```', "a dog"),
        (JUDGED, '{"grade": 6, "better": "a dog", "sure": false, "pick": "B"}',
         {"grade": 6, "better": "a dog", "sure": False, "pick": "B"}),
        (JSONField("names", TextList(3)), '{"names": ["a dog", "two"]}', ["a dog", "two"]),
        (JSONField("names", TextList(3)), '{"names": []}', []),
        (Text(10), " A dog.\n\n It\truns. ", "A dog. It runs."),
        (PICK, " B\n", "B"),
        (PICK, "B.", "B"),
        (PICK, "B)", "B"),
        (PICK, "(B)", "B"),
        (GRADE, " 2\n", 2),
        (WholeNumber(-5, 5), "-3", -3),
        (YesNo(), "Yes.", True),
        (YesNo(), "no", False),
        (SAYS, " Unsure.", "unsure"),
        (VERDICTS, '{"1": "true", "2": "False"}', ["true", "false"]),
        (VERDICTS, '{"2": "true", "1": "false"}', ["false", "true"]),
        (Numbered(0, YesNo()), "{}", []),
        (CLAIMS, '{"claims": [{"claim": "a dog", "seen": true}]}', [{"claim": "a dog", "seen": True}]),
        (CLAIMS, '{"claims": []}', []),
        (TAGGED, "Let me see.\n<caption>a dog</caption>", "a dog"),
        (LINES, "1. a dog\n\n2) the cat \n", ["a dog", "the cat"]),
        (NumberedLines(10, nothing="None"), "none.", []),
    ],
)  # fmt: skip
def test_what_fits_is_read(reply, said, value):
    assert reply.read(said) == value


@pytest.mark.parametrize(
    ("reply", "said", "reason"),
    [
        # What released programs took for something else.
        (PICK, "A\nbecause B", "nothing else"),
        (PICK, "a cat", "nothing else"),
        (PICK, "Based on the caption, C", "nothing else"),
        (WholeNumber(1, 10), "The score is 10 of 10", "nothing else"),
        (GRADE, "Answer 2 is right", "nothing else"),
        (CAPTION, 'Sure:\n```json\n{"caption": "a dog"}\n```', "not one JSON object"),
        (CAPTION, '```json\n{"caption": "a dog"}', "not one JSON object"),
        (CAPTION, '```json\n{"caption": "a"}\n```\n```json\n{"caption": "b"}\n```', "not one JSON object"),
        (Text(10), "```\na dog\n```", "a code fence"),
        (GRADE, "```\n2\n```", "nothing else"),
        (CAPTION, '{"caption": "a"} {"caption": "b"}', "not one JSON object"),
        (CAPTION, '{"caption": "a", "caption": "b"}', "not one JSON object"),
        (CAPTION, '["a dog"]', 'with "caption", got list'),
        (CAPTION, '{"caption": "a do', "not one JSON object"),
        (CAPTION, REFUSAL, "not one JSON object"),
        (CAPTION, json.dumps({"caption": REFUSAL}), "a refusal"),
        # Texts.
        (Text(10), '{"caption": "a dog', "a JSON object"),
        (Text(10), '["a dog"]', "a JSON list"),
        (Text(10), REFUSAL, "a refusal"),
        (Text(20), "As an AI language model, I have no eyes.", "a refusal"),
        (Text(20), "I cannot describe hateful pictures.", "a refusal"),
        (Text(20), "Unfortunately, I can’t see the picture.", "a refusal"),
        (Text(3), "one two three four", "4 words, more than max_words=3"),
        (Text(10), "...", "empty"),
        # JSON.
        (CAPTION, "a dog", "not one JSON object"),
        (CAPTION, 'Here it is: {"caption": "a dog"}', "not one JSON object"),
        (CAPTION, '{"text": "a dog"}', "caption is missing"),
        (CAPTION, '{"caption": ["a dog"]}', '"caption": expected a text'),
        (CAPTION, '{"caption": null}', '"caption": expected a text, got null'),
        (CAPTION, '{"caption": ""}', "empty"),
        (CAPTION, "null", "got NoneType"),
        (CAPTION, "[" * 100_000, "not one JSON object"),
        (JUDGED, '{"grade": 6, "better": "a dog", "sure": false}', "pick is missing"),
        (JSONField("grade", GRADE), '{"grade": 7}', "from 1 to 3, got 7"),
        (JSONField("grade", GRADE), '{"grade": "2"}', 'from 1 to 3, got "2"'),
        (JSONField("grade", GRADE), '{"grade": 2.0}', "from 1 to 3, got 2.0"),
        (JSONField("grade", GRADE), '{"grade": true}', "from 1 to 3, got true"),
        (JSONField("sure", YesNo()), '{"sure": "yes"}', "expected true or false"),
        (JSONField("pick", PICK), '{"pick": "AB"}', "one letter of A, B, C"),
        (JSONField("names", TextList(3, max_items=1)), '{"names": ["a", "b"]}', "expected 0 to 1 texts, got 2"),
        (JSONField("names", TextList(3)), '{"names": ["a", 2]}', "expected a text, got 2"),
        (JSONField("names", TextList(3)), '{"names": "a"}', "expected a list"),
        # Letters, numbers, yes or no.
        (PICK, "D", "one letter of A, B, C"),
        (PICK, "a", "one letter of A, B, C"),
        (PICK, "AB", "one letter of A, B, C"),
        (PICK, "(A", "one letter of A, B, C"),
        (PICK, "A or B", "nothing else"),
        (GRADE, "4", "from 1 to 3"),
        (GRADE, "2.5", "nothing else"),
        (GRADE, "2/3", "nothing else"),
        (GRADE, "1, 2", "nothing else"),
        (GRADE, "two", "nothing else"),
        (GRADE, "٢", "nothing else"),
        (YesNo(), "yes and no", "nothing else"),
        (YesNo(), "Yes, it is not.", "nothing else"),
        (SAYS, "yes, or no", "nothing else"),
        (VERDICTS, '{"1": "true"}', "2 is missing"),
        (VERDICTS, '{"1": "true", "2": "true", "3": "true"}', "no other, got '3'"),
        (VERDICTS, '{"1": "true", "1": "false", "2": "true"}', "not one JSON object"),
        (VERDICTS, '{"1": "true", "2": "maybe"}', '"2": expected one of true, false'),
        (VERDICTS, '["true", "false"]', "expected a JSON object"),
        (CLAIMS, '{"claims": [{"claim": "a dog"}]}', "seen is missing"),
        (CLAIMS, '{"claims": ["a dog"]}', "expected a JSON object"),
        (CLAIMS, '{"claims": {"claim": "a dog", "seen": true}}', "expected a list"),
        (JSONField("c", ObjectList({"t": Text(5)}, 1)), '{"c": [{"t": "a"}, {"t": "b"}]}', "expected 0 to 1"),
        # Tags and lines.
        (TAGGED, "a dog", "<caption> and </caption> once"),
        (TAGGED, "<caption>a dog", "<caption> and </caption> once"),
        (TAGGED, "<caption>a</caption><caption>b</caption>", "<caption> and </caption> once"),
        (TAGGED, "<caption><caption>a</caption></caption>", "<caption> and </caption> once"),
        (TAGGED, "</caption>a dog<caption>", "<caption> and </caption> once"),
        (TAGGED, "<caption> </caption>", "empty"),
        (LINES, "Here are the questions:\n1. a", "line 1"),
        (LINES, "1. a\n3. b", "line 2"),
        (LINES, "1. a\nand more", "line 2"),
        (LINES, "- a\n- b", "line 1"),
        (NumberedLines(10, 2, 3), "1. a", "expected 2 to 3 lines, got 1"),
        (LINES, "none", "line 1"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_its_reason(reply, said, reason):
    with pytest.raises(Unparsable) as refused:
        reply.read(said)
    assert reason in str(refused.value)


EVERY = [CAPTION, JUDGED, VERDICTS, CLAIMS, Text(10), PICK, GRADE, YesNo(), SAYS, TAGGED, LINES]


@pytest.mark.parametrize("reply", EVERY, ids=lambda reply: type(reply).__name__)
@pytest.mark.parametrize("said", ["", " \n ", REFUSAL])
def test_nothing_and_a_refusal_are_no_value_of_any_form(reply, said):
    with pytest.raises(Unparsable):
        reply.read(said)
    assert isinstance(reply, Reply)


def test_captions_that_begin_like_a_refusal_are_captions():
    for said in ("A sorry sight.", "I love NY is written on a mug", "an unable seaman", "As an air plane lands"):
        assert Text(10).read(said) == said


def test_schemas_are_what_servers_hold_replies_to():
    assert JUDGED.schema() == {
        "type": "object",
        "properties": {
            "grade": {"type": "integer", "minimum": 1, "maximum": 6}, "better": {"type": "string"},
            "sure": {"type": "boolean"}, "pick": {"type": "string", "enum": ["A", "B"]},
        },
        "required": ["grade", "better", "sure", "pick"], "additionalProperties": False,
    }  # fmt: skip
    assert JSONField("names", TextList(3, 1, 4)).schema()["properties"]["names"] == {
        "type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 4,
    }  # fmt: skip
    assert Numbered(1, Choice(("a", "b"))).schema() == {
        "type": "object", "properties": {"1": {"type": "string", "enum": ["a", "b"]}}, "required": ["1"],
        "additionalProperties": False,
    }  # fmt: skip
    listed = CLAIMS.schema()["properties"]["claims"]
    assert listed["type"] == "array" and listed["items"]["required"] == ["claim", "seen"] and listed["maxItems"] == 2
    assert all(reply.schema() is None for reply in EVERY[4:])


def test_letters_must_be_capitals_each_once():
    with pytest.raises(UsageError, match="different capitals"):
        Letter("AAB")


@pytest.mark.parametrize(
    ("reader", "written"),
    [
        (Text(3), "word word word"),
        (WholeNumber(2, 5), "2"),
        (YesNo(), "yes"),
        (Letter("BC"), "B"),
        (Choice(("no", "unsure")), "unsure"),
        (Numbered(2, WholeNumber(0, 3)), '{"1": 0, "2": 0}'),
        (JSONField("c", ObjectList({"t": Text(1)})), '{"c": [{"t": "word"}]}'),
        (Tagged("c", 2), "<c>word word</c>"),
        (NumberedLines(1, min_lines=2), "1. word\n2. word"),
        (JSONField("c", Text(2)), '{"c": "word word"}'),
        (
            JSONObject({"n": WholeNumber(1, 3), "l": TextList(1, 2), "y": YesNo(), "x": Letter("A")}),
            '{"n": 1, "l": ["word", "word"], "y": true, "x": "A"}',
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_example_is_what_a_reply_could_give(reader, written):
    assert example_of(reader) == reader.read(written)


def test_a_reader_without_an_example_is_named():
    class Any:
        def read(self, text):
            return text

        def schema(self):
            return None

    with pytest.raises(UsageError, match="Any has none; give it example"):
        example_of(Any())
