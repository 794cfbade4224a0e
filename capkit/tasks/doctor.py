"""task=doctor: what of this machine could stand in a run's way, each complaint with a fix."""

import importlib.util
import os
import platform
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import torch
from huggingface_hub.constants import HF_HOME
from omegaconf import DictConfig
from packaging.requirements import Requirement
from rich.table import Table
from rich.text import Text

import capkit
from capkit.config.locations import config_dir
from capkit.errors import UsageError
from capkit.text.tokenizers import hub_reachable
from capkit.utils.console import Screen

GIB = 2**30
LITTLE_DISK, NO_DISK = 20 * GIB, 2 * GIB  # a run of GPT-2's size keeps some GB of checkpoints
LITTLE_SHARED = GIB
FEW_FILES = 1024
# Packages that stand in the way where they are installed, and why.
KNOWN_BAD = {
    "hydra": "it is not Hydra: pip uninstall hydra, then pip install --force-reinstall hydra-core",
    "pynvml": "torch warns of it in every process: pip uninstall pynvml, pip install nvidia-ml-py",
}
_STYLE = {"ok": "green", "note": "yellow", "bad": "red"}


@dataclass(frozen=True)
class Finding:
    """What was looked at and found. A note may matter to some runs, what is bad to any; both come with a fix."""

    what: str
    found: str
    level: Literal["ok", "note", "bad"] = "ok"
    fix: str = ""


def run(cfg: DictConfig) -> dict[str, float]:
    """Print all findings; returns how many notes and problems there are. Raises UsageError where something is bad."""
    findings = [finding for look in LOOKS for finding in look()]
    table = Table("", "looked at", "found", box=None)
    for finding in findings:
        table.add_row(Text(finding.level, _STYLE[finding.level]), Text(finding.what), Text(finding.found))
        if finding.fix:
            table.add_row("", "", Text(f"fix: {finding.fix}", "italic"))
    Screen().print(table)
    numbers = {level: float(sum(finding.level == level for finding in findings)) for level in ("note", "bad")}
    if numbers["bad"]:
        what = ", ".join(finding.what for finding in findings if finding.level == "bad")
        raise UsageError(f"expected a machine that capkit runs on, got problems with {what}; the fixes stand above")
    return {"notes": numbers["note"], "problems": numbers["bad"]}


def constraints() -> Path:
    """The versions that capkit is tested with: in the package, or in the checkout beside it."""
    own = Path(capkit.__file__).parent / "constraints.txt"
    return own if own.exists() else config_dir().parent / "requirements" / "constraints.txt"


def versions() -> Iterator[Finding]:
    """Python and the packages that capkit needs, against what it asks for and what it is tested with."""
    yield Finding("capkit", f"{capkit.__version__}, Python {platform.python_version()}, {platform.platform()}")
    lines = constraints().read_text(encoding="utf-8").splitlines()
    pins = dict(line.split(" ")[0].split("==") for line in lines if "==" in line and not line.startswith("#"))
    tested = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    install = f"pip install -c {constraints()} 'capkit[train]'"
    others = []
    for requirement in map(Requirement, metadata.requires("capkit") or []):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": "train"}):
            continue
        version, wanted = _version(requirement.name), tested.get(requirement.name.lower().replace("_", "-"))
        if version is None:
            yield Finding(requirement.name, f"not installed, needed: {requirement}", "bad", install)
        elif not requirement.specifier.contains(version.partition("+")[0], prereleases=True):
            yield Finding(requirement.name, f"{version}, needed: {requirement.specifier}", "bad", install)
        elif wanted is not None and version.partition("+")[0] != wanted.partition("+")[0]:
            others.append(f"{requirement.name} {version} ({wanted})")
    if others:
        yield Finding("packages", f"other versions than the tested ones: {', '.join(others)}", "note", install)
    else:
        yield Finding("packages", f"torch {torch.__version__}, and the others: the versions that are tested")
    for name, why in KNOWN_BAD.items():
        if (version := _version(name)) is not None:
            yield Finding(name, f"{version} is installed", "note", why)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def gpu() -> Iterator[Finding]:
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(number)
            bf16 = "" if torch.cuda.is_bf16_supported(including_emulation=False) else ", without bfloat16"
            yield Finding(f"GPU {number}", f"{about.name}, {about.total_memory / GIB:.0f} GiB{bf16}")
        return
    there = _said("nvidia-smi", "-L")
    if there:
        yield Finding(
            "GPU",
            f"{there.splitlines()[0]}; torch {torch.__version__} (CUDA {torch.version.cuda}) sees none",
            "bad",
            "install a torch whose CUDA the driver knows (nvidia-smi shows it), unset CUDA_VISIBLE_DEVICES, or use "
            "trainer=cpu",
        )
    else:
        yield Finding("GPU", "none: runs on the CPU, for small models and SceneWorld", "note", "docs/cluster.md")


