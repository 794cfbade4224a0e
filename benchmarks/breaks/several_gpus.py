"""Breaks in what is measured and broken on several GPUs."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "Lightning's broadcast in each step stays",
        "capkit/upstream/lightning.py",
        "    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = _nothing  # type: ignore[method-assign]\n",
        "",
        ("tests/distributed/test_no_broadcast.py", "tests/packaging/test_private_touches.py"),
    ),
    Break(
        "overlapping kernels count twice",
        "benchmarks/speed/kernels.py",
        "stop - max(start, end)",
        "stop - start",
        ("tests/benchmarks/test_groups.py",),
    ),
    Break(
        "all of NCCL's time is hidden",
        "benchmarks/speed/kernels.py",
        "covered([*nccl, *others])",
        "covered(others)",
        ("tests/benchmarks/test_groups.py",),
    ),
    Break(
        "a group's failure is not told",
        "benchmarks/groups.py",
        "                if not is_fine:\n",
        "                if False:\n",
        ("tests/benchmarks/test_groups.py",),
    ),
    Break(
        "a speed-up forgets the number of GPUs",
        "benchmarks/speed/spread.py",
        "row.devices * alone / ms",
        "alone / ms",
        ("tests/benchmarks/test_benchmarks_devices.py::test_a_row_is_held_against_one_gpu_of_the_same_round",),
    ),
    Break(
        "the plan's traffic is of one rank",
        "benchmarks/speed/spread.py",
        "traffic(work, self.strategy, self.devices)",
        "traffic(work, self.strategy, 1)",
        ("tests/benchmarks/test_benchmarks_devices.py::test_a_row_is_held_against_one_gpu_of_the_same_round",),
    ),
    Break(
        "tokens beyond the shorter caption are not compared",
        "benchmarks/strategies/rollouts.py",
        "in zip_longest(*pair))",
        "in zip(*pair))",
        ("tests/benchmarks/test_benchmarks_devices.py::test_captions_are_compared_token_by_token",),
    ),
    Break(
        "small losses are compared by shares of themselves",
        "benchmarks/faults/runs.py",
        "max(0.1, abs(theirs[step]))",
        "abs(theirs[step])",
        ("tests/benchmarks/test_benchmarks_devices.py::test_runs_on_other_numbers_of_ranks_saw_the_same_data_or_not",),
    ),
    Break(
        "data of a step done again is not looked at",
        "benchmarks/faults/runs.py",
        "for key in keys)\n    return seen",
        "for key in sorted(kept)[-1])\n    return seen",
        ("tests/benchmarks/test_benchmarks_devices.py::test_runs_on_other_numbers_of_ranks_saw_the_same_data_or_not",),
    ),
    Break(
        "memory ends in a rollout",
        "benchmarks/faults/keys.py",
        "if not torch.is_grad_enabled():  # a rollout",
        "if torch.is_inference_mode_enabled():",
        ("tests/benchmarks/test_benchmarks_devices.py::test_memory_ends_once_in_an_update_of_the_rank_that_was_named",),
    ),
    Break(
        "one GPU is asked for faults of many",
        "benchmarks/faults/__main__.py",
        "os.geteuid() == 0, all(",
        "os.geteuid() == 0, any(",
        (
            "tests/benchmarks/test_benchmarks_devices.py::test_lives_on_gpus_have_every_fault_once_that_their_ranks_can_meet",
        ),
    ),
    Break(
        "what lies on the host goes through NCCL",
        "capkit/distributed/collectives.py",
        "    return dist.group.WORLD if value.is_cuda else host_group()",
        "    return dist.group.WORLD",
        (
            "tests/distributed/test_distributed.py::test_what_lies_on_the_host_goes_through_one_group_of_its_own_under_nccl",
        ),
    ),
    Break(
        "numbers of a validation go through NCCL on ranks that have some",
        "capkit/distributed/collectives.py",
        """torch.device("cpu"))).cpu()""",
        """torch.device("cpu")))""",
        (
            "tests/distributed/test_groups_of_ranks.py::test_a_rank_without_a_validation_batch_exchanges_where_the_others_do",
        ),
    ),
    Break(
        "a group for the host is made at each exchange",
        "capkit/distributed/collectives.py",
        "    if world not in _host_groups:\n",
        "    if True:\n",
        (
            "tests/distributed/test_distributed.py::test_what_lies_on_the_host_goes_through_one_group_of_its_own_under_nccl",
        ),
    ),
    Break(
        "rollouts in parts are the first part again and again",
        "benchmarks/strategies/rollouts.py",
        "range(part, row.images, parts)",
        "range(0, row.images, parts)",
        ("tests/benchmarks/test_benchmarks_devices.py::test_pictures_in_parts_are_drawn_as_in_one_batch",),
    ),
]
