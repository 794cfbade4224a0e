"""Imports run one way, folder by folder: read from the syntax tree of every file, so that lazy imports count too."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "capkit"
FILES = sorted(PACKAGE.rglob("*.py"))

# What a folder or a file at the top may import of capkit, beside itself and what lies at the bottom.
BOTTOM = {"errors", "types", "utils"}
MAY_IMPORT = {
    "types": {"errors", "utils"},
    "errors": set(),
    "utils": {"errors"},
    "assets": {"errors", "utils"},
    "upstream": set(),
    "text": BOTTOM | {"upstream"},
    "fault_tolerance": BOTTOM,
    "config": BOTTOM | {"assets", "decoding"},
    "optim": BOTTOM,
    "run": BOTTOM | {"config"},
    "llm": BOTTOM | {"decoding", "text"},
    "decoding": BOTTOM | {"text", "upstream"},
    "distributed": BOTTOM | {"config", "fault_tolerance", "run", "upstream"},
    "data": BOTTOM | {"distributed", "fault_tolerance", "text"},
    "models": BOTTOM | {"decoding", "fault_tolerance", "text", "upstream"},
    "objectives": BOTTOM | {"decoding", "distributed", "optim", "text"},
    "readers": BOTTOM | {"fault_tolerance", "llm", "models", "text", "upstream"},
    "judges": BOTTOM | {"llm", "models", "text"},
    "metrics": BOTTOM | {"distributed", "fault_tolerance", "judges", "llm", "models", "readers", "text"},
    "scorers": BOTTOM
    | {"distributed", "fault_tolerance", "judges", "llm", "metrics", "models", "optim", "readers", "text"},
    "evaluators": BOTTOM | {"data", "fault_tolerance", "metrics", "models", "text"},
    "checkpoint": BOTTOM | {"config", "distributed", "models", "run", "text", "upstream"},
    "reports": BOTTOM | {"judges", "metrics", "run", "text"},
    "experts": BOTTOM | {"llm", "models", "text"},
    "curation": BOTTOM | {"data", "experts", "llm", "metrics", "models", "readers", "run", "scorers", "text"},
    "sceneworld": BOTTOM | {"data", "experts", "judges", "llm", "metrics", "readers", "scorers", "text"},
    "testing": BOTTOM | {"data", "distributed", "models", "text"},
    "cli": BOTTOM | {"config", "run"},
    "entry": set(),
}
# In this order: each imports what stands before it, and what MAY_IMPORT names.
LAST = ["train", "loaded", "model_loading", "api", "demo", "methods", "tasks"]
NOBODY_IMPORTS = {"tasks", "methods", "api", "cli", "entry", "testing"}
FOR_TYPES = {"api", "loaded"}  # what the package itself names, for type checkers alone (tests/test_api.py)
SCORES_FILES = PACKAGE / "metrics" / "__main__.py"  # the one metric that reads files: it shares the readers of `data`
SAY_WHAT_TO_INSTALL = [PACKAGE / name for name in ("__init__.py", "__main__.py", "train/__init__.py")]
KNOWS_SCENEWORLD = {"methods"}
PROTOCOLS = {"capkit.models.captioners.base", "capkit.models.dual_encoders.base", "capkit.models.batching"}
# Of models, these folders may know the protocols only; others also caches, and metrics the one frozen judge of text.
MODELS_KNOWN = {
    "objectives": PROTOCOLS,
    "experts": PROTOCOLS,
    "curation": PROTOCOLS | {"capkit.models.dual_encoders.cached"},
    "evaluators": PROTOCOLS
    | {
        "capkit.models.dual_encoders.cached",
        "capkit.models.dual_encoders.fingerprint",
        "capkit.models.dual_encoders.grammar_head",
        "capkit.models.dual_encoders.patch_grouping",
        "capkit.models.weights",
    },
    "metrics": PROTOCOLS | {"capkit.models.dual_encoders.fingerprint", "capkit.models.dual_encoders.sentence_encoder"},
}


def imported(path: Path) -> set[str]:
    """Dotted names of everything of capkit that a file imports, `from` names joined on."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {item.name for item in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}, line {node.lineno}: imports are absolute"
            names |= {f"{node.module}.{item.name}" for item in node.names}
    return {name for name in names if name.split(".")[0] == "capkit"}


