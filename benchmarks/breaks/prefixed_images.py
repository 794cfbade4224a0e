"""Breaks in BLIP-2: what its Q-Former asks, where the text stands, what is frozen."""

from benchmarks.breaks.planted import Break

HF = "tests/models/captioners/test_hf_captioner.py"

BREAKS = [
    Break(
        "BLIP-2: the Q-Former reads the padding of cached features",
        "capkit/models/captioners/blip2.py",
        "seen = None if mask is None else mask.long()",
        "seen = None",
        (f"{HF}::test_blip2_asks_nothing_of_padding_among_cached_tokens_of_images",),
    ),
    Break(
        "BLIP-2: the text's positions do not count the queries",
        "capkit/models/captioners/blip2.py",
        "places = torch.arange(past, past + num_new, device=tokens.device)[None]",
        "places = (torch.arange(past, past + num_new, device=tokens.device)[None] - states.shape[1]).clamp(min=0)",
        (f"{HF}::test_logits_equal_transformers_own_forward",),
    ),
    Break(
        "BLIP-2: the queries are given at every token that is written",
        "capkit/models/captioners/blip2.py",
        "    if past == 0:\n",
        "    if True:\n",
        (f"{HF}::test_greedy_captions_equal_transformers_own_generation",),
    ),
    Break(
        "BLIP-2: the frozen language model trains",
        "capkit/models/captioners/hf_captioner.py",
        "self._language_model.requires_grad_(False).eval()",
        "self._language_model.eval()",
        (f"{HF}::test_what_is_frozen_of_blip2_gets_no_gradient_and_the_q_former_learns",),
    ),
    Break(
        "BLIP-2: a missing image has one state",
        "capkit/models/captioners/hf_captioner.py",
        "num_states = self._family.num_states(self.model.config) or 1",
        "num_states = 1",
        (f"{HF}::test_a_missing_image_has_as_many_queries_in_blip2_as_one_that_is_there",),
    ),
    Break(
        "BLIP-2: a caption may be longer than the positions left of the queries",
        "capkit/models/captioners/hf_captioner.py",
        "return positions - (family.num_states(config) or 0)",
        "return positions",
        (f"{HF}::test_wrong_arguments_are_usage_errors",),
    ),
]
