"""Breaks in question sets and captions for a question."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "question filters: a vote is right by its first letter",
        "capkit/curation/question_verdicts.py",
        "least = sum(vote == answer for vote in votes)",
        "least = sum(vote is not None and vote[:1] == answer[:1] for vote in votes)",
        ("tests/curation/test_question_verdicts.py",),
    ),
    Break(
        "filter_questions: what the text answers stays",
        "capkit/curation/question_verdicts.py",
        "return _decided(right.most < below * right.total, right.least >= below * right.total)",
        'return "keep"',
        ("tests/curation/steps/test_filter_questions.py",),
    ),
    Break(
        "filter_questions: a call that failed is a way out",
        "capkit/curation/question_verdicts.py",
        '    if first is None or second is None:\n        return "undecided"\n',
        "",
        ("tests/curation/test_question_verdicts.py",),
    ),
    Break(
        "ask_questions: an answer is a letter before it is a text",
        "capkit/curation/questions.py",
        "    if answer not in choices and has_letters:",
        "    if has_letters:",
        ("tests/curation/steps/test_ask_questions.py",),
    ),
    Break(
        "filter_questions: a letter is found in a word",
        "capkit/curation/questions.py",
        "            return OneLetter(self.letters).read(text)",
        "            return next(letter for letter in self.letters if letter in text)",
        ("tests/curation/steps/test_filter_questions.py",),
    ),
    Break(
        "near-duplicates: one neighbour of two is enough",
        "capkit/curation/near_duplicates.py",
        "return nearest & nearest.T",
        "return nearest | nearest.T",
        ("tests/curation/test_near_duplicates.py",),
    ),
    Break(
        "write_questions: test pictures get into a training set",
        "capkit/curation/questions.py",
        "shared = sorted(key for key, picture in train.items() if picture in test_pictures)",
        "shared = []",
        ("tests/curation/steps/test_write_questions.py",),
    ),
    Break(
        "guide_captions: fewer than three gold answers are divided by three",
        "capkit/metrics/vqa_score.py",
        "return sum(best) / len(best)",
        "return sum(best) / 3",
        ("tests/metrics/test_vqa_score.py",),
    ),
    Break(
        "guide_captions: examples of the same picture are told",
        "capkit/curation/steps/guide_captions.py",
        "if str(self._rows[place].image_id) not in own]",
        "]",
        ("tests/curation/steps/test_guide_captions.py",),
    ),
    Break(
        "data=vqa: a question at test has its answers",
        "capkit/data/sources/vqa.py",
        '                metadata={"image_id": image_id, "question": row["question"]},',
        '                metadata={"image_id": image_id, "question": row["question"], "answers": row["answers"]},',
        ("tests/data/sources/test_vqa.py",),
    ),
]
