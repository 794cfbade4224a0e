"""Breaks in rewards from questions, what their pages show, and open questions."""

from benchmarks.breaks.planted import Break

_QA = "capkit/scorers/question_answering.py"
_QA_TESTS = ("tests/scorers/test_question_answering.py",)
_PAGE = "capkit/reports/questions.py"
_PAGE_TESTS = ("tests/reports/test_questions_section.py",)
_OPEN = "capkit/metrics/open_caption_qa.py"
_OPEN_TESTS = ("tests/metrics/test_open_caption_qa.py",)

BREAKS = [
    Break(
        "question_answering: options stand in the order of the file",
        _QA,
        "        order = draw if self.shuffle else None",
        "        order = None",
        _QA_TESTS,
    ),
    Break(
        "question_answering: nobody may abstain",
        _QA,
        "in_drawn_order(items[place], self.abstain, order)) for place in places]",
        "in_drawn_order(items[place], False, order)) for place in places]",
        _QA_TESTS,
    ),
    Break(
        "question_answering: answers are read from the next caption",
        _QA,
        "        for text, drawn in zip(texts, row, strict=True)\n",
        "        for text, drawn in zip([*texts[1:], texts[0]], row, strict=True)\n",
        _QA_TESTS,
    ),
    Break(
        "question_answering: the rate leaves out what was read once for several",
        _QA,
        '"answers_per_second": asked / longest,',
        '"answers_per_second": total["distinct"] / longest,',
        _QA_TESTS,
    ),
    Break(
        "question_answering: abstaining is told as an answer",
        _QA,
        "    abstained = reading.choice is not None and reading.choice == question.abstain",
        "    abstained = False",
        _QA_TESTS,
    ),
    Break(
        "question_answering: pictures with too few questions are told at their step alone",
        _QA,
        "        without = [key for key in training if not self._items(key, {})]\n",
        "        without = unknown\n",
        _QA_TESTS,
    ),
    Break(
        "shuffled: a picture is asked its own questions",
        "capkit/scorers/shuffled.py",
        "    following = dict(zip(order, [*order[1:], order[0]], strict=True))",
        "    following = dict(zip(order, order, strict=True))",
        _QA_TESTS,
    ),
    Break(
        "report of questions: wrong answers are marked as right",
        _PAGE,
        'return said["said"], "right" if said["right"] else "wrong"',
        'return said["said"], "right"',
        _PAGE_TESTS,
    ),
    Break(
        "report of questions: the reader's share is of a picture, not of a step",
        _PAGE,
        "row[seconds] * row[speed] / images_per_step)",
        "row[seconds] * row[speed])",
        _PAGE_TESTS,
    ),
    Break(
        "caption_qa_open: an answer that cannot be read counts as wrong",
        _OPEN,
        "    failed = sum(answer.text is None for answer in answers)\n",
        '    failed = sum(answer.text is None for answer in answers)\n    values["read"] += failed\n',
        _OPEN_TESTS,
    ),
    Break(
        "data=vqa: a question at test has its answers in the metadata",
        "capkit/data/sources/vqa.py",
        'metadata={"image_id": image_id, "question": row["question"]},',
        'metadata={"image_id": image_id, **row},',
        (*_OPEN_TESTS, "tests/data/sources/test_vqa.py"),
    ),
    Break(
        "guide_captions: the released file of another split is written over",
        "capkit/curation/steps/guide_captions.py",
        "if str(row.image_id) not in own]:",
        "if row.image_id in own]:",
        ("tests/curation/steps/test_guide_captions.py",),
    ),
    Break(
        "reader=hf: an encoder reads with a head of random weights",
        "capkit/llm/huggingface.py",
        "in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not is_decoder",
        "in ()",
        ("tests/readers/test_hf_reader.py",),
    ),
    Break(
        "question_answering: kept answers hide a server that fails each time",
        _QA,
        "            self._calls.heed(gather_objects(calls))\n",
        "",
        _QA_TESTS,
    ),
    Break(
        "question_answering: kept answers hide it from a validation",
        _QA,
        "            self._calls.heed_alone(calls)\n",
        "            pass\n",
        _QA_TESTS,
    ),
    Break(
        "question_answering: a reply in between does not count",
        "capkit/scorers/reader_calls.py",
        "            self._unheard = {}\n            return\n",
        "            pass\n",
        _QA_TESTS,
    ),
]  # fmt: skip