def room(dotted: str) -> str:
    return dotted.split(".")[1] if "." in dotted else ""


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_a_folder_imports_only_what_lies_below_it():
    wrong = []
    for path in FILES:
        own = room_of(path)
        foreign = {room(name) for name in imported(path)} - {own, "", "__version__"}
        before = LAST[: LAST.index(own)] if own in LAST else []
        allowed = MAY_IMPORT.get(own, MAY_IMPORT.keys() | set(before)) - NOBODY_IMPORTS
        allowed |= FOR_TYPES if own == "__init__" else {"cli"} if own == "entry" else set()
        allowed |= {"entry"} if path in SAY_WHAT_TO_INSTALL else set()
        allowed |= {"data"} if path == SCORES_FILES else set()
        if own not in {*MAY_IMPORT, *LAST, "__init__", "__main__"} or not foreign <= allowed:
            wrong.append(f"{path.relative_to(PACKAGE)} imports {sorted(foreign - allowed)}")
    assert not wrong


def test_the_table_allows_no_circle():
    below: dict[str, set[str]] = {}
    while len(below) < len(MAY_IMPORT):
        free = {name: wanted for name, wanted in MAY_IMPORT.items() if name not in below and wanted <= below.keys()}
        assert free, f"a circle among {sorted(MAY_IMPORT.keys() - below.keys())}"
        below |= free


def test_methods_do_not_import_each_other():
    for path in (PACKAGE / "methods").rglob("*.py"):
        family = path.relative_to(PACKAGE / "methods").parts[0]
        others = {name.split(".")[2] for name in imported(path) if room(name) == "methods"} - {family}
        assert not others, f"{path.name}: what two methods need moves down into a folder of its kind"


def test_only_sceneworld_knows_sceneworld():
    knowing = {room_of(path) for path in FILES if any(room(name) == "sceneworld" for name in imported(path))}
    assert knowing <= KNOWS_SCENEWORLD | {"sceneworld"}


def test_a_step_does_not_ask_which_strategy_it_has():
    """`step_strategy` chooses once; everybody else calls the `StepStrategy` that it returned."""
    chosen_in = PACKAGE / "distributed" / "strategies.py"
    for path in FILES:
        if path.parent != chosen_in.parent:
            assert "capkit.distributed.zero.Zero" not in imported(path), path.name
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        asked = [ast.unparse(call) for call in calls if ast.unparse(call.func) == "isinstance"]
        assert path == chosen_in or not [call for call in asked if "Strategy" in call], path.name


@pytest.mark.parametrize("own", MODELS_KNOWN)
def test_concrete_models_stay_out(own):
    known = MODELS_KNOWN[own]
    for path in (PACKAGE / own).rglob("*.py"):
        for name in imported(path):
            assert room(name) != "models" or name in known or name.rpartition(".")[0] in known, (
                f"{path.name}: {name}; a model reaches it as an argument"
            )


def test_the_command_line_and_the_config_check_import_neither_torch_nor_lightning():
    heavy = ("torch", "lightning", "transformers", "torchmetrics", "numpy", "peft")
    light = [PACKAGE / "cli.py", PACKAGE / "errors.py", PACKAGE / "__init__.py", *(PACKAGE / "config").rglob("*.py")]
    for path in light:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [item.name for item in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] in heavy], path.name


def test_the_top_of_the_package_is_short():
    files = [path for path in PACKAGE.glob("*.py")]
    folders = {path.relative_to(PACKAGE).parts[0] for path in FILES if path.parent != PACKAGE}
    assert len(files) <= 9 and len(folders) <= 29


def test_a_layering_violation_would_be_seen(tmp_path):
    file = tmp_path / "x.py"
    file.write_text(
        "def f():\n"
        "    from capkit.models.captioners.encoder_decoder import EncoderDecoder\n"
        "    import capkit.tasks.fit\n"
    )
    assert imported(file) == {"capkit.models.captioners.encoder_decoder.EncoderDecoder", "capkit.tasks.fit"}
    assert {room(name) for name in imported(file)} == {"models", "tasks"}
