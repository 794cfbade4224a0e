"""Breaks in readers of captions, and questions."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "caption_qa: abstaining is worth nothing",
        "capkit/metrics/caption_qa.py",
        "return 1 / len(item.choices) + ABSTAIN_BONUS",
        "return 0.0",
        ("tests/metrics/test_caption_qa.py",),
    ),
    Break(
        "caption_qa: the abstain option counts among the choices",
        "capkit/metrics/caption_qa.py",
        "return 1 / len(item.choices) + ABSTAIN_BONUS",
        "return 1 / len(question.choices) + ABSTAIN_BONUS",
        ("tests/metrics/test_caption_qa.py::test_a_table_by_hand",),
    ),
    Break(
        "question_sets: an order does not depend on the picture",
        "capkit/readers/question_sets.py",
        'rng.generator(seed, "options", key, item.question)',
        'rng.generator(seed, "options", item.question)',
        ("tests/readers/test_question_sets.py",),
    ),
    Break(
        "question_sets: the abstain option is not shuffled along",
        "capkit/readers/question_sets.py",
        "choices.index(ABSTAIN) if ABSTAIN in choices else None",
        "len(choices) - 1 if ABSTAIN in choices else None",
        ("tests/readers/test_question_sets.py",),
    ),
    Break(
        "shared_reading: positions start anew behind what is shared",
        "capkit/readers/shared_reading.py",
        "positions = (mask.long().cumsum(1) - 1)[:, -tokens.shape[1] :]",
        "positions = own.long().cumsum(1) - 1",
        ("tests/readers/test_hf_reader.py",),
    ),
    Break(
        "shared_reading: padding of what is shared is attended",
        "capkit/readers/shared_reading.py",
        "mask = torch.cat([is_read[places], own], dim=1)",
        "mask = torch.cat([torch.ones_like(is_read[places]), own], dim=1)",
        ("tests/readers/test_hf_reader.py",),
    ),
    Break(
        "hf reader: cloze sums log-probabilities instead of their mean",
        "capkit/readers/hf.py",
        "gather(1, wanted).mean())",
        "gather(1, wanted).sum())",
        ("tests/readers/test_hf_reader.py",),
    ),
    Break(
        "scene reader: counts mentions without a stated total",
        "capkit/sceneworld/reading.py",
        "if stated is None and _total(said) is not None and",
        "if stated is None and",
        ("tests/sceneworld/test_scene_reader.py",),
    ),
    Break(
        "scene reader: relations off places take rows for columns",
        "capkit/sceneworld/reading.py",
        'along = columns if relation == "left" else rows',
        'along = rows if relation == "left" else columns',
        ("tests/sceneworld/test_scene_reader.py",),
    ),
    Break(
        "judged: a metric with too many failures gives its number",
        "capkit/metrics/judged.py",
        "return failed > self.max_failed * asked",
        "return failed > asked",
        ("tests/metrics/test_judged.py", "tests/metrics/test_caption_qa.py"),
    ),
    Break(
        "prism: 5 % are measured from the prediction",
        "capkit/metrics/short_answers.py",
        "<= TOLERANCE * abs(wanted)",
        "<= TOLERANCE * abs(scale * said)",
        ("tests/metrics/test_prism.py",),
    ),
    Break(
        "chat reader: a letter beyond the options is taken",
        "capkit/readers/chat.py",
        "return self._reply(letters)",
        "return self._reply()",
        ("tests/readers/test_chat_reader.py",),
    ),
]
