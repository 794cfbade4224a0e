"""All that capkit touches of other packages without their promise to keep it: one list, and a test of each entry.

A name with an underscore, an attribute that no documentation has, a method of Lightning's that is replaced. A release
that moves one of them fails here, by its name; the bounds in pyproject.toml keep such a release from users. An
underscore in capkit's source that is not in the list fails too.
"""

import ast
import functools
import importlib
import importlib.metadata
import inspect
import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "capkit"
# Distributions whose minor releases may move what the list names.
BOUNDED = ("lightning", "transformers", "deepspeed", "peft", "torch", "torchvision", "hydra-core")


@dataclass(frozen=True)
class Touch:
    """`name` of `owner`, a module or `module:class`; `signature` holds the arguments that capkit relies on."""

    owner: str
    name: str
    file: str  # of capkit
    why: str
    signature: tuple[str, ...] | None = None

    @property
    def distribution(self) -> str:
        return self.owner.partition(":")[0].partition(".")[0]


_ZERO_12 = "deepspeed.runtime.zero.stage_1_and_2:DeepSpeedZeroOptimizer"
_ZERO_3 = "deepspeed.runtime.zero.stage3:DeepSpeedZeroOptimizer_Stage3"
_OFFLOAD = "deepspeed.runtime.zero.parameter_offload:DeepSpeedZeRoOffload"
_FIT_LOOP = "lightning.pytorch.loops.fit_loop"
_VALIDATION_LOOP = "lightning.pytorch.loops.evaluation_loop:_EvaluationLoop"
_PARTITIONS = "distributed/zero_partitions.py"
_LIGHTNING, _TRANSFORMERS = "upstream/lightning.py", "upstream/transformers.py"

