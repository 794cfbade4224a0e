"""Breaks in rollouts that a server writes, and in captions of several ends."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "all versions of adapters have one name",
        "capkit/train/rl/adapter_versions.py",
        'name = f"{self._prefix}{digest}"',
        'name = f"{self._prefix}adapters"',
        ("tests/models/captioners/test_vllm_rollout.py::test_every_version_has_a_name_of_its_own_and_one_is_kept",),
    ),
    Break(
        "adapters are given to the server once",
        "capkit/train/rl/vllm_rollout.py",
        "if self._name is not None and 0 <= step - self._synced_at < self.sync_every:",
        "if self._name is not None:",
        ("tests/models/captioners/test_vllm_rollout.py::test_each_step_learns_from_captions_of_its_own_weights",),
    ),
    Break(
        "captions of another model are taken",
        "capkit/train/rl/vllm_rollout.py",
        "        if reply.model != name:",
        "        if not reply.model:",
        ("tests/models/captioners/test_vllm_rollout.py::test_a_server_that_answers_as_another_model_is_told",),
    ),
    Break(
        "a prompt of other ids is taken",
        "capkit/train/rl/vllm_rollout.py",
        "        if reply.prompt_ids != model.asked_ids:",
        "        if not reply.prompt_ids:",
        (
            "tests/models/captioners/test_vllm_rollout.py::test_another_tokenizer_or_template_or_size_of_picture_is_refused_before_the_run",
        ),
    ),
    Break(
        "a gap is not looked at",
        "capkit/train/rl/vllm_rollout.py",
        "        if self.is_behind(step) or not gap > self.max_gap:",
        "        if self.is_behind(step) or gap > 0:",
        (
            "tests/models/captioners/test_vllm_rollout.py::test_a_server_that_keeps_old_weights_under_a_new_name_ends_the_run_before_the_update",
        ),
    ),
    Break(
        "every image is asked with one seed",
        "capkit/train/rl/vllm_rollout.py",
        "stable_hash(decoding.seed, batch.keys[image]) % _NUM_SEEDS",
        "stable_hash(decoding.seed) % _NUM_SEEDS",
        ("tests/models/captioners/test_vllm_rollout.py::test_the_server_gets_the_pictures_bytes",),
    ),
    Break(
        "the server's own sampling settings are left",
        "capkit/train/rl/vllm_rollout.py",
        "            **_PLAIN,\n",
        "",
        ("tests/models/captioners/test_vllm_rollout.py::test_a_servers_samples_are_of_the_policy_with_its_adapters",),
    ),
    Break(
        "samples of earlier weights count as the policy's",
        "capkit/train/rl/policy_module.py",
        "part.old_logprobs = samples.logprobs if is_behind else own",
        "part.old_logprobs = own",
        (
            "tests/models/captioners/test_vllm_rollout.py::test_between_synchronisations_the_ratio_starts_from_the_servers_logprobs",
        ),
    ),
    Break(
        "one rank's failure is not told to the others",
        "capkit/train/rl/vllm_rollout.py",
        "[found for found in gather_objects(problem) if found is not None]",
        "[problem for _ in [0] if problem]",
        ("tests/models/captioners/test_vllm_rollout.py::test_every_rank_hears_of_one_ranks_failure",),
    ),
    Break(
        "a step whose server is away is not saved",
        "capkit/train/callbacks/checkpoints.py",
        "if isinstance(exception, ServerFailed) and",
        "if isinstance(exception, UsageError) and",
        ("tests/tasks/test_rollout_server_run.py::test_a_run_goes_on_after_its_server_was_away_as_if_it_had_not_been",),
    ),
    Break(
        "a lost reply of a load is a failure",
        "capkit/train/rl/vllm_client.py",
        "            if name in self.models():  # by an attempt whose reply was lost\n                return\n",
        "",
        (
            "tests/models/captioners/test_vllm_rollout.py::test_adapters_whose_replies_were_lost_count_as_loaded_and_unloaded",
        ),
    ),
    Break(
        "only EOS ends a caption",
        "capkit/decoding/engine.py",
        "    for end in other_ends:\n        found = found | (tokens == end)\n",
        "",
        ("tests/models/captioners/test_several_ends.py::test_a_caption_ends_at_any_of_them_and_has_none_in_its_text",),
    ),
    Break(
        "other ends come before the shortest length",
        "capkit/decoding/sampling.py",
        "        for end in (eos_token_id, *other_ends):",
        "        for end in (eos_token_id,):",
        ("tests/models/captioners/test_several_ends.py::test_no_end_comes_before_the_shortest_length",),
    ),
    Break(
        "an export ends at EOS alone",
        "capkit/checkpoint/exported.py",
        "eos_token_id=ends if model.other_ends else ends[0]",
        "eos_token_id=ends[0]",
        (
            "tests/models/captioners/test_several_ends.py::test_transformers_ends_where_capkit_does_and_so_does_an_export",
        ),
    ),
    Break(
        "a log-probability that is no number is taken",
        "capkit/train/rl/vllm_client.py",
        "if not math.isfinite(value) or value > _ROUNDING",
        "if False",
        (
            "tests/models/captioners/test_vllm_rollout.py::test_a_reply_that_cannot_be_learned_from_is_refused_before_the_run",
        ),
    ),
    Break(
        "adapters of another scale count as those that the server has",
        "capkit/train/rl/adapter_versions.py",
        'str([config["r"], config["lora_alpha"]])',
        'str(config["r"])',
        ("tests/models/captioners/test_vllm_rollout.py::test_the_same_weights_by_another_scale_are_another_version",),
    ),
    Break(
        "runs of one name take away each other's adapters",
        "capkit/train/rl/vllm_rollout.py",
        'f"{folder.name}-{stable_hash(str(folder.absolute())) & 0xFFFFFFFF:08x}"',
        "folder.name",
        ("tests/models/captioners/test_vllm_rollout.py::test_runs_of_one_name_do_not_share_a_folder_of_adapters",),
    ),
    Break(
        "a baseline remembers what a server of other weights wrote",
        "capkit/train/rl/module.py",
        "            self._remember(before)\n            raise",
        "            raise",
        (
            "tests/models/captioners/test_vllm_rollout.py::test_what_a_server_of_other_weights_wrote_is_forgotten_before_the_run_is_saved",
        ),
    ),
    Break(
        "an answer to a prompt of its own is asked of the server as the question",
        "capkit/tasks/fit_rl.py",
        'if module.server is not None and (prompt := next(run.data.prompts("train"), None)) is not None:',
        'if module.server is not None and (prompt := next(run.data.prompts("train"), None)) == "":',
        (
            "tests/tasks/test_rollout_server_run.py::test_captions_that_answer_prompts_of_their_own_end_the_run_before_a_step",
        ),
    ),
    Break(
        "the demo shows another end of a caption as a word",
        "capkit/demo/answers.py",
        "in (model.tokenizer.eos_token_id, *other_ends(model))",
        "in (model.tokenizer.eos_token_id,)",
        ("tests/demo/test_demo_answers.py::test_any_token_that_ends_a_caption_is_its_end_and_no_word",),
    ),
    Break(
        "BLIP-2 ends captions as its tokenizer says, and not as it was trained",
        "capkit/models/captioners/hf_captioner.py",
        'align_special_tokens(self.tokenizer, {"bos": bos, "eos": eos})',
        'align_special_tokens(self.tokenizer, {"bos": bos})',
        (
            "tests/models/captioners/test_hf_captioner.py::test_blip2_by_opt_begins_with_its_bos_and_ends_with_a_line_break",
        ),
    ),
]
