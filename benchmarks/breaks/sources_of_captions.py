"""Breaks in captions that a step needs, and curated captions."""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "curate: a step of any kind before it counts as the writer of what a step needs",
        "capkit/curation/base.py",
        "is_there = not needed or not written.isdisjoint((needed, None)) or _has_source(records(), needed)",
        "is_there = not needed or bool(written) or _has_source(records(), needed)",
        ("tests/curation/test_check_sources.py",),
    ),
    Break(
        "curate: captions that the data have already do not count",
        "capkit/curation/base.py",
        "is_there = not needed or not written.isdisjoint((needed, None)) or _has_source(records(), needed)",
        "is_there = not needed or not written.isdisjoint((needed, None))",
        ("tests/curation/test_check_sources.py",),
    ),
    Break(
        "curate: the source of a caption may hold what is needed anywhere",
        "capkit/curation/base.py",
        "caption.source.startswith(start)",
        "start in caption.source",
        ("tests/curation/test_check_sources.py",),
    ),
    Break(
        "curate: a step that does not say what it writes is taken to write nothing",
        "capkit/curation/base.py",
        "not written.isdisjoint((needed, None))",
        "needed in written",
        ("tests/curation/test_check_sources.py",),
    ),
    Break(
        "curate: the step that is to be put before stays where it was too",
        "capkit/curation/base.py",
        "        if step != name:\n            yield step\n",
        "        yield step\n",
        ("tests/curation/test_check_sources.py",),
    ),
    Break(
        "curate: the data are looked at once for all steps",
        "capkit/curation/base.py",
        "    written: set[str | None] = set()\n",
        (
            "    written: set[str | None] = set()\n    first = iter(records())\n    records = lambda: fir"
            "st  # noqa: E731\n"
        ),
        ("tests/curation/test_check_sources.py::test_the_data_may_have_them_already_whatever_else_they_have",),
    ),
    Break(
        "curate: the folder is claimed before the order of steps is looked at",
        "capkit/tasks/curate.py",
        (
            "    check_sources(steps, partial(first_records, source))\n    folder = CuratedFolder(Path(c"
            "fg.out), split, shard, num_shards)\n"
        ),
        (
            "    folder = CuratedFolder(Path(cfg.out), split, shard, num_shards)\n    folder.claim({})\n "
            "   check_sources(steps, partial(first_records, source))\n"
        ),
        ("tests/tasks/test_curate.py::test_what_cannot_run_is_told",),
    ),
    Break(
        "mlbcap: the judge does not say that it needs candidates",
        "capkit/curation/steps/judge_candidates.py",
        '    reads_source = (f"{CANDIDATE}/", "write_candidates")\n',
        "",
        ("tests/tasks/test_curate.py::test_what_cannot_run_is_told",),
    ),
]