TOUCHES = (
    # Lightning
    Touch("lightning.pytorch:Trainer", "_signal_connector", _LIGHTNING, "its handlers stay out"),
    Touch(
        "lightning.pytorch.trainer.connectors.signal_connector:_SignalConnector", "register_signal_handlers",
        _LIGHTNING, "replaced: it would requeue SLURM jobs in a signal handler", ("self",),
    ),
    Touch(
        "lightning.pytorch.loops.training_epoch_loop:_TrainingEpochLoop", "_broadcast_sigterm_tensor", _LIGHTNING,
        "replaced: each step would wait for it", ("self",),
    ),
    Touch(_FIT_LOOP, "_FitLoop", _LIGHTNING, "the base of a loop that owes a validation after a resume"),
    Touch(
        f"{_FIT_LOOP}:_FitLoop", "__init__", _LIGHTNING, "its base",
        ("self", "trainer", "min_epochs", "max_epochs"),
    ),
    Touch(f"{_FIT_LOOP}:_FitLoop", "skip", _LIGHTNING, "overridden"),
    Touch(f"{_FIT_LOOP}:_FitLoop", "on_run_start", _LIGHTNING, "overridden", ("self",)),
    Touch(f"{_FIT_LOOP}:_FitLoop", "epoch_loop", _LIGHTNING, "handed from Lightning's loop to ours"),
    Touch("lightning.pytorch.loops.loop:_Loop", "is_resuming", _LIGHTNING, "whether a validation may be owed"),
    Touch(_VALIDATION_LOOP, "restarting", _LIGHTNING, "a cut validation begins anew"),
    Touch(_VALIDATION_LOOP, "reset_restart_stage", _LIGHTNING, "as above", ("self",)),
    Touch("lightning.pytorch:Trainer", "fit_loop", _LIGHTNING, "replaced by ours"),
    Touch("lightning.pytorch.strategies:DDPStrategy", "configure_ddp", _LIGHTNING, "DeepSpeed exchanges"),
    # transformers
    Touch(
        "transformers:GenerationMixin", "prepare_inputs_for_generation", _TRANSFORMERS, "overridden",
        ("self", "input_ids", "next_sequence_length"),
    ),
    Touch(
        "transformers:PreTrainedTokenizerFast", "_set_model_specific_special_tokens", _TRANSFORMERS,
        "InternVL's processor asks for tokens by name", ("self", "special_tokens"),
    ),
    Touch("transformers.pytorch_utils", "Conv1D", _TRANSFORMERS, "GPT-2's linear layer takes adapters"),
    Touch("transformers:PreTrainedConfig", "_attn_implementation", _TRANSFORMERS, "the kernel, to set and to put back"),
    Touch("transformers.masking_utils", "is_tracing", _TRANSFORMERS, "a captured pass needs no mask of ones"),
    # torch
    Touch("torch.nn:Module", "_forward_hooks", "models/encoders/graphs.py", "a replay would leave them out"),
    Touch("torch.nn:Module", "_forward_pre_hooks", "models/encoders/graphs.py", "a replay would leave them out"),
    Touch("torch.nn:Module", "_forward_hooks", "models/gradient_graphs.py", "as above"),
    Touch("torch.nn:Module", "_forward_pre_hooks", "models/gradient_graphs.py", "as above"),
    Touch("torch.nn:Module", "_forward_hooks", "models/products.py", "shared products leave them out"),
    Touch("torch.nn:Module", "_forward_pre_hooks", "models/products.py", "as above"),
    Touch("torch.nn:Module", "_backward_hooks", "models/products.py", "as above"),
    Touch("torch.nn:Module", "_parameters", "models/gradient_graphs.py", "read at every step: faster"),
    Touch("torch.nn:Module", "_parameters", "decoding/graphs.py", "as above"),
    Touch("torch.nn:Module", "_buffers", "decoding/graphs.py", "as above"),
    # DeepSpeed
    Touch("deepspeed.ops", "__compatible_ops__", _PARTITIONS, "keeps an unused operator from being compiled"),
    Touch(_ZERO_12, "single_partition_of_fp32_groups", _PARTITIONS, "the float32 weights that AdamW updates"),
    Touch(_ZERO_12, "_lazy_init_hp_params_optimizer_state", _PARTITIONS, "maps moments to parameters", ("self",)),
    Touch(_ZERO_12, "scaled_global_norm", _PARTITIONS, "replaced to discard a gradient"),
    Touch(_ZERO_12, "accumulated_grads_in_cpu", _PARTITIONS, "zeroed after a step, under offload"),
    Touch(_ZERO_12, "overflow", _PARTITIONS, "whether the step was left out"),
    Touch(_ZERO_3, "fp32_partitioned_groups_flat", _PARTITIONS, "the float32 weights that AdamW updates"),
    Touch(_ZERO_3, "grad_partitions_flat_buffer", _PARTITIONS, "zeroed after a step"),
    Touch(_ZERO_3, "_get_norm_groups", _PARTITIONS, "replaced to discard a gradient"),
    Touch(_ZERO_3, "parameter_offload", _PARTITIONS, "gathers whole weights"),
    Touch(_ZERO_3, "overflow", _PARTITIONS, "whether the step was left out"),
    Touch(_OFFLOAD, "partition_all_parameters", _PARTITIONS, "gathers whole weights"),
    Touch(_OFFLOAD, "setup_zero_stage3_hooks", _PARTITIONS, "divides them again", ("self",)),
    Touch(_OFFLOAD, "forward_hooks", _PARTITIONS, "taken off while weights are whole"),
    Touch(_OFFLOAD, "backward_hooks", _PARTITIONS, "as above"),
    Touch(_OFFLOAD, "fwd_pre_hook", _PARTITIONS, "as above"),
    # peft
    Touch("peft.tuners.tuners_utils", "BaseTunerLayer", "upstream/peft.py", "finds, switches and merges adapters"),
    # torch
    Touch(
        "torch.utils.data.dataloader", "_MultiProcessingDataLoaderIter", "data/loader.py", "ends workers without delay"
    ),
    Touch(
        "torch.utils.data.dataloader:_MultiProcessingDataLoaderIter", "_shutdown_workers", "data/loader.py", "as above",
        ("self",),
    ),
    Touch("torch.utils.data:DataLoader", "_iterator", "data/loader.py", "as above"),
    Touch("torch", "_utils", "data/shared_memory.py", "where ExceptionWrapper is"),
    Touch("torch._utils", "ExceptionWrapper", "data/shared_memory.py", "an error in a batch's place"),
    Touch(
        "torch.distributed.distributed_c10d", "_get_default_store", "train/callbacks/preemption.py",
        "a client of its own for the signal's listener", (),
    ),
    Touch(
        "torch.utils.cpp_extension", "_get_build_directory", "distributed/build_locks.py", "where locks may be stale",
        ("name", "verbose"),
    ),
    Touch(
        "torch.ops:aten", "_scaled_dot_product_flash_attention_for_cpu", "train/dry_run.py", "its FLOP are counted"
    ),
    Touch("torch.nn.modules.batchnorm", "_BatchNorm", "train/train_module.py", "layers that mix examples"),
    Touch("torch.nn:Module", "_get_name", "models/encoders/compile.py", "overridden: what repr shows", ("self",)),
)  # fmt: skip
# Not of a package: the standard library's, or names that Lightning looks for on what capkit gives it.
STANDARD_LIBRARY = {"_exit", "_current_frames", "_on_queue_feeder_error"}


