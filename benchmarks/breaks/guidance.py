"""Breaks in guided decoding and image dropout."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "the reading without the image is not subtracted",
        "capkit/decoding/guided.py",
        "    scores = scores - no_image * without_image",
        "    scores = scores - 0.0 * without_image",
        (
            "tests/decoding/test_guided.py::test_a_step_worked_by_hand",
            "tests/decoding/test_guided.py::test_greedy_captions_are_those_of_two_whole_passes_a_token",
        ),
    ),
    Break(
        "guided scores are not renormalised",
        "capkit/decoding/guided.py",
        "    return (scores if language is None else scores + language).log_softmax(-1)",
        "    return scores if language is None else scores + language",
        ("tests/decoding/test_guided.py::test_a_step_worked_by_hand",),
    ),
    Break(
        "beams reorder the rows with the image alone",
        "capkit/decoding/guided.py",
        "torch.cat([beam_idx, beam_idx + len(beam_idx)])",
        "torch.cat([beam_idx, torch.arange(len(beam_idx), 2 * len(beam_idx))])",
        ("tests/decoding/test_guided.py::test_beams_are_scored_by_the_guided_distribution",),
    ),
    Break(
        "a token that is impossible without the image has an infinite score",
        "capkit/decoding/guided.py",
        ".log_softmax(-1).clamp(min=LEAST)",
        ".log_softmax(-1)",
        (
            (
                "tests/decoding/test_guided.py::test_what_is_impossible_without_the_image_has_a_finite_sc"
                "ore_and_what_is_with_it_none"
            ),
        ),
    ),
    Break(
        "the language model's line breaks are tokens like others",
        "capkit/decoding/language_model.py",
        "        logprobs = logprobs.index_fill(-1, breaks, -torch.inf)",
        "        logprobs = logprobs.clone()",
        ("tests/decoding/test_guided.py::test_what_goes_to_line_breaks_goes_to_the_end",),
    ),
    Break(
        "the language model reads BOS again behind its examples",
        "capkit/decoding/language_model.py",
        "tokens = torch.cat([last, tokens[:, 1:]], dim=1)",
        "tokens = torch.cat([last, tokens], dim=1)",
        ("tests/decoding/test_guided.py::test_a_causal_language_model_goes_on_from_its_prompt",),
    ),
    Break(
        "images are dropped by their place in the batch",
        "capkit/objectives/image_dropout.py",
        '"image_dropout", key) for key in context.keys]',
        '"image_dropout", number) for number, key in enumerate(context.keys)]',
        ("tests/objectives/test_image_dropout.py::test_an_image_is_missing_by_seed_step_and_key_alone",),
    ),
    Break(
        "the same images are missing in every step",
        "capkit/objectives/image_dropout.py",
        "rng.uniform(ids, step)",
        "rng.uniform(ids, 0)",
        ("tests/objectives/test_image_dropout.py::test_an_image_is_missing_by_seed_step_and_key_alone",),
    ),
    Break(
        "a validation loss misses images too",
        "capkit/objectives/cross_entropy.py",
        "if self.image_dropout and torch.is_grad_enabled():",
        "if self.image_dropout:",
        ("tests/objectives/test_image_dropout.py::test_a_validation_loss_is_of_all_images",),
    ),
    Break(
        "dropped images keep a share of their states",
        "capkit/objectives/image_dropout.py",
        "kept[:, None, None], 0.0)",
        "kept[:, None, None], 0.1 * context.states)",
        (("tests/objectives/test_image_dropout.py::test_loss_and_gradient_are_those_of_zeros_behind_the_projection"),),
    ),
]
