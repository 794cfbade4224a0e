"""Breaks in what starting a run costs, in time and memory."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "dry run keeps its model",
        "capkit/train/dry_run.py",
        "return value.detach()",
        "return value",
        ("tests/tasks/test_plan_task.py::test_a_measured_model_is_not_kept",),
    ),
    Break(
        "libyaml stays OmegaConf's loader",
        "capkit/utils/yaml_files.py",
        "        yaml.SafeLoader = own",
        "        pass",
        ("tests/utils/test_yaml_files.py::test_omegaconf_reads_by_libyaml_within_and_not_afterwards",),
    ),
    Break(
        "libyaml's own messages",
        "capkit/utils/yaml_files.py",
        "        return yaml.safe_load(text)",
        "        raise",
        ("tests/utils/test_yaml_files.py::test_mistakes_are_told_as_by_pyyaml",),
    ),
    Break(
        "untyped values",
        "capkit/utils/yaml_files.py",
        '"CSafeLoader"',
        '"CBaseLoader"',
        ("tests/utils/test_yaml_files.py::test_values_are_those_of_pyyaml",),
    ),
    Break(
        "imports are charged to items",
        "tests/cpu_budget.py",
        "            add(time.thread_time() - started)",
        "            add(0.0)",
        ("tests/test_cpu_budget.py::test_the_first_import_of_a_module_does_not_count",),
    ),
    Break(
        "a typo is dropped with what is replaced",
        "capkit/config/replaced.py",
        "for key in left - was_wrong:",
        "for key in left:",
        ("tests/config/test_configs.py::test_a_typo_in_an_experiment_is_refused_whatever_is_chosen",),
    ),
    Break(
        "only the first group's settings go",
        "capkit/config/replaced.py",
        "    for group in PICK_ANY:",
        "    for group in PICK_ANY[:1]:",
        ("tests/config/test_configs.py::test_settings_of_a_part_go_where_the_command_line_chooses_others",),
    ),
    Break(
        "a part's settings are dropped although it is chosen by none",
        "capkit/config/replaced.py",
        "                if name not in now:",
        "                if name in now:",
        ("tests/config/test_configs.py::test_settings_of_a_part_go_where_the_command_line_chooses_others",),
    ),
    Break(
        "the launcher imports Lightning again",
        "capkit/distributed/launcher.py",
        "from omegaconf import DictConfig, OmegaConf",
        "import lightning.pytorch  # noqa: F401\nfrom omegaconf import DictConfig, OmegaConf",
        (
            (
                "tests/distributed/test_ranks.py::test_signals_to_the_process_that_starts_the_ranks_reach"
                "_them_and_its_status_is_theirs"
            ),
        ),
    ),
]
