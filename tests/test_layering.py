"""Imports run one way: read from the syntax tree of every file, so that lazy imports count too."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "capkit"
FILES = sorted(path for path in PACKAGE.rglob("*.py"))

BOTTOM = {
    "types", "errors", "keyed", "schedules", "distributed", "scenes", "weights", "edits", "embedding_cache", "slurm",
    "stop_signal", "halving", "removal", "file_modes", "text_files", "caption_text", "console", "ranges", "checksums",
}  # fmt: skip

# What each part may import of capkit, beside itself. A part that is missing here may import what TOP may.
MAY_IMPORT = {
    "types": set(),
    "errors": set(),
    "console": set(),
    "checksums": set(),
    "ranges": {"errors"},
    "removal": set(),
    "file_modes": set(),
    "slurm": {"errors"},
    "halving": {"errors"},
    "text_files": {"errors"},
    "caption_text": {"errors", "text_files"},
    "stop_signal": {"console", "slurm"},
    "keyed": {"errors"},
    "schedules": {"errors", "ranges"},
    "distributed": {"errors", "types"},
    "scenes": {"checksums", "console", "errors", "keyed", "ranges", "types"},
    "weights": {"errors"},
    "edits": {"errors", "keyed"},
    "embedding_cache": {"errors", "keyed"},
    "text": BOTTOM,
    "decoding": BOTTOM | {"text"},
    "models": BOTTOM | {"text", "decoding"},
    "metrics": BOTTOM | {"text", "models"},
    "scorers": BOTTOM | {"text", "metrics", "models"},
    "objectives": BOTTOM | {"models", "decoding"},
    "curricula": BOTTOM,
    "mining": BOTTOM | {"curricula"},
    "llm": BOTTOM | {"text"},
    "data": BOTTOM | {"curricula", "llm"},
    "evaluators": BOTTOM | {"text", "metrics", "models", "data", "run_folder"},
    "strategies": BOTTOM | {"models"},
    "liveness": set(),
    "watch": {"console", "errors", "liveness", "removal"},
    "config": {"errors", "decoding", "ranges", "assets"},
    "cli": {"errors", "config", "console"},
}
PROTOCOLS = {"capkit.models.captioner", "capkit.models.dual_encoder"}
# Of models, these parts may know the protocols only; metrics also the one frozen judge of text, evaluators what wraps
# an encoder or is asked of its grammar head.
MODELS_KNOWN = {
    "objectives": PROTOCOLS,
    "evaluators": PROTOCOLS | {"capkit.models.cached_encoder", "capkit.models.grammar_head"},
    "metrics": PROTOCOLS | {"capkit.models.sentence_encoder"},
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


def part(dotted: str) -> str:
    return dotted.split(".")[1] if "." in dotted else ""


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_what_lies_below_it(path):
    own = part_of(path)
    foreign = {part(name) for name in imported(path)} - {own, "", "__version__"}
    assert "tasks" not in foreign, "nothing imports tasks: they are named by configs"
    assert "cli" not in foreign, "nothing imports the command line"
    if own in MAY_IMPORT:
        assert foreign <= MAY_IMPORT[own], f"{own} may import {sorted(MAY_IMPORT[own])}"


@pytest.mark.parametrize("own", MODELS_KNOWN)
def test_concrete_models_stay_out(own):
    for path in (PACKAGE / own).rglob("*.py"):
        modules = {".".join(name.split(".")[:3]) for name in imported(path) if part(name) == "models"}
        assert modules <= MODELS_KNOWN[own], f"{path.name}: a model reaches it as an argument"


def test_the_command_line_and_the_config_check_import_neither_torch_nor_lightning():
    heavy = ("torch", "lightning", "transformers", "torchmetrics", "numpy", "peft")
    for path in [
        PACKAGE / "cli.py",
        PACKAGE / "errors.py",
        PACKAGE / "__init__.py",
        *(PACKAGE / "config").rglob("*.py"),
    ]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [item.name for item in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] in heavy], path.name


def test_a_layering_violation_would_be_seen(tmp_path):
    file = tmp_path / "x.py"
    file.write_text(
        "def f():\n    from capkit.models.encoder_decoder import EncoderDecoder\n    import capkit.tasks.fit\n"
    )
    assert imported(file) == {"capkit.models.encoder_decoder.EncoderDecoder", "capkit.tasks.fit"}
    assert {part(name) for name in imported(file)} == {"models", "tasks"}
