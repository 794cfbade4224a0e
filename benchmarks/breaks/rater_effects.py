"""Methods taken away, which effects must notice: raters, filters by them, captioners that learn from preferences."""

from benchmarks.breaks.planted import Break

_BRADLEY_TERRY = "capkit/objectives/rating/bradley_terry.py"
_REGRESSION = "capkit/objectives/rating/regression.py"
_KEEP_BEST = "capkit/curation/steps/keep_best.py"
_DPO = "capkit/objectives/preference/dpo.py"
_DICO = "capkit/objectives/policy/dico.py"
_PPO = "capkit/objectives/policy/ppo.py"
_SCORE = "capkit/scorers/rater.py"

_RATERS = "tests/effects/test_rater_effects.py"
_ORDER = f"{_RATERS}::test_pairs_are_ordered_as_the_scene_orders_them_and_not_by_length"
_GRADES = f"{_RATERS}::test_distilled_grades_follow_the_true_quality"
_KEPT = f"{_RATERS}::test_captioners_of_the_captions_kept_beat_those_of_all"
_BY_DPO, _BY_DICO, _BY_PPO = (
    f"tests/effects/{name}.py::test_wrong_facts_go_and_true_ones_stay"
    for name in ("test_preferences", "test_dico_effect", "test_feedquill_effect")
)

BREAKS = [
    Break(
        "raters learn nothing",
        _BRADLEY_TERRY,
        "return losses.masked_fill(~better_pairs(grades, mask), 0.0).sum()",
        "return 0 * losses.masked_fill(~better_pairs(grades, mask), 0.0).sum()",
        (_ORDER,),
    ),
    Break(
        "raters learn that the worse caption is better",
        _BRADLEY_TERRY,
        "-logsigmoid(scores[:, :, None] - scores[:, None, :])",
        "-logsigmoid(scores[:, None, :] - scores[:, :, None])",
        (_ORDER,),
    ),
    Break(
        "raters learn the grades of other captions",
        "capkit/data/ratings.py",
        "zip(item.captions, item.grades, strict=True)",
        "zip(item.captions, item.grades[::-1], strict=True)",
        (_ORDER,),
    ),
    Break(
        "raters learn captions beside the next picture",
        "capkit/data/about_pictures.py",
        "return self._source.image(self._places[index])",
        "return self._source.image(self._places[(index + 1) % len(self)])",
        (_ORDER,),
    ),
    Break(
        "raters do not look at the picture",
        "capkit/models/raters/dual_encoder_rater.py",
        "torch.cat([images, texts, images * texts, (images - texts).abs()], 1)",
        "torch.cat([0 * images, texts, 0 * texts, texts.abs()], 1)",
        (_ORDER,),
    ),
    Break(
        "raters of rankings leave the level of a picture open",
        _BRADLEY_TERRY,
        "        if self.center:",
        "        if False:",
        (f"{_RATERS}::test_the_best_captions_of_the_web_are_good_ones",),
    ),
    Break(
        "grades teach a rater nothing",
        _REGRESSION,
        "return (scores - grades)",
        "return 0 * (scores - grades)",
        (_GRADES,),
    ),
    Break(
        "a rater of grades learns their opposite",
        _REGRESSION,
        "return (scores - grades)",
        "return (scores + grades)",
        (_GRADES,),
    ),
    Break(
        "keep_best keeps the worst, and a captioner learns them",
        _KEEP_BEST,
        "values >= lowest if",
        "values < lowest if",
        (_KEPT,),
    ),
    Break(
        "keep_best keeps all, and a captioner learns them",
        _KEEP_BEST,
        "values >= lowest if",
        "values > -math.inf if",
        (_KEPT,),
    ),
    Break(
        "keep_best takes the scores of the record before",
        _KEEP_BEST,
        "zip(records(), scores, strict=True)",
        "zip(records(), [scores[-1], *scores[:-1]], strict=True)",
        (f"{_RATERS}::test_what_is_kept_is_flawless_more_often",),
    ),
    Break(
        "keep_best keeps all grades, and a captioner learns them",
        _KEEP_BEST,
        "values >= lowest if",
        "values > -math.inf if",
        (f"{_RATERS}::test_captioners_of_high_grades_beat_those_of_all",),
    ),
    Break(
        "DPO learns nothing",
        _DPO,
        "return PreferenceOutput(losses.sum(),",
        "return PreferenceOutput(0 * losses.sum(),",
        (_BY_DPO,),
    ),
    Break(
        "DPO prefers the rejected captions",
        _DPO,
        "self.beta * (counted[:, 0] - counted[:, 1])",
        "self.beta * (counted[:, 1] - counted[:, 0])",
        (_BY_DPO,),
    ),
    Break(
        "DPO raises the chosen captions alone",
        _DPO,
        "self.beta * (counted[:, 0] - counted[:, 1])",
        "self.beta * counted[:, 0]",
        ("tests/effects/test_preferences.py::test_held_out_pairs_are_told_apart",),
    ),
    Break(
        "DiCO learns nothing",
        _DICO,
        "return losses.sum(), {",
        "return 0 * losses.sum(), {",
        (_BY_DICO,),
    ),
    Break(
        "DiCO pushes the best beam down",
        _DICO,
        "torch.where(is_best, 1.0, -shares)",
        "torch.where(is_best, -1.0, shares)",
        (_BY_DICO,),
    ),
    Break(
        "DiCO is paid for another beam",
        _DICO,
        "values = rewards.double()",
        "values = rewards.double().roll(1, 1)",
        (_BY_DICO,),
    ),
    Break(
        "PPO learns nothing",
        _PPO,
        "losses = -torch.minimum(",
        "losses = -0 * torch.minimum(",
        (_BY_PPO,),
    ),
    Break(
        "PPO learns what is worse",
        _PPO,
        "gain = advantages[..., None]",
        "gain = -advantages[..., None]",
        (_BY_PPO,),
    ),
    Break(
        "PPO is paid for another sample of the picture",
        _SCORE,
        "return unflatten_scores(scores, samples)",
        "return unflatten_scores(scores, samples).roll(1, 1)",
        (_BY_PPO,),
    ),
    Break(
        "PPO is paid for another picture's samples",
        _SCORE,
        "return unflatten_scores(scores, samples)",
        "return unflatten_scores(scores, samples).roll(1, 0)",
        (_BY_PPO,),
    ),
]