def owner(touch: Touch):
    module, _, name = touch.owner.partition(":")
    found = importlib.import_module(module)
    return getattr(found, name) if name else found


def sets_in_its_methods(cls, name: str) -> bool:
    """Whether a class or one of its bases assigns `self.name`, or declares it."""
    for base in cls.__mro__[:-1]:
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(base)))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr == name:
                return True
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
                return True
    return False


@pytest.mark.parametrize("touch", TOUCHES, ids=lambda touch: f"{touch.owner}.{touch.name}")
def test_what_is_touched_is_there(touch):
    holder = owner(touch)
    version = importlib.metadata.version(touch.distribution)
    if inspect.isclass(holder) and not hasattr(holder, touch.name):
        assert sets_in_its_methods(holder, touch.name), (
            f"{touch.distribution} {version}: {touch.owner} has no {touch.name}, which capkit/{touch.file} uses"
        )
        return
    assert hasattr(holder, touch.name), (
        f"{touch.distribution} {version}: {touch.owner} has no {touch.name}, which capkit/{touch.file} uses"
    )
    if touch.signature is not None:
        parameters = tuple(inspect.signature(getattr(holder, touch.name)).parameters)
        assert parameters[: len(touch.signature)] == touch.signature, (
            f"{touch.distribution} {version}: {touch.owner}.{touch.name} takes {parameters}, capkit/{touch.file} "
            f"counts on {touch.signature}"
        )


def sources():
    return {
        path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def own_names(trees) -> set[str]:
    """Every name with an underscore that capkit itself defines."""
    names = set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                    names.add(node.attr)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                names |= {
                    item.asname or item.name for item in node.names if "capkit" in (getattr(node, "module", "") or "")
                }
    return names


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_uses(tree, own: set[str]):
    """(line, name) of what is imported, read, set or asked for by a name with an underscore that is not capkit's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("capkit"):
            parts = [*(node.module or "").split("."), *(item.name for item in node.names)]
            yield from ((node.lineno, part) for part in parts if is_private(part))
        elif isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            yield node.lineno, node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1:
            name = node.args[1].value if isinstance(node.args[1], ast.Constant) else None
            asks = node.func.id in ("getattr", "setattr", "hasattr", "delattr") and isinstance(name, str)
            if asks and is_private(name) and name not in own:
                yield node.lineno, name


@pytest.mark.integration  # all sources are parsed
def test_every_private_name_in_the_source_is_in_the_list():
    trees = sources()
    own = own_names(trees.values())
    listed = {(touch.file, touch.name) for touch in TOUCHES}
    found = [
        f"capkit/{file}, line {line}: {name}"
        for file, tree in trees.items()
        for line, name in private_uses(tree, own)
        if (file, name) not in listed and name not in STANDARD_LIBRARY
    ]
    assert not found, "add to TOUCHES, or do without: " + "; ".join(found)


def test_the_search_finds_each_way_to_touch():
    source = (
        "from torch._utils import x\nfrom lightning import _Y\na._z = 1\nb._w\ngetattr(c, '_v')\nself._own = d._own\n"
    )
    tree = ast.parse(source)
    found = {name for _, name in private_uses(tree, own_names([tree]))}
    assert found == {"_utils", "_Y", "_z", "_w", "_v"}


def test_no_entry_has_outlived_its_use():
    gone = [touch for touch in TOUCHES if touch.name not in (PACKAGE / touch.file).read_text(encoding="utf-8")]
    assert not gone


@functools.cache
def private_names() -> dict[str, set[str]]:
    """Of each file, read once for all packages."""
    return {file: {name for _, name in private_uses(tree, set())} for file, tree in sources().items()}


@pytest.mark.parametrize("distribution", ["lightning", "transformers", "deepspeed", "peft"])
def test_all_touches_of_a_package_stand_in_one_file(distribution):
    (file,) = {touch.file for touch in TOUCHES if touch.distribution == distribution}
    names = {touch.name for touch in TOUCHES if touch.distribution == distribution and is_private(touch.name)}
    others = {other for other, found in private_names().items() if names & found}
    assert others <= {file}, "what is private to the package is used elsewhere too"


def test_each_package_is_bounded_above_by_a_minor_release():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {
        requirement.name: requirement for requirement in map(Requirement, project["optional-dependencies"]["train"])
    }
    assert {touch.distribution for touch in TOUCHES} <= set(BOUNDED)
    for name in BOUNDED:
        upper = [part for part in asked[name].specifier if part.operator == "<"]
        assert len(upper) == 1 and upper[0].version.count(".") == 1, f"{asked[name]}: bound it by a minor release"
