"""Breaks in CAMU: what the label of a meme is read from, which caption is chosen, what trains."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "pictures of memes are blank",
        "capkit/methods/memes/scene_source.py",
        'np.zeros_like(picture) if self._without == "picture" else picture',
        'np.zeros_like(picture) if self._without != "text" else picture',
        (
            "tests/methods/memes/test_memes.py::test_scene_memes_keep_their_candidates_and_the_place_of_the_informative_one",
        ),
    ),
    Break(
        "the captions name the colour (the fault of the earlier memes: blank pictures pass)",
        "capkit/sceneworld/memes.py",
        "detail = _COLOR if names_color else _NO_COLOR",
        "detail = _COLOR",
        (
            "tests/sceneworld/test_scene_memes.py::test_the_informative_caption_tells_the_meaning_and_neither_tells_colour_or_text",
        ),
    ),
    Break(
        "the label leaves the meaning out: no caption is needed",
        "capkit/sceneworld/memes.py",
        "is_warm ^ is_unkind ^ is_ironic,",
        "is_warm ^ is_unkind,",
        ("tests/sceneworld/test_scene_memes.py::test_the_label_is_the_parity_of_warm_colour_unkind_text_and_irony",),
    ),
    Break(
        "the place of the informative caption is off",
        "capkit/sceneworld/memes.py",
        "captions if informative == 0 else captions[::-1],",
        "captions if informative == 1 else captions[::-1],",
        (
            "tests/sceneworld/test_scene_memes.py::test_the_informative_caption_tells_the_meaning_and_neither_tells_colour_or_text",
        ),
    ),
    Break(
        "the caption with the lowest score is chosen",
        "capkit/methods/memes/caption_choice.py",
        "chosen = nn.functional.one_hot(logits.argmax(-1), scores.shape[-1]) * present",
        "chosen = nn.functional.one_hot(logits.argmin(-1), scores.shape[-1]) * present",
        ("tests/methods/memes/test_caption_scorer.py::test_without_noise_the_highest_present_score_is_chosen",),
    ),
    Break(
        "the relevance term is dropped",
        "capkit/methods/memes/loss.py",
        "loss = classification + self.relevance * relevance",
        "loss = classification",
        ("tests/methods/memes/test_camu_loss.py::test_a_hand_worked_example",),
    ),
    Break(
        "the image side trains with the classifier",
        "capkit/methods/memes/model.py",
        "                parameter.requires_grad_(False)\n        width",
        "                parameter.requires_grad_(True)\n        width",
        ("tests/methods/memes/test_camu.py::test_every_trained_parameter_gets_a_gradient_in_every_batch",),
    ),
    Break(
        "all text layers of last_n train",
        "capkit/models/tuning/policy.py",
        "_freeze_all_but(tower, [*self._last(layers, tower), *after])",
        "_freeze_all_but(tower, [*layers, *after])",
        ("tests/methods/memes/test_camu.py::test_gradients_reach_what_is_tuned_and_nothing_else",),
    ),
    Break(
        "the choice gets no gradient from the classification",
        "capkit/methods/memes/caption_choice.py",
        "return chosen + soft - soft.detach()",
        "return chosen + (soft - soft).detach()",
        ("tests/methods/memes/test_caption_scorer.py::test_the_gradient_is_that_of_the_softmax_of_scores_and_noise",),
    ),
    Break(
        "an empty candidate may be chosen",
        "capkit/methods/memes/caption_choice.py",
        ".masked_fill(~present, lowest)",
        ".masked_fill(present & ~present, lowest)",
        ("tests/methods/memes/test_caption_scorer.py::test_without_noise_the_highest_present_score_is_chosen",),
    ),
    Break(
        "a refused caption leaves the meme out",
        "capkit/curation/steps/meme_caption.py",
        "self._fail(record, str(answer.failure), answer.said)",
        "self._fail(record, str(answer.failure), answer.said); continue",
        ("tests/curation/steps/test_meme_caption.py::test_a_refusal_is_an_empty_candidate_and_is_listed",),
    ),
    Break(
        "boxes are divided by height and width",
        "capkit/experts/hf_detector.py",
        "torch.tensor([width, height, width, height])",
        "torch.tensor([height, width, height, width])",
        ("tests/experts/test_hf_detector.py::test_boxes_are_those_of_the_model_relative_to_width_and_height",),
    ),
    Break(
        "the tags are the least similar ones",
        "capkit/experts/zero_shot_tagger.py",
        "cosines.topk(self._top)",
        "cosines.topk(self._top, largest=False)",
        ("tests/experts/test_zero_shot_tagger.py::test_tags_are_those_of_the_highest_cosine_in_order",),
    ),
    Break(
        "the detector is asked for what the picture before showed",
        "capkit/curation/steps/locate_tags.py",
        "self._detector.detect(pictures, names)",
        "self._detector.detect(pictures, [*names[-1:], *names[:-1]])",
        ("tests/curation/steps/test_locate_tags.py::test_the_detector_is_asked_for_what_the_tagger_named",),
    ),
    Break(
        "the prompt leaves the text of the meme out",
        "capkit/curation/steps/meme_caption.py",
        'text=record.metadata.get("text") or "(not known)"',
        'text="(not known)"',
        (
            "tests/curation/steps/test_meme_caption.py::test_the_model_gets_the_picture_its_text_and_each_box_in_percent",
        ),
    ),
    Break(
        "the picture does not reach the head",
        "capkit/methods/memes/model.py",
        "self.fusion(tokens, text[:, None])",
        "self.fusion(0 * tokens, text[:, None])",
        ("tests/effects/test_camu_memes.py::test_picture_text_and_caption_together_tell_the_label",),
    ),
    Break(
        "the choice of a caption is left to chance",
        "capkit/methods/memes/model.py",
        "weights = select(scores, present, noise, self.tau)",
        "weights = select(0 * scores, present, noise, self.tau)",
        ("tests/effects/test_camu_memes.py::test_picture_text_and_caption_together_tell_the_label",),
    ),
]
