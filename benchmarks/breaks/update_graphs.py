"""Breaks in updates by captured graphs."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "a backward pass of an older forward pass is run",
        "capkit/models/gradient_graphs.py",
        "if number != self.number or not self._waits:",
        "if number > self.number:",
        ("tests/train/test_graphed_logprobs.py::test_each_backward_pass_is_the_first_of_the_last_forward_pass",),
    ),
    Break(
        "a backward pass is run twice on what the first wrote over",
        "capkit/models/gradient_graphs.py",
        "        self._waits = False\n",
        "",
        ("tests/train/test_graphed_logprobs.py::test_each_backward_pass_is_the_first_of_the_last_forward_pass",),
    ),
    Break(
        "graphs forget the temperature they were captured at",
        "capkit/models/gradient_graphs.py",
        "key = settings, tuple(",
        "key = (), tuple(",
        ("tests/train/test_graphed_logprobs.py::test_settings_and_trained_weights_tell_graphs_apart",),
    ),
    Break(
        "graphs forget which weights train",
        "capkit/models/gradient_graphs.py",
        "return cls(trained, (replaced, hash(tuple(map(id, trained))), state_of([network])))",
        "return cls(trained, (replaced, state_of([network])))",
        ("tests/train/test_graphed_logprobs.py::test_settings_and_trained_weights_tell_graphs_apart",),
    ),
    Break(
        "no graph is ever given up",
        "capkit/models/gradient_graphs.py",
        "while len(kept) > MOST_GRAPHS:",
        "while len(kept) > 100 * MOST_GRAPHS:",
        ("tests/train/test_graphed_logprobs.py::test_few_shapes_are_kept_and_all_are_released",),
    ),
    Break(
        "a network in training mode is captured with its dropout",
        "capkit/models/gradient_graphs.py",
        "part.training\n        or part._forward_hooks",
        "part._forward_hooks",
        ("tests/train/test_graphed_logprobs.py::test_what_a_graph_cannot_hold_goes_op_by_op",),
    ),
    Break(
        "restricted draws are scored over the whole vocabulary",
        "capkit/train/rl/graphed_logprobs.py",
        "if samples.support is not None or model.conditions is not None:",
        "if model.conditions is not None:",
        ("tests/train/test_graphed_logprobs.py::test_restricted_draws_and_prompts_of_captions_go_op_by_op",),
    ),
    Break(
        "the update begins after the rewards",
        "capkit/train/rl/module.py",
        (
            "        begun = self._begin_update(batch, samples)\n"
            "        rollout, logs = self.score_rollout(batch, samples, greedy, kl, step)\n"
        ),
        (
            "        rollout, logs = self.score_rollout(batch, samples, greedy, kl, step)\n"
            "        begun = self._begin_update(batch, samples)\n"
        ),
        (
            "tests/train/test_graphed_logprobs.py::test_training_with_passes_that_begin_before_rewards_is_training_op_by_op",
        ),
    ),
    Break(
        "numbers of a gradient are waited for in its own update",
        "capkit/train/train_module.py",
        "self._settle(self._num_known)",
        "self.settle()",
        ("tests/train/test_told_later.py::test_numbers_of_a_gradient_are_not_waited_for_in_its_own_update",),
    ),
]
