"""Breaks in conditions of captions."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "a token's position counts the conditions in front of it",
        "capkit/models/captioners/encoder_decoder.py",
        "start = max(0, past - context.num_conditions)",
        "start = past",
        (
            (
                "tests/models/captioners/test_conditioned_captioners.py::test_stepwise_decoding_equals_te"
                "acher_forcing_in_any_batch[encoder_decoder-greedy-]"
            ),
        ),
    ),
    Break(
        "conditions take positions of their own in transformers' decoders",
        "capkit/models/conditions/prefix.py",
        "return (places - (places - front).clamp(0, context.num_conditions))[None]",
        "return places[None]",
        ("tests/models/captioners/test_conditioned_captioners.py::test_a_token_keeps_its_position_behind_conditions",),
    ),
    Break(
        "transformers takes places of one position for packed sequences",
        "capkit/models/captioners/hf_families.py",
        '"position_ids": places, "attention_mask": mask}',
        '"position_ids": places}',
        (
            (
                "tests/models/captioners/test_conditioned_captioners.py::test_stepwise_decoding_equals_te"
                "acher_forcing_in_any_batch[vit_gpt2-greedy-]"
            ),
        ),
    ),
    Break(
        "captions of an image take each other's conditions",
        "capkit/models/conditions/prefix.py",
        "vectors = given.repeat_interleave(num_rows // num_given, 0)",
        "vectors = given.repeat(num_rows // num_given, 1, 1)",
        (
            (
                "tests/models/captioners/test_conditioned_captioners.py::test_stepwise_decoding_equals_te"
                "acher_forcing_in_any_batch[encoder_decoder-sample-]"
            ),
        ),
    ),
    Break(
        "guidance takes the wish away with the image",
        "capkit/decoding/guided.py",
        "context.conditions.repeat(2, 1, 1, 1)",
        "torch.cat([context.conditions, torch.zeros_like(context.conditions)])",
        (
            (
                "tests/models/captioners/test_conditioned_captioners.py::test_guidance_compares_with_a_mi"
                "ssing_image_under_the_same_conditions"
            ),
        ),
    ),
    Break(
        "the cache has no room for the conditions",
        "capkit/models/captioners/encoder_decoder.py",
        "_DecoderCache(context.num_conditions + capacity,",
        "_DecoderCache(capacity,",
        (
            (
                "tests/models/captioners/test_conditioned_captioners.py::test_stepwise_decoding_equals_te"
                "acher_forcing_in_any_batch[encoder_decoder-greedy-]"
            ),
        ),
    ),
    Break(
        "a fused step's position counts the conditions",
        "capkit/models/captioners/clip_prefix.py",
        "position = past - context.num_conditions",
        "position = past",
        ("tests/models/captioners/test_fused_step.py::test_captions_under_conditions_are_those_of_the_usual_step",),
    ),
    Break(
        "micro-batches keep the conditions of the first images",
        "capkit/types.py",
        "changes[spec.name] = {k: v[rows] for k, v in value.items()}",
        "changes[spec.name] = {k: v[: len(changes['keys'])] for k, v in value.items()}",
        (
            (
                "tests/models/captioners/test_conditioned_captioners.py::test_micro_batches_in_another_or"
                "der_take_their_conditions_along"
            ),
            (
                "tests/train/rl/test_conditioned_rollout.py::test_samples_are_written_and_learned_under_t"
                "he_values_of_their_image"
            ),
        ),
    ),
    Break(
        "the vector of no value is not learned",
        "capkit/models/conditions/parts.py",
        "self.not_given.to(vectors.dtype)",
        "self.not_given.detach().to(vectors.dtype)",
        ("tests/models/conditions/test_parts.py::test_gradients_reach_what_was_read_and_every_parameter_has_one",),
    ),
    Break(
        "a caption longer than is learned has a length all the same",
        "capkit/models/conditions/length.py",
        "return values <= self.longest",
        "return values > 0",
        ("tests/models/conditions/test_parts.py::test_what_is_missing_unknown_or_longer_than_learned_is_not_given",),
    ),
    Break(
        "all conditions of a caption are dropped together",
        "capkit/data/dataset.py",
        'stable_hash(*key, "condition", name)',
        'stable_hash(*key, "condition")',
        ("tests/data/conditions/test_readers.py::test_dropped_values_differ_between_names_and_epochs",),
    ),
    Break(
        "an empty box is asked for",
        "capkit/models/conditions/box.py",
        "return 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1",
        "return 0 <= x0 <= x1 <= 1 and 0 <= y0 <= y1 <= 1",
        ("tests/models/conditions/test_kinds.py::test_what_is_no_value_is_refused_by_name",),
    ),
    Break(
        "a replayed graph reads the conditions that it was captured with",
        "capkit/decoding/graphs.py",
        "self.context.conditions.copy_(context.conditions)",
        "pass",
        ("tests/decoding/test_graph_keys.py::test_a_replay_reads_the_states_mask_conditions_and_ids_that_it_is_given",),
    ),
]
