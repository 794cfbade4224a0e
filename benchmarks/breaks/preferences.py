"""Breaks in rewards of questions and in preferences."""

from benchmarks.breaks.planted import Break

_QA = "capkit/scorers/question_answering.py"
_QA_TESTS = "tests/scorers/test_question_answering.py"
_DPO = "capkit/objectives/preference/dpo.py"
_MODULE = "capkit/train/preferences/module.py"
_DICO = "capkit/objectives/policy/dico.py"
_RATINGS = "capkit/data/rating_files.py"
_RATING_TESTS = "tests/data/test_rating_files.py"
_DICO_TESTS = "tests/objectives/policy/test_dico.py"

BREAKS = [
    Break(
        "question_answering: what could not be read counts as wrong",
        _QA,
        "for answer in answers if answer[-1].choice is not None]",
        "for answer in answers]",
        (f"{_QA_TESTS}::test_shares_by_hand",),
    ),
    Break(
        "question_answering: a caption that nobody read has 0",
        _QA,
        "* len(answers) else math.nan",
        "* len(answers) else 0.0",
        (_QA_TESTS,),
    ),
    Break(
        "question_answering: every step draws the same questions",
        _QA,
        'rng.generator(self.seed, "asked", self._step, key, caption)',
        'rng.generator(self.seed, "asked", key, caption)',
        (_QA_TESTS,),
    ),
    Break(
        "question_answering: draws depend on the batch",
        _QA,
        'rng.generator(self.seed, "asked", self._step, key, caption)',
        'rng.generator(self.seed, "asked", self._step, caption, id(items))',
        (_QA_TESTS,),
    ),
    Break(
        "question_answering: a server that is away is told by one rank alone",
        _QA,
        "gather_objects(problem)",
        "[problem]",
        (f"{_QA_TESTS}::test_two_processes_score_as_one_and_fail_together",),
    ),
    Break(
        "caprl: the abstain option has the next letter",
        "capkit/readers/caprl.py",
        "return before + ABSTAIN_LETTER + LETTERS[question.abstain : len(question.choices) - 1]",
        "return LETTERS[: len(question.choices)]",
        ("tests/readers/test_caprl_reader.py",),
    ),
    Break(
        "dpo: chosen and rejected are exchanged",
        _DPO,
        "self.beta * (counted[:, 0] - counted[:, 1])",
        "self.beta * (counted[:, 1] - counted[:, 0])",
        ("tests/objectives/preference/test_dpo.py",),
    ),
    Break(
        "dpo: padding counts",
        _DPO,
        "logprobs.masked_fill(~mask, 0.0).sum(-1)",
        "logprobs.sum(-1)",
        ("tests/objectives/preference/test_dpo.py",),
    ),
    Break(
        "preferences: each micro-batch is a mean of its own",
        _MODULE,
        "output.loss_sum / num_pairs, output",
        "output.loss_sum / len(part), output",
        ("tests/train/preferences/test_preference_module.py",),
    ),
    Break(
        "preferences: the reference is the policy as it is now",
        _MODULE,
        "with torch.no_grad(), self.reference.model() as model:",
        "with torch.no_grad():\n            model = self.model",
        ("tests/train/preferences/test_preference_module.py",),
    ),
    Break(
        "preference_pairs: training draws the order of the sides",
        "capkit/data/preference_pairs.py",
        "        return targets\n",
        "        return super()._drawn(targets, key)\n",
        ("tests/data/test_preference_pairs.py",),
    ),
    Break(
        "preference_pairs: token ids that were kept are not taken",
        "capkit/data/preference_pairs.py",
        "or not any(kept)",
        "or any(kept)",
        ("tests/data/test_preference_pairs.py",),
    ),
    Break(
        "preferences: an epoch is of pictures",
        "capkit/tasks/fit_preferences.py",
        "data.expect(len(self.train))",
        "pass",
        ("tests/tasks/test_preference_runs.py::test_epochs_are_of_pairs_and_the_val_split_may_be_left_out",),
    ),
    Break(
        "preferences: the loss is a sum over pairs",
        _MODULE,
        "output.loss_sum / num_pairs, output",
        "output.loss_sum, output",
        ("tests/train/preferences/test_preference_module.py",),
    ),
    Break(
        "preferences: the kept reference is of another precision than the policy",
        "capkit/tasks/fit_preferences.py",
        "with run.trainer.precision_plugin.forward_context():",
        "if True:",
        ("tests/tasks/test_preference_runs.py::test_a_run_trains_validates_on_held_out_pairs_and_reports",),
    ),
    Break(
        "question_answering: a run goes on whose reader never gives an answer",
        _QA,
        'if total["unread"] == asked:',
        "if False:",
        (f"{_QA_TESTS}::test_a_step_none_of_whose_answers_can_be_read_ends_the_run",),
    ),
    Break(
        "caprl: a reply that was cut at ten tokens is not read",
        "capkit/readers/caprl.py",
        "reads_cut: ClassVar[bool] = True",
        "reads_cut: ClassVar[bool] = False",
        ("tests/readers/test_caprl_reader.py",),
    ),
    Break(
        "dico: the least bad of the others counts most",
        _DICO,
        "(self.tau * (best - low))",
        "(self.tau * (low - best))",
        (_DICO_TESTS,),
    ),
    Break(
        "dico: an image without spread has a best caption",
        _DICO,
        "(best > low.min(-1, keepdim=True)[0])",
        "(best >= low.min(-1, keepdim=True)[0])",
        (_DICO_TESTS,),
    ),
    Break(
        "dico: compared with the policy that wrote the captions",
        "capkit/train/rl/policy_module.py",
        "(free, part.reference) if objective.against_reference",
        "(free, part.old_logprobs) if objective.against_reference",
        ("tests/train/rl/test_rl_module.py::test_dico_compares_with_the_policy_of_the_start",),
    ),
    Break(
        "raters: pairs of every criterion are taken",
        _RATINGS,
        "taken = [pair for pair in pairs if criterion in (None, pair.criterion)]",
        "taken = pairs",
        (f"{_RATING_TESTS}::test_pairs_are_rankings_of_two_by_the_criterion_that_is_asked_for",),
    ),
    Break(
        "raters: the rejected caption of a pair is the better one",
        _RATINGS,
        "(pair.chosen, pair.rejected), (0.0, -1.0), True",
        "(pair.chosen, pair.rejected), (-1.0, 0.0), True",
        (f"{_RATING_TESTS}::test_pairs_are_rankings_of_two_by_the_criterion_that_is_asked_for",),
    ),
    Break(
        "raters: pairs of several criteria are mixed without a word",
        _RATINGS,
        "if criterion is None and len(known) > 1:",
        "if criterion is None and len(known) > 2:",
        (f"{_RATING_TESTS}::test_criteria_that_do_not_say_which_pairs_are_refused",),
    ),
    Break(
        "dpo: there is no reference",
        _DPO,
        "gained = policy - reference",
        "gained = policy",
        ("tests/objectives/preference/test_dpo.py",),
    ),
    Break(
        "dpo: pairs stand beside the next picture",
        "capkit/data/about_pictures.py",
        "return self._source.image(self._places[index])",
        "return self._source.image(self._places[(index + 1) % len(self)])",
        ("tests/data/test_preference_pairs.py",),
    ),
    Break(
        "feedquill: the number of true claims weighs twice as much as their share",
        "configs/reward/feedquill.yaml",
        "weight: 1.0",
        "weight: 0.25",
        ("tests/experiments/test_published_numbers.py",),
    ),
    Break(
        "dpo: smoothing takes all pairs but its share for exchanged",
        _DPO,
        "-(1 - self.label_smoothing) * logsigmoid(margin) - self.label_smoothing * logsigmoid(-margin)",
        "-self.label_smoothing * logsigmoid(margin) - (1 - self.label_smoothing) * logsigmoid(-margin)",
        ("tests/objectives/preference/test_dpo.py",),
    ),
    Break(
        "dico: all others count the same",
        _DICO,
        "(self.tau * (best - low))",
        "(0.0 * (best - low))",
        (_DICO_TESTS,),
    ),
    Break(
        "collect_preferences: captions that training would cut are in pairs",
        "capkit/tasks/collect_preferences.py",
        "fits = [start + len(own) <= data.max_length for own in ids]",
        "fits = [True for own in ids]",
        ("tests/tasks/test_preference_runs.py::test_captions_that_training_would_cut_are_in_no_pair",),
    ),
    Break(
        "preferences' page: an alarm for the last step alone",
        "capkit/reports/preferences.py",
        'for step, drop in curve(rows, f"{name}/preference/chosen_drop")\n',
        'for step, drop in curve(rows, f"{name}/preference/chosen_drop")[-1:]\n',
        ("tests/reports/test_preferences_report.py",),
    ),
]
