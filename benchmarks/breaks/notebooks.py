"""Breaks of what capkit leaves of the process around it, and of what a notebook shows."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "stop signal: a second Ctrl-C ends the process of another program",
        "capkit/fault_tolerance/stop_signal.py",
        "        self._ends_process = may_end_process() or store is not None  # ranks end together\n",
        "        self._ends_process = True\n",
        (
            "tests/fault_tolerance/test_stop_signal.py::test_a_second_ctrl_c_ends_the_run_but_not_the_process_of_another_program",
        ),
    ),
    Break(
        "stop signal: one Ctrl-C in another program does not wait for the saving",
        "capkit/fault_tolerance/stop_signal.py",
        "if self.requested and self._interrupts > 1 and not self._ends_process:",
        "if self.requested and not self._ends_process:",
        (
            "tests/fault_tolerance/test_stop_signal.py::test_one_ctrl_c_in_the_process_of_another_program_waits_for_the_saving",
        ),
    ),
    Break(
        "watchdog: a slow step ends the process of another program",
        "capkit/fault_tolerance/watchdog.py",
        "        self._ends_process = self.world_size > 1 or may_end_process()\n",
        "        self._ends_process = True\n",
        (
            "tests/fault_tolerance/test_watchdog.py::test_a_single_rank_in_another_programs_process_is_told_that_it_is_stuck_and_lives",
        ),
    ),
    Break(
        "train: Ctrl-C to several processes is a failure",
        "capkit/api.py",
        "        if ended.code == INTERRUPTED_STATUS:",
        "        if isinstance(ended, Stopped) and ended.code == INTERRUPTED_STATUS:",
        ("tests/test_api.py::test_what_ended_several_processes_is_told_as_of_one",),
    ),
    Break(
        "guest: torch's process group stays open",
        "capkit/utils/guest.py",
        "            dist.destroy_process_group()\n",
        "            pass\n",
        ("tests/utils/test_guest.py::test_what_changes_within_is_seen_and_given_back",),
    ),
    Break(
        "guest: determinism stays as a run's trainer set it",
        "capkit/utils/guest.py",
        "            torch.use_deterministic_algorithms(strict[0], warn_only=strict[1])\n",
        "            pass\n",
        ("tests/test_within_program.py::test_the_program_goes_on_as_if_nothing_had_been_called",),
    ),
    Break(
        "fit: validation has no pictures for its metrics",
        "capkit/tasks/fit.py",
        '            module.image_reader = run.data.image_reader("val")\n',
        "            pass\n",
        ("tests/test_api.py::test_a_function_in_the_working_folder_rewards_but_no_run_names_it",),
    ),
    Break(
        "custom: what a notebook wrote again is not read again",
        "capkit/scorers/custom.py",
        "            sys.modules.pop(name, None)\n",
        "            pass\n",
        ("tests/scorers/test_custom.py::test_a_file_that_a_notebook_wrote_again_is_read_again_by_the_next_run_alone",),
    ),
    Break(
        "launcher: ranks are started that lack a notebook's function",
        "capkit/distributed/launcher.py",
        "    _refuse_names_of_main(cfg, processes)\n",
        "",
        (
            "tests/distributed/test_ranks.py::test_a_function_of_the_program_around_is_refused_before_ranks_are_started_that_lack_it",
        ),
    ),
    Break(
        "errors: a notebook shows capkit's own lines",
        "capkit/errors.py",
        "itertools.takewhile(lambda frame: not frame.filename.startswith(_PACKAGE), frames)",
        "frames",
        ("tests/test_errors.py::test_a_notebook_shows_what_a_message_tells_below_the_users_own_lines_alone",),
    ),
    Break(
        "notebook: text of a bar is taken for HTML",
        "capkit/utils/notebook.py",
        "html.escape(line)",
        "line",
        ("tests/utils/test_console.py::test_in_a_notebook_bars_are_one_output_of_the_cell_of_which_a_line_stays",),
    ),
    Break(
        "guest: a program's own choice of precision is set back",
        "capkit/utils/guest.py",
        "        if precision is not None and _precision() != precision:\n",
        "        if True:\n",
        ("tests/utils/test_guest.py::test_precision_that_a_program_set_by_the_newer_names_stays",),
    ),
    Break(
        "interrupts: an import swallows Ctrl-C",
        "capkit/utils/interrupts.py",
        "        if pressed:\n",
        "        if False:\n",
        ("tests/utils/test_interrupts.py::test_it_is_raised_at_the_end_whatever_became_of_the_import",),
    ),
]
