"""Breaks in captions left to what a student knows, or picked by a judge."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "knowada: a failed grade counts as wrong (the program's -1 < 2)",
        "capkit/curation/steps/adapt_to_student.py",
        "    there = [grade for grade in grades if grade is not None]",
        "    there = [-1 if grade is None else grade for grade in grades]",
        ("tests/curation/steps/test_adapt_to_student.py",),
    ),
    Break(
        "knowada: nearly right counts as wrong",
        "capkit/curation/steps/adapt_to_student.py",
        "_WRONG = 1  # a grade below 2",
        "_WRONG = 2  # a grade below 2",
        ("tests/curation/steps/test_adapt_to_student.py::test_the_threshold_is_a_share_of_the_grades_that_there_are",),
    ),
    Break(
        "knowada: the threshold counts all answers, not those that are left",
        "capkit/curation/steps/adapt_to_student.py",
        "sum(grade <= _WRONG for grade in there) >= threshold * len(there) if there else None",
        "sum(grade <= _WRONG for grade in there) >= threshold * len(list(grades)) if there else None",
        ("tests/curation/steps/test_adapt_to_student.py::test_the_threshold_is_a_share_of_the_grades_that_there_are",),
    ),
    Break(
        "knowada: more than the threshold, not at least",
        "capkit/curation/steps/adapt_to_student.py",
        "sum(grade <= _WRONG for grade in there) >= threshold",
        "sum(grade <= _WRONG for grade in there) > threshold",
        ("tests/curation/steps/test_adapt_to_student.py::test_the_threshold_is_a_share_of_the_grades_that_there_are",),
    ),
    Break(
        "knowada: a share in floating point",
        "capkit/curation/steps/adapt_to_student.py",
        "else Fraction(str(threshold))",
        "else Fraction(threshold)",
        ("tests/curation/steps/test_adapt_to_student.py::test_a_number_of_answers_is_a_share_of_them_and_exact",),
    ),
    Break(
        "knowada: equal questions are asked twice",
        "capkit/curation/steps/adapt_to_student.py",
        "Asked(text) for text in dict.fromkeys(answer.value)",
        "Asked(text) for text in answer.value",
        ("tests/curation/steps/test_adapt_to_student.py::test_equal_questions_of_a_picture_are_one",),
    ),
    Break(
        "knowada: all answers are sample 0",
        "capkit/curation/steps/adapt_to_student.py",
        "Question(text, (picture,), sample=i) for text in texts for i in samples",
        "Question(text, (picture,), sample=0) for text in texts for i in samples",
        ("tests/curation/steps/test_adapt_to_student.py::test_what_eight_of_ten_answers_got_wrong_leaves_the_caption",),
    ),
    Break(
        "knowada: grades go to the wrong answers where one failed",
        "capkit/curation/steps/adapt_to_student.py",
        "grades = [None if text is None else next(rest, None) for text in item.answers]",
        "grades = [next(rest, None) for text in item.answers]",
        ("tests/curation/steps/test_adapt_to_student.py::test_a_failed_answer_is_left_out_and_not_wrong",),
    ),
    Break(
        "knowada: an untouched caption gets a new source",
        "capkit/curation/steps/adapt_to_student.py",
        "captions.append(new if case.unknown else case.caption)",
        "captions.append(new)",
        ("tests/curation/steps/test_adapt_to_student.py::test_at_seven_of_ten_it_stays_untouched_byte_for_byte",),
    ),
    Break(
        "knowada: a failed rewriting keeps the caption",
        "capkit/curation/steps/adapt_to_student.py",
        'return self._failed(case, f"rewriting: {answer.failure}", answer.said)',
        "return replace(case, text=case.caption.text)",
        (
            "tests/curation/steps/test_adapt_to_student.py::test_a_rewriting_that_failed_takes_no_caption_of_another_picture",
        ),
    ),
    Break(
        "knowada: the program's -1 is read as a grade",
        "capkit/curation/knowada_files.py",
        "return int(number) if number in GRADES else None",
        "return int(number)",
        (
            "tests/curation/steps/test_adapt_to_student.py::test_the_released_programs_failures_and_equal_questions_are_read_for_what_they_are",
        ),
    ),
    Break(
        "knowada: equal questions of a table are added up",
        "capkit/curation/knowada_files.py",
        (
            '            before = numbered.get(row["question_idx"], Asked(row["questions"]))\n'
            '            numbered[row["question_idx"]] ='
        ),
        (
            '            before = numbered.get(row["questions"], Asked(row["questions"]))\n'
            '            numbered[row["questions"]] ='
        ),
        (
            "tests/curation/steps/test_adapt_to_student.py::test_the_released_programs_failures_and_equal_questions_are_read_for_what_they_are",
        ),
    ),
    Break(
        "mlbcap: candidates are shown as listed",
        "capkit/curation/steps/judge_candidates.py",
        "                candidates = [candidates[place] for place in order]\n",
        "",
        ("tests/curation/steps/test_judge_candidates.py",),
    ),
    Break(
        "mlbcap: the order depends on the order of the generators",
        "capkit/curation/steps/judge_candidates.py",
        "                candidates = sorted(candidates, key=lambda caption: (caption.source, caption.text))\n",
        "",
        (
            "tests/curation/steps/test_judge_candidates.py::test_the_order_is_drawn_by_seed_and_key_whatever_the_order_of_the_generators",
        ),
    ),
    Break(
        "mlbcap: one order for all figures",
        "capkit/curation/steps/judge_candidates.py",
        'generator(self._seed, "candidates", record.key)',
        'generator(self._seed, "candidates")',
        (
            "tests/curation/steps/test_judge_candidates.py::test_the_order_is_drawn_by_seed_and_key_whatever_the_order_of_the_generators",
        ),
    ),
    Break(
        "mlbcap: the pick is one off",
        "capkit/curation/steps/judge_candidates.py",
        "row.shown[answer.value - 1]",
        "row.shown[answer.value - 2]",
        ("tests/curation/steps/test_judge_candidates.py::test_the_number_picks_the_caption_that_was_shown_there",),
    ),
    Break(
        "mlbcap: the pick is taken in the order of the record",
        "capkit/curation/steps/judge_candidates.py",
        "row.shown[answer.value - 1]",
        "candidates_of(row.record)[answer.value - 1]",
        ("tests/curation/steps/test_judge_candidates.py::test_the_number_picks_the_caption_that_was_shown_there",),
    ),
    Break(
        "mlbcap: grade 4 stays",
        "capkit/curation/steps/grade_captions.py",
        "caption.score >= self._min_grade",
        "caption.score >= self._min_grade - 1",
        ("tests/curation/steps/test_grade_captions.py::test_grades_five_and_six_stay_with_their_grade",),
    ),
    Break(
        "mlbcap: one sentence is enough",
        "capkit/curation/steps/grade_captions.py",
        "len(_SENTENCE_END.findall(text)) < min_sentences",
        "len(_SENTENCE_END.findall(text)) < min_sentences - 1",
        (
            "tests/curation/steps/test_grade_captions.py::test_a_caption_ends_with_a_full_stop_and_has_two_sentences_and_at_most_a_hundred_words",
        ),
    ),
    Break(
        "mlbcap: a figure's own caption is among its examples",
        "capkit/curation/steps/write_candidates.py",
        'self._examples.get(record.metadata.get("categories"), ()) if key != record.key]',
        'self._examples.get(record.metadata.get("categories"), ())]',
        (
            "tests/curation/steps/test_write_candidates.py::test_examples_are_the_best_graded_captions_of_the_subject_and_not_the_figures_own",
        ),
    ),
    Break(
        "mlbcap: fields that are left out are told all the same",
        "capkit/curation/figures.py",
        ' if name in fields else "" for name in FIELDS}',
        " for name in FIELDS}",
        ("tests/curation/steps/test_write_candidates.py::test_what_is_not_known_or_not_told_is_said_to_be_so",),
    ),
    Break(
        "scene student: blind to colours, it sees them",
        "capkit/sceneworld/llm.py",
        'return self._guessed(replace(scene, objects=tuple(objects)), stable_hash(seed, "guessed", draw.tolist()))',
        "return replace(scene, objects=tuple(objects))",
        ("tests/effects/test_knowada.py",),
    ),
    Break(
        "scene rewriter: leaves the facts that are asked for",
        "capkit/sceneworld/language/asking.py",
        "            mention.attributes = {item for item in mention.attributes if item[0] != kind}\n",
        "",
        ("tests/sceneworld/test_asking.py",),
    ),
    Break(
        "scene judge: mending corrects nothing",
        "capkit/sceneworld/figures.py",
        "mentions.append(Mention(shape, {item for item in there.attributes if item[0] in kinds}))",
        "mentions.append(Mention(shape, set(mention.attributes)))",
        ("tests/effects/test_mlbcap.py",),
    ),
]