def compiler() -> Iterator[Finding]:
    """What `compile=true` and DeepSpeed's own optimizers build at their first use."""
    found = [name for name in ("g++", "ninja", "nvcc") if shutil.which(name)]
    deepspeed = _version("deepspeed")
    said = f"{', '.join(found) or 'no compiler'}; DeepSpeed {deepspeed or 'is not installed'}"
    if "g++" not in found:
        fix = "apt install build-essential, for compile=true and DeepSpeed's optimizers on the CPU"
        yield Finding("compiler", said, "note", fix)
    else:
        yield Finding("compiler", said)


def slurm() -> Iterator[Finding]:
    if shutil.which("sbatch") is None:
        yield Finding("SLURM", "none")
    elif importlib.util.find_spec("submitit") is None:
        yield Finding("SLURM", "sbatch", "note", "pip install 'capkit[slurm]' for launcher=slurm")
    else:
        yield Finding("SLURM", f"{_said('sbatch', '--version') or 'sbatch'}, submitit {_version('submitit')}")


def disk() -> Iterator[Finding]:
    """Room and permission where runs, downloads and temporary files go."""
    for what, path in (("runs", Path.cwd()), ("HF_HOME", Path(HF_HOME)), ("TMPDIR", Path(tempfile.gettempdir()))):
        elsewhere = "run_dir=PATH" if what == "runs" else f"export {what}=PATH"
        while not path.exists():
            path = path.parent
        free = shutil.disk_usage(path).free
        said = f"{free / GIB:.0f} GiB free in {path}"
        if not os.access(path, os.W_OK):
            yield Finding(what, f"{path} cannot be written", "bad", f"give permission, or another folder: {elsewhere}")
        elif free < NO_DISK:
            yield Finding(what, said, "bad", f"make room (df -h), or take another disk: {elsewhere}")
        elif free < LITTLE_DISK:
            yield Finding(what, said, "note", "callback.checkpoints.keep_last=1 keeps fewer checkpoints")
        else:
            yield Finding(what, said)


def shared_memory() -> Iterator[Finding]:
    """Where data workers and NCCL leave what they pass on."""
    path = Path("/dev/shm")
    if not path.is_dir():
        return
    free = shutil.disk_usage(path).free
    level: Literal["ok", "note"] = "note" if free < LITTLE_SHARED else "ok"
    fix = "docker run --shm-size=8g (or --ipc=host), or data.num_workers=0" if level == "note" else ""
    yield Finding("shared memory", f"{free / GIB:.1f} GiB free in {path}", level, fix)


def limits() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    said = f"{cores} cores, {files} open files, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}"
    if 0 <= files < FEW_FILES:
        yield Finding("limits", said, "note", f"ulimit -n {most}: many data workers need more files")
    else:
        yield Finding("limits", said)


def services() -> Iterator[Finding]:
    if hub_reachable():
        yield Finding("model hub", "its name resolves")
    else:
        yield Finding("model hub", "out of reach", "note", "give folders in the place of names; HF_HUB_OFFLINE=1")
    mode = os.environ.get("WANDB_MODE")
    has_key = bool(os.environ.get("WANDB_API_KEY")) or "api.wandb.ai" in _text(Path.home() / ".netrc")
    if mode or has_key:
        yield Finding("wandb", mode or "online, by your key")
    else:
        yield Finding(
            "wandb", "no key: logger=[wandb] writes offline", "note", "wandb login, or capkit wandb_sync later"
        )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _said(*command: str) -> str:
    """What a program prints; empty where it is absent, fails or hangs."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


LOOKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    versions, gpu, compiler, slurm, disk, shared_memory, limits, services,
)  # fmt: skip
