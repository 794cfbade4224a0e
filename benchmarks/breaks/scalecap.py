"""Breaks in sentences rated by what the picture adds."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "scalecap: log-probability with the picture alone",
        "capkit/models/captioners/picture_gains.py",
        "return captioner.logprobs(context, tokens, mask) - without.clamp(min=LEAST)",
        "return captioner.logprobs(context, tokens, mask) - 0 * without.clamp(min=LEAST)",
        ("tests/models/captioners/test_picture_gains.py::test_a_gain_by_hand",),
    ),
    Break(
        "scalecap: the gain has the wrong sign",
        "capkit/models/captioners/picture_gains.py",
        "return captioner.logprobs(context, tokens, mask) - without.clamp(min=LEAST)",
        "return without.clamp(min=LEAST) - captioner.logprobs(context, tokens, mask)",
        ("tests/models/captioners/test_picture_gains.py::test_a_gain_by_hand",),
    ),
    Break(
        "scalecap: gains are read one token too late",
        "capkit/train/rated_captioner.py",
        "gains[given - 1 : -1].tolist()",
        "gains[given:].tolist()",
        ("tests/train/test_rated_captioner.py::test_the_gains_are_those_of_the_words_that_it_wrote",),
    ),
    Break(
        "scalecap: function words count, as in the released program, whose mask never acts",
        "capkit/curation/grounding.py",
        "        if tag in CONTENT and gains:",
        "        if gains:",
        ("tests/curation/test_grounding.py::test_a_function_word_speaks_for_nothing",),
    ),
    Break(
        "scalecap: a last sentence without a full stop is lost, as in the released program",
        "capkit/curation/grounding.py",
        "    found.append((start, len(text)))\n",
        "",
        ("tests/curation/test_grounding.py::test_the_last_sentence_needs_no_full_stop",),
    ),
    Break(
        "scalecap: objects in the order of a set",
        "capkit/curation/steps/scale_caption.py",
        "    return list(found.values())",
        "    return sorted(found.values())",
        (
            "tests/curation/steps/test_scale_caption.py::test_an_object_that_is_named_twice_is_asked_about_once_and_in_order",
        ),
    ),
    Break(
        "scalecap: at least tau, not above it",
        "capkit/curation/grounding.py",
        "rating > tau)",
        "rating >= tau)",
        ("tests/curation/test_grounding.py::test_exactly_tau_is_not_above_it",),
    ),
    Break(
        "scalecap: the mean of a unit's gains, not the largest",
        "capkit/curation/grounding.py",
        "            found.append((word.start(), max(gains)))",
        "            found.append((word.start(), sum(gains) / len(gains)))",
        ("tests/curation/test_grounding.py::test_of_a_word_in_pieces_the_largest_gain_counts",),
    ),
    Break(
        "scalecap: where none is left the caption is empty",
        "capkit/curation/grounding.py",
        "    kept = kept or units\n",
        "",
        ("tests/curation/test_grounding.py::test_if_none_is_left_the_text_stays_whole",),
    ),
    Break(
        "scalecap: the budget counts questions, not objects",
        "capkit/curation/steps/scale_caption.py",
        "objects=tuple(found[: self._num_objects])",
        "objects=tuple(found[: None if self._num_objects is None else self._num_objects // 2])",
        ("tests/curation/steps/test_scale_caption.py::test_calls_are_counted",),
    ),
    Break(
        "scalecap: positions are collected with the details",
        "capkit/curation/steps/scale_caption.py",
        "answers[place :: len(_KINDS)]",
        "answers",
        ("tests/curation/steps/test_scale_caption.py::test_what_is_asked_of_whom",),
    ),
    Break(
        "scalecap: objects are asked of the whole description",
        "capkit/curation/steps/scale_caption.py",
        "sentences = case.described.sentences if self._num_objects != 0 else ()",
        "sentences = (case.description,) if self._num_objects != 0 else ()",
        ("tests/curation/steps/test_scale_caption.py::test_what_is_asked_of_whom",),
    ),
    Break(
        "scalecap: an image-text model is rated with the picture both times",
        "capkit/llm/rated_huggingface.py",
        "blind = replace(asked[0], pictures=())",
        "blind = asked[0]",
        ("tests/llm/test_huggingface_chat.py::test_a_rated_answer_has_the_gains_of_the_ids_that_were_generated",),
    ),
    Break(
        "scalecap: an image-text model's logits are not normalised, as in the released program",
        "capkit/llm/rated_huggingface.py",
        "return logits.float().log_softmax(-1).gather(",
        "return logits.float().gather(",
        ("tests/llm/test_huggingface_chat.py::test_a_rated_answer_has_the_gains_of_the_ids_that_were_generated",),
    ),
    Break(
        "scalecap: the planted habit follows the picture",
        "capkit/sceneworld/sources/habitual.py",
        "[self._then] if is_added or self._then in shapes else []",
        "[self._then] if self._then in shapes else []",
        ("tests/sceneworld/test_habitual_captions.py::test_nine_of_ten_captions_with_a_circle_go_on_with_a_cross",),
    ),
]
