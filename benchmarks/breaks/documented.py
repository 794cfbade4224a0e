"""Breaks in what pages of the documentation show: commands, messages, YAML, Python, pictures.

And in which rows of docs/studies.md are told to be of an earlier test.
"""

from benchmarks.breaks.planted import Break

BREAKS = [
    Break(
        "pages: a mistyped key in a command",
        "docs/modular.md",
        "model=modular objective=modular",
        "model=modular objectiv=modular",
        ("tests/packaging/test_doc_blocks.py",),
    ),
    Break(
        "pages: a choice that does not exist",
        "docs/modular.md",
        "model=modular objective=modular",
        "model=modlar objective=modular",
        ("tests/packaging/test_doc_blocks.py",),
    ),
    Break(
        "pages: a command that bash does not read",
        "docs/configuration.md",
        "'model.num_layers=range(1,5)'",
        "model.num_layers=range(1,5)",
        ("tests/packaging/test_doc_blocks.py",),
    ),
    Break(
        "pages: an error's words of yesterday",
        "docs/configuration.md",
        "expected a finite number greater than 0, got the text",
        "expected a number, got the text",
        ("tests/packaging/test_doc_blocks.py",),
    ),
    Break(
        "pages: a part of YAML under another name",
        "docs/encoders_evaluation.md",
        "    encoder:\n      _target_: capkit.models.dual_encoders.cached",
        "    judge:\n      _target_: capkit.models.dual_encoders.cached",
        ("tests/packaging/test_doc_blocks.py",),
    ),
    Break(
        "pages: another result of Python",
        "docs/ptb_tokenizer.md",
        "a man ca n't ride",
        "a man can't ride",
        ("tests/packaging/test_doc_python.py",),
    ),
    Break(
        "pages: a picture that is not there",
        "docs/demo.md",
        "](demo.png)",
        "](demo.webp)",
        ("tests/packaging/test_docs.py",),
    ),
    Break(
        "pages: a symptom in other words",
        "docs/troubleshooting.md",
        "was started with another config",
        "has another config",
        ("tests/packaging/test_troubleshooting.py",),
    ),
    Break(
        "a step's own model keeps settings of the shared one",
        "capkit/config/compose.py",
        "lambda key: any(file.holds(key) for file in explicit)",
        "lambda key: True",
        ("tests/config/test_step_models.py",),
    ),
    Break(
        "a step's own model loses what an experiment sets for it",
        "capkit/config/compose.py",
        "lambda key: any(file.holds(key) for file in explicit)",
        "lambda key: False",
        ("tests/experiments/test_question_experiments.py",),
    ),
    Break(
        "adapters of several parts are refused one by one",
        "capkit/config/compose.py",
        'prefix == "model.lora" and all(',
        'prefix == "model.lora" and not all(',
        ("tests/config/test_step_models.py",),
    ),
    Break(
        "frontier: R@1 is explained without a column",
        "capkit/reports/frontier.py",
        "if any(column.endswith(end) for column in columns)",
        "",
        ("tests/reports/test_frontier.py",),
    ),
    Break(
        "studies: a file's form depends on Python's version",
        "benchmarks/studies/records.py",
        'if value not in (None, []) or name == "value"]',
        "]",
        ("tests/benchmarks/test_studies.py::test_the_form_of_a_test_is_the_same_on_every_python",),
    ),
    Break(
        "studies: what is None has no form",
        "benchmarks/studies/records.py",
        ' or name == "value"]',
        "]",
        ("tests/benchmarks/test_studies.py::test_the_form_of_a_test_is_the_same_on_every_python",),
    ),
    Break(
        "studies: a list of what has changed runs it",
        "benchmarks/studies/__main__.py",
        "if given.changed and not given.run:",
        "if False:",
        (
            "tests/benchmarks/test_studies.py::"
            "test_changed_are_listed_and_neither_run_nor_written_unless_they_are_to_run",
        ),
    ),
]
